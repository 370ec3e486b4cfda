// One film on the page: its screen, its facts, the picture of its plan and its lane of the timeline.

// The JPEGs in the body of a `paint` message.
function splitBody(sizes, body) {
  let start = 0;
  return sizes.map((size) => body.subarray(start, (start += size)));
}

const decodePictures = ({ sizes }, body) => Promise.all(splitBody(sizes, body).map(decodeJpeg));

class Pane {
  constructor(template) {
    this.root = template.content.firstElementChild.cloneNode(true);
    this.find = (name) => this.root.querySelector(".va-" + name);
    this.canvas = this.find("screen canvas");
    this.paper = this.canvas.getContext("2d");
    this.shown = -1;
  }

  // Before the first film: what the chosen plan looks like.
  rest({ title, sentence, picture }) {
    this.root.dataset.phase = "idle";
    this.find("name strong").textContent = title;
    this.find("idle strong").textContent = title;
    this.find("idle span").textContent = sentence;
    this.idle = null;
    this.find("idle svg").replaceChildren();
    if (!picture) return; // a plan from a link that the page has no picture of
    const units = picture.units.length;
    this.idle = new BlockPicture(this.find("idle svg"), picture);
    this.find("idle strong").textContent = `${title}: ${units} ${units === 1 ? "unit" : "units"}`;
  }

  // clip: a pane of the `clip` message; lane: its lane of the timeline; fps: what the transport counts in
  begin(clip, lane, fps) {
    this.clip = clip;
    this.rate = clip.fps / fps;
    this.lane = lane;
    this.exact = 0;
    this.clock = 0;
    this.unit = null;
    this.slab = clip.plan.units.length; // a long film repeats its plan, slab after slab
    this.total = clip.units === undefined ? this.slab : clip.units; // null: nobody knows
    this.made = 0;
    this.tokens = clip.plan.units.map((unit) => unit.tokens);
    this.frames?.clear();
    this.frames = new FrameStore(clip.width, clip.height, clip.frames ?? Infinity);
    this.canvas.width = clip.width;
    this.canvas.height = clip.height;
    this.find("screen").style.aspectRatio = `${clip.width} / ${clip.height}`;
    this.canvas.setAttribute("aria-label", `Film: ${clip.prompt}`);
    this.block = new BlockPicture(this.find("plan svg"), clip.plan);
    this.block.progress(0);
    this.find("screen").style.setProperty("--ratio", clip.width / clip.height);
    this.call(clip.label);
    this.find("note").textContent = "";
    this.find("choice").hidden = true;
    this.shown = -1;
    this.root.dataset.phase = "making";
    this.setFact("units", this.count());
    for (const name of ["speed", "first", "rate", "device", "cache", "left"]) this.setFact(name, "–");
    this.setFact("seed", clip.seed);
    this.tick(0);
  }

  // Its name on the screen: that of its settings, or a letter in a blind test.
  call(title) {
    this.title = title;
    this.shown = -1;
    this.find("name strong").textContent = title;
  }

  // Device time that this contender has used.
  tick(clock) {
    this.clock = clock;
    const text = `${clock.toFixed(2)} s`;
    this.find("clock").textContent = text;
    this.setFact("device", text);
    if (this.unit !== null) this.lane.stretch(this.unit, clock);
    this.lane.timeline.reach(clock);
  }

  startUnit({ unit, region: [x, y, w, h], clock }) {
    this.unit = unit;
    this.lane.start(unit, clock);
    const flight = this.find("flight"), { width, height } = this.clip;
    flight.style.cssText = `left:${(100 * x) / width}%;top:${(100 * y) / height}%;width:${(100 * w) / width}%;height:${(100 * h) / height}%`;
    flight.style.setProperty("--unit", unitColour(unit % this.slab, this.slab));
    this.label = flight.firstElementChild;
    this.label.textContent = `unit ${unit + 1}`;
    if (unit && unit % this.slab === 0) this.block.progress(0);
    this.block.mark(unit % this.slab, "now");
  }

  step({ unit, step, steps }) {
    if (steps > 1) this.label.textContent = `unit ${unit + 1}, step ${step} of ${steps}`;
  }

  // Whether the pictures of a `paint` message are kept as they are and decoded when they are due.
  packs({ preview }) {
    return this.frames.packed && !preview;
  }

  paint(head, body, bitmaps) {
    const { first, area, preview, sizes } = head, packs = this.packs(head);
    if (packs) splitBody(sizes, body).forEach((jpeg, offset) => this.frames.pack(first + offset, jpeg));
    bitmaps.forEach((bitmap, offset) => {
      if (!packs) this.frames.paint(first + offset, bitmap, area, preview);
      bitmap.close();
    });
    if (!preview) this.exact = Math.max(this.exact, first + sizes.length);
    this.shown = -1;
  }

  finishUnit({ unit, seconds, clock, cache }) {
    this.made++;
    if (this.unit === unit) this.unit = null;
    this.block.mark(unit % this.slab, "done");
    this.lane.finish(unit, seconds, clock);
    this.setFact("units", this.count());
    this.setFact("speed", `${(this.made / clock).toFixed(clock > this.made ? 2 : 1)} / s`);
    if (this.made === 1) this.setFact("first", `${clock.toFixed(2)} s`);
    if (this.exact) this.setFact("rate", `${(this.exact / clock).toFixed(1)} / s`);
    this.setFact("cache", bytes(cache));
    if (this.total === null) return this.setFact("left", this.clip.frames ? "–" : "endless");
    // Units differ in size (a fine scale is 64 times a coarse one), so the estimate goes by tokens.
    const sum = (count) => Array.from({ length: count }, (_, i) => this.tokens[i % this.slab]).reduce((a, b) => a + b, 0);
    const left = clock * (sum(this.total) / sum(this.made) - 1);
    this.setFact("left", this.made < this.total ? `about ${left.toFixed(left < 10 ? 1 : 0)} s` : "done");
  }

  count() {
    return this.total === null ? String(this.made) : `${this.made} of ${this.total}`;
  }

  // status: "done", "stopped" or "failed"
  end({ status, message }) {
    if (!this.frames || this.over) return;
    this.root.dataset.phase = status;
    if (status === "done") return this.setFact("rate", `${(this.frames.count / this.clock).toFixed(1)} / s`);
    this.block.progress(this.made && (this.made % this.slab || this.slab), "todo");
    this.setFact("left", status);
    this.find("note").textContent = message ?? "";
  }

  // Films of other models may run at another pace than the first one, by whose frames the transport counts.
  own(frame) {
    return Math.floor(frame * this.rate + 1e-6);
  }

  // One of several films of the same prompt, once it is done: take(seed) makes it the one to go on with.
  offer(file, take) {
    this.find("choice").hidden = false;
    this.find("own-film").href = file;
    this.find("own-film").setAttribute("aria-label", `${this.clip.label} as MP4`);
    this.find("take").onclick = () => take(this.clip.seed);
  }

  // Shows a frame, or the nearest earlier one that exists, of this film or another one.
  show(frame, film = this) {
    if (!film.frames) return;
    const there = film.frames.nearest(Math.min(film.own(frame), film.frames.count - 1));
    film.frames.near(there, (ready) => ready === this.wanted && this.show(ready, film));
    this.wanted = there;
    if (there >= 0 && !film.frames.pictures.has(there)) return; // it is being decoded
    if (there === this.shown && film === this.film) return;
    Object.assign(this, { shown: there, film });
    this.root.dataset.swapped = film !== this;
    this.find("name strong").textContent = film.title;
    this.paper.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (there < 0) return;
    this.paper.drawImage(film.frames.pictures.get(there), 0, 0, this.canvas.width, this.canvas.height);
    this.root.dataset.preview = film.frames.hasPreview(there);
  }

  get over() {
    return this.root.dataset.phase !== "making";
  }

  setFact(name, text) {
    const place = this.find("fact-" + name);
    if (place.textContent !== text) place.textContent = text;
  }
}
