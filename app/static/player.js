// The player: any number of panes on one clock, with scrubbing, stepping, speed, loop and keyboard.
// Runs inside Gradio's HTML component, which provides `element`, `props` and `watch`.

const WAIT_AT_EDGE = 900; // milliseconds at the last frame made so far before the film starts over
const MOST_PANES = 5;
const MOST_WAITING = 32; // messages whose pictures are being decoded
const READ_MS = 2500; // for a sentence that goes away by itself
const ZOOMS = [1, 2, 4];

const find = (name) => element.querySelector(".va-" + name);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const scrub = find("scrub"), strip = find("strip"), playButton = find("play"), loopButton = find("loop");
const speed = find("speed"), time = find("time"), status = find("status");
const panes = [];
const archive = new Archive();
const film = { job: null, asked: null, showing: null, replayed: "", frames: 0, fps: 8, over: true, unfollow: null, rehearsal: 0, clips: [], summary: null };
Object.assign(film, { mode: "film", choice: props.plans[0], contenders: [], more: {}, panes: [], run: null });
const view = { swapped: false, zoom: 1, x: 50, y: 50 };
const clock = { frame: 0, playing: false, loop: true, part: 0, waited: 0, last: 0, ticking: false };

function makePanes(count) {
  while (panes.length < Math.min(count, MOST_PANES)) panes.push(new Pane(find("pane-template")));
  panes.length = Math.min(count, MOST_PANES);
  find("panes").replaceChildren(...panes.map((pane) => pane.root));
  for (const name of ["deck", "panes"]) find(name).dataset.count = panes.length;
  document.documentElement.classList.toggle("va-several", panes.length > 1);
}

// Before the first film: what is chosen, one film or several.
function rest() {
  if (film.job) return;
  const chosen = film.mode === "compare" ? film.contenders : [film.choice];
  if (!chosen.length) return;
  makePanes(chosen.length);
  chosen.forEach((choice, index) => panes[index].rest(choice));
  clearTimeout(film.rehearsal);
  if (calm.matches) panes.forEach((pane) => pane.idle?.markAll("done"));
  else rehearse(0);
}

// The picture of a plan fills up, unit after unit, and starts over.
function rehearse(made) {
  if (film.job) return;
  const longest = Math.max(...panes.map((pane) => pane.idle?.total ?? 0));
  panes.forEach((pane) => pane.idle?.progress(Math.floor((made * pane.idle.total) / longest)));
  film.rehearsal = setTimeout(rehearse, Math.max(160, 1900 / longest), (made + 1) % (longest + 3));
}

// ---- the film's messages

// pictures: the bitmaps of a `paint` message, none of those that are packed
function receive(head, body, pictures) {
  const pane = film.panes[head.pane];
  if (pane && head.clock !== undefined && head.kind !== "clip") pane.tick(head.clock);
  if (head.kind === "clip") begin(head.panes);
  else if (head.kind === "unit") pane.startUnit(head);
  else if (head.kind === "step") pane.step(head);
  else if (head.kind === "switch") switched(head);
  else if (head.kind === "done") pane.finishUnit(head);
  else if (head.kind === "end") endOne(head);
  else if (head.kind === "over") conclude(head);
  else if (head.kind === "paint") {
    const early = !pane.exact;
    pane.paint(head, body, pictures);
    if (film.long && early && pane.exact) clock.frame = 0; // from here on it plays as a film, not as a preview
    const [from, to] = [head.first, head.first + head.sizes.length].map((frame) => Math.ceil(frame / pane.rate));
    for (let frame = from; !film.long && frame < to; frame++) markStrip(frame);
    if (!calm.matches || clock.playing) wake();
    else if (film.long) show();
    else seek(head.first);
  }
}

// Whether the films are one, made with several seeds.
const isBatch = (clips) => new Set(clips.map((clip) => clip.seed)).size > 1;

function begin(clips) {
  makePanes(clips.length);
  unveil();
  const timeline = new Timeline(find("lanes"), find("longest"), clips);
  clips.forEach((clip, index) => panes[index].begin(clip, timeline.lanes[index], clips[0].fps));
  film.panes = [...panes]; // as the messages number them; on the screen a blind test has them in another order
  if (blind.wanted && film.run && clips.length > 1 && !isBatch(clips)) veil();
  film.clips = clips;
  if (film.replayed) cue.children[1].textContent = clips[0].prompt;
  film.frames = Math.max(...panes.map(({ clip, rate }) => Math.ceil((clip.frames ?? Infinity) / rate)));
  film.long = clips.length === 1 && panes[0].total !== panes[0].slab;
  if (film.long && film.run) archive.forget(film.run); // it may grow without an end
  film.fps = clips[0].fps;
  film.batch = isBatch(clips);
  film.over = false;
  find("timeline").hidden = false;
  find("verdict").hidden = true;
  strip.replaceChildren(...Array.from({ length: film.long ? 0 : film.frames }, () => document.createElement("i")));
  scrub.min = 0;
  scrub.max = film.long ? 0 : film.frames - 1;
  scrub.disabled = false;
  Object.assign(clock, { frame: 0, part: 0, waited: 0 });
  beginLong(clips[0]);
  setPlaying(!calm.matches);
  if (blind.veiled) say(`Making ${clips.length} films. They are shown when all are done.`);
  else if (isEndless()) say("Making a film without an end. Stop keeps it.");
  else if (panes[0].total === null) say("Making the film.");
  else if (film.batch) say(`Making ${clips.length} films, one after another.`);
  else if (clips.length > 1) say(`Making ${clips.length} films side by side.`);
  else say(`Making ${panes[0].total} ${panes[0].total === 1 ? "unit" : "units"}.`);
}

function endOne(head) {
  const pane = film.panes[head.pane];
  pane.end(head);
  film.over = panes.every((each) => each.over);
  if (head.status === "done" && panes.length === 1) {
    const units = pane.total ?? pane.made;
    say(`Done: ${units === 1 ? "1 unit" : `${units} units`} in ${head.seconds.toFixed(1)} seconds.`);
  }
  wake();
}

function conclude({ status: how, message, summary }) {
  panes.forEach((pane) => pane.end({ status: "stopped" }));
  film.over = true;
  film.summary = summary;
  direct(false);
  const units = new URL(`gradio_api/units/${encodeURIComponent(film.job)}/`, document.baseURI);
  if (film.batch) {
    film.panes.forEach((pane, i) => summary.contenders[i]?.status === "done" && pane.offer(`${units}film-${i + 1}.mp4`, takeSeed));
  }
  if (summary.contenders.length) {
    // The server's are complete: they say, for one, what prompts a film was given on the way.
    film.clips.forEach((clip, i) => (clip.settings = summary.contenders[i].settings));
    fillVerdict(find("verdict table"), summary);
    find("link").href = linkTo(settingsShown());
    const names = { save: "run.videoar", "save-mp4": "film.mp4", "save-gif": "film.gif" };
    for (const [name, file] of Object.entries(names)) {
      find(name).href = units + file;
      find(name).hidden = isEndless(); // its making is not kept
    }
    find("verdict").hidden = blind.veiled;
  }
  if (film.run && how !== "failed" && !blind.veiled) remember(film.run);
  const made = summary.contenders.reduce((sum, contender) => sum + contender.units_made, 0);
  const total = summary.contenders.reduce((sum, contender) => sum + contender.units_total, 0);
  const stopped = made ? `Stopped after ${made}${total ? ` of ${total}` : ""} units. What was made stays here.` : "Stopped.";
  if (how === "failed") fail(message);
  else if (how === "stopped") say(message ?? stopped);
  else if (film.batch) say("Done. Take the seed of the one you like.");
  else if (panes.length > 1 && !blind.veiled) say(verdictSentence(summary));
  if (blind.veiled) openBallot(film.run);
  wake();
}

// Shows a run, wherever its messages come from: source(onMessage, onLost) returns what ends it.
function watchRun(job, source, replayed = "") {
  film.unfollow?.();
  const showing = {};
  Object.assign(film, { job, showing, replayed, run: null, panes: [] });
  find("replayed").hidden = !replayed;
  // Messages take effect in their order, but their pictures are decoded as soon as they arrive.
  let handled = Promise.resolve(), waiting = 0;
  const onMessage = (head, body) => {
    const decode = head.kind === "paint" && !film.panes[head.pane]?.packs(head);
    const pictures = decode ? decodePictures(head, body) : [];
    const handle = async () => {
      const bitmaps = await pictures;
      if (showing === film.showing) receive(head, body, bitmaps);
      else bitmaps.forEach((bitmap) => bitmap.close()); // another film has begun
    };
    waiting++;
    handled = handled.then(handle).catch(reportError).then(() => void waiting--);
    return waiting < MOST_WAITING ? null : handled;
  };
  film.unfollow = source(onMessage, fail);
}

function follow(job) {
  const run = archive.begin(job);
  const keep = (onMessage) => (head, body) => {
    archive.add(run, head, body);
    return onMessage(head, body);
  };
  watchRun(job, (onMessage, onLost) => followJob(job, keep(onMessage), onLost));
  film.run = run; // one that is not over yet, and to be remembered when it is
  const box = element.getBoundingClientRect();
  if (box.top > innerHeight * 0.7) element.scrollIntoView({ block: "start", behavior: calm.matches ? "auto" : "smooth" });
}

// Shows a run once more with its true timing; nobody is asked for anything.
function again(run) {
  if (!run) return say("There is no finished run yet that could be shown again.");
  watchRun(run.job, (onMessage) => replayRun(run.messages, onMessage), `Replay of ${timeOf(run)}`);
}

function endReplay() {
  film.unfollow();
  panes.forEach((pane) => pane.end({ status: "stopped" }));
  film.over = true;
  say("Stopped.");
}

// Of a replay in the page the server, whose button this is, knows nothing.
const stops = (event) => {
  if (!film.replayed || film.over || !event.target.closest?.("#va-stop, #va-stop-all")) return;
  event.stopPropagation();
  endReplay();
};
document.addEventListener("click", stops, true);

// On stage a failure is followed by the last good run, for all to see that it is one.
function fail(message) {
  const good = podium.on && archive.lastGood(), { showing } = film;
  film.over = true;
  say(good ? `${message} The last good run is shown again.` : message);
  if (good) setTimeout(() => film.showing === showing && again(good), READ_MS);
}

// ---- the clock

const lastFrame = () => Math.max(-1, ...panes.map((pane) => pane.frames?.last ?? -1));

function wake() {
  if (clock.ticking) return;
  clock.ticking = true;
  clock.last = performance.now();
  requestAnimationFrame(tick);
}

function tick(now) {
  const passed = Math.max(0, Math.min(200, now - clock.last)); // a frame may have begun before it was asked for
  clock.last = now;
  playOn(passed);
  clock.ticking = clock.playing && lastFrame() >= 0;
  if (clock.ticking) requestAnimationFrame(tick);
}

function playOn(passed) {
  const last = lastFrame();
  if (last < 0) return;
  if (clock.playing) {
    clock.part += (passed * film.fps * Number(speed.value)) / 1000;
    const steps = Math.floor(clock.part);
    clock.part -= steps;
    if (film.long && (film.over || panes[0].exact)) playLong(steps);
    else if (clock.frame + steps <= last) {
      clock.frame += steps;
      clock.waited = 0;
    } else {
      clock.frame = Math.max(clock.frame, last);
      clock.waited += passed;
      const whole = last === film.frames - 1;
      if (whole && film.over && !clock.loop) setPlaying(false);
      else if (whole || film.over || clock.waited > WAIT_AT_EDGE) Object.assign(clock, { frame: 0, waited: 0 });
    }
  }
  show();
}

// ---- what is on the screen

function show() {
  panes.forEach((pane, index) => pane.show(clock.frame, panes[(index + view.swapped) % panes.length]));
  if (film.long) showLong();
  if (Number(scrub.value) !== clock.frame) scrub.value = clock.frame;
  const at = minutes(clock.frame / film.fps);
  const text = film.long
    ? `${at} / ${!isEndless() ? minutes(film.frames / film.fps) : film.over ? minutes(lastFrame() / film.fps) : "endless"}`
    : `${clock.frame + 1} / ${film.frames}`;
  if (time.textContent !== text) {
    time.textContent = text;
    scrub.setAttribute("aria-valuetext", film.long ? at : `frame ${clock.frame + 1} of ${film.frames}`);
  }
}

function markStrip(frame) {
  const rank = ["none", "part", "preview", "exact"];
  const states = panes.map((pane) => rank.indexOf(pane.frames.state(Math.min(pane.own(frame), pane.frames.count - 1))));
  if (strip.children[frame]) strip.children[frame].dataset.state = rank[Math.min(...states)];
}

function say(text) {
  status.textContent = film.replayed ? `${film.replayed}. ${text}` : text;
}

// Every place shows the film of the next one, for as long as a key or button is held.
function swap(swapped) {
  if (view.swapped === swapped || panes.length < 2) return;
  view.swapped = swapped;
  if (film.frames) show();
}

// Magnifies the same spot of every film: x and y in percent.
function magnify(zoom, x = view.x, y = view.y) {
  const within = (value) => Math.max(0, Math.min(100, value));
  Object.assign(view, { zoom, x: within(x), y: within(y) });
  const style = find("panes").style;
  style.setProperty("--zoom", zoom);
  style.setProperty("--spot", `${view.x.toFixed(1)}% ${view.y.toFixed(1)}%`);
  find("zoom").textContent = zoom === 1 ? "1:1" : `${zoom}×`;
  find("zoom").dataset.zoom = zoom;
  find("zoom").setAttribute("aria-label", `${find("zoom").textContent}, magnify`);
}

// ---- controls

function setPlaying(playing) {
  clock.playing = playing;
  clock.part = 0;
  playButton.dataset.playing = playing;
  playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
  if (playing) wake();
}

function togglePlaying() {
  if (!film.job) return;
  if (!clock.playing && film.over && clock.frame >= lastFrame()) clock.frame = firstFrame();
  setPlaying(!clock.playing);
}

function seek(frame) {
  if (!film.frames) return;
  setPlaying(false);
  clock.frame = Math.max(firstFrame(), Math.min(film.long ? lastFrame() : film.frames - 1, frame));
  show();
}

const KEYS = {
  " ": togglePlaying,
  ArrowLeft: () => seek(clock.frame - 1),
  ArrowRight: () => seek(clock.frame + 1),
  Home: () => seek(0),
  End: () => seek(film.long ? edge() : film.frames - 1),
  f: () => swap(true),
  z: () => magnify(ZOOMS[(ZOOMS.indexOf(view.zoom) + 1) % ZOOMS.length]),
  p: () => present(true),
  r: () => again(archive.lastGood()),
  c: shareLink,
};
const SPOTS = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] };

element.addEventListener("keydown", (event) => {
  const { target } = event, key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const own = target.tagName === "SELECT" || target.type === "text" || (target.tagName === "BUTTON" && key === " ");
  if (own || event.ctrlKey || event.metaKey || event.altKey) return;
  const spot = event.shiftKey && SPOTS[key];
  const action = spot ? () => magnify(view.zoom, view.x + spot[0], view.y + spot[1]) : podium.keys()[key] ?? KEYS[key];
  if (!action) return;
  event.preventDefault();
  action();
});
element.addEventListener("keyup", (event) => event.key.toLowerCase() === "f" && swap(false));
element.addEventListener("focusout", (event) => element.contains(event.relatedTarget) || swap(false));
find("panes").addEventListener("pointermove", (event) => {
  const screen = event.target.closest(".va-screen");
  if (!screen || view.zoom === 1) return;
  const box = screen.getBoundingClientRect();
  magnify(view.zoom, (100 * (event.clientX - box.left)) / box.width, (100 * (event.clientY - box.top)) / box.height);
});
find("zoom").onclick = KEYS.z;
find("flip").onpointerdown = () => swap(true);
for (const name of ["pointerup", "pointerleave", "pointercancel"]) find("flip").addEventListener(name, () => swap(false));
find("flip").onkeydown = (event) => void ([" ", "Enter"].includes(event.key) && swap(true)); // false would keep Tab here
find("flip").onkeyup = () => swap(false);
find("present").onclick = () => present(true);
find("share").onclick = shareLink;
find("json").onclick = () => download("videoar-timings.json", JSON.stringify(film.summary, null, 2));
find("copy-link").onclick = async () => {
  const link = find("link").href;
  try {
    await navigator.clipboard.writeText(link);
    say("The link is on the clipboard.");
  } catch {
    say(link);
  }
};
playButton.onclick = togglePlaying;
find("back").onclick = () => seek(clock.frame - 1);
find("forward").onclick = () => seek(clock.frame + 1);
find("panes").onclick = (event) => event.target.closest(".va-screen") && togglePlaying();
scrub.oninput = () => seek(Number(scrub.value));
loopButton.onclick = () => {
  clock.loop = !clock.loop;
  loopButton.setAttribute("aria-pressed", clock.loop);
};

// ---- what the page says

makePanes(1);
rest();
for (const [name, field] of [["plan", "choice"], ["contenders", "contenders"], ["more", "more"], ["mode", "mode"]]) {
  document.addEventListener("videoar:" + name, (event) => {
    film[field] = event.detail;
    rest();
  });
}
watch("value", () => {
  const value = props.value;
  if (!value || !value.job || value.job === film.asked) return;
  film.asked = value.job;
  follow(value.job);
  say("Waiting for the model.");
});
