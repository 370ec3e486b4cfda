// One film on the page: its screen, its facts, the picture of its plan and its timeline.

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
    const units = picture.units.length;
    this.root.dataset.phase = "idle";
    this.idle = new BlockPicture(this.find("idle svg"), picture);
    this.find("idle strong").textContent = `${title}: ${units} ${units === 1 ? "unit" : "units"}`;
    this.find("idle span").textContent = sentence;
  }

  // clip: a pane of the `clip` message
  begin(clip) {
    this.clip = clip;
    this.total = clip.plan.units.length;
    this.made = 0;
    this.tokens = clip.plan.units.map((unit) => unit.tokens);
    this.frames = new FrameStore(clip.width, clip.height, clip.frames);
    this.canvas.width = clip.width;
    this.canvas.height = clip.height;
    this.find("screen").style.aspectRatio = `${clip.width} / ${clip.height}`;
    this.canvas.setAttribute("aria-label", `Film: ${clip.prompt}`);
    this.block = new BlockPicture(this.find("plan svg"), clip.plan);
    this.block.progress(0);
    this.timeline = new Timeline(this.find("bars"), this.find("longest"), this.total);
    this.shown = -1;
    this.root.dataset.phase = "making";
    this.setFact("units", `0 of ${this.total}`);
    for (const name of ["speed", "first", "left"]) this.setFact(name, "–");
    this.setFact("seed", clip.seed);
  }

  startUnit({ unit, region: [x, y, w, h] }) {
    const flight = this.find("flight"), { width, height } = this.clip;
    flight.style.cssText = `left:${(100 * x) / width}%;top:${(100 * y) / height}%;width:${(100 * w) / width}%;height:${(100 * h) / height}%`;
    flight.style.setProperty("--unit", unitColour(unit, this.total));
    this.label = flight.firstElementChild;
    this.label.textContent = `unit ${unit + 1}`;
    this.block.mark(unit, "now");
  }

  step({ unit, step, steps }) {
    if (steps > 1) this.label.textContent = `unit ${unit + 1}, step ${step} of ${steps}`;
  }

  async paint({ first, at, preview, sizes }, body) {
    const frames = this.frames; // a new film may begin while these pictures are decoded
    let start = 0;
    const pictures = sizes.map((size) => {
      const blob = new Blob([body.subarray(start, start + size)], { type: "image/jpeg" });
      start += size;
      return createImageBitmap(blob);
    });
    (await Promise.all(pictures)).forEach((bitmap, offset) => {
      frames.paint(first + offset, bitmap, at, preview);
      bitmap.close();
    });
    this.shown = -1;
  }

  finishUnit({ unit, seconds, elapsed }) {
    this.made++;
    this.block.mark(unit, "done");
    this.timeline.add(unit, seconds);
    this.setFact("units", `${this.made} of ${this.total}`);
    this.setFact("speed", `${(this.made / elapsed).toFixed(elapsed > this.made ? 2 : 1)} / s`);
    if (this.made === 1) this.setFact("first", `${elapsed.toFixed(2)} s`);
    // Units differ in size (a fine scale is 64 times a coarse one), so the estimate goes by tokens.
    const sum = (list) => list.reduce((a, b) => a + b, 0);
    const left = (elapsed / sum(this.tokens.slice(0, this.made))) * sum(this.tokens.slice(this.made));
    this.setFact("left", this.made < this.total ? `about ${left.toFixed(left < 10 ? 1 : 0)} s` : "done");
  }

  end({ status, first_picture_seconds: first }) {
    if (!this.frames) return;
    this.root.dataset.phase = status;
    if (status !== "done") this.block.progress(this.made, "todo");
    if (first !== undefined) this.setFact("first", `${first.toFixed(2)} s`);
    if (status !== "done") this.setFact("left", status);
  }

  // Shows a frame, or the nearest earlier one that exists; true if the screen shows that very frame.
  show(frame) {
    if (!this.frames) return false;
    const there = this.frames.nearest(Math.min(frame, this.frames.count - 1));
    if (there < 0) return false;
    if (there !== this.shown) {
      this.paper.clearRect(0, 0, this.canvas.width, this.canvas.height);
      this.paper.drawImage(this.frames.pictures.get(there), 0, 0);
      this.root.dataset.preview = this.frames.hasPreview(there);
      this.shown = there;
    }
    return there === frame;
  }

  get over() {
    return this.root.dataset.phase !== "making";
  }

  setFact(name, text) {
    const place = this.find("fact-" + name);
    if (place.textContent !== text) place.textContent = text;
  }
}
