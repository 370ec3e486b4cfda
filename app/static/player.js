// The player: any number of panes on one clock, with scrubbing, stepping, speed, loop and keyboard.
// Runs inside Gradio's HTML component, which provides `element`, `props` and `watch`.

const WAIT_AT_EDGE = 900; // milliseconds at the last frame made so far before the film starts over
const MOST_PANES = 5;

const find = (name) => element.querySelector(".va-" + name);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const scrub = find("scrub"), strip = find("strip"), playButton = find("play"), loopButton = find("loop");
const speed = find("speed"), time = find("time"), status = find("status");
const panes = [];
const film = { job: null, frames: 0, fps: 8, over: true, unfollow: null, rehearsal: 0 };
const clock = { frame: 0, playing: false, loop: true, part: 0, waited: 0, last: 0, ticking: false };

function makePanes(count) {
  while (panes.length < Math.min(count, MOST_PANES)) panes.push(new Pane(find("pane-template")));
  panes.length = Math.min(count, MOST_PANES);
  find("panes").replaceChildren(...panes.map((pane) => pane.root));
  find("panes").dataset.count = panes.length;
}

function rest(choice) {
  if (film.job) return;
  panes[0].rest(choice);
  clearTimeout(film.rehearsal);
  if (calm.matches) panes[0].idle.markAll("done");
  else rehearse(0);
}

// Before the first film the picture of the plan fills up, unit after unit, and starts over.
function rehearse(made) {
  if (film.job) return;
  const { idle } = panes[0];
  idle.progress(made);
  film.rehearsal = setTimeout(rehearse, Math.max(160, 1900 / idle.total), (made + 1) % (idle.total + 3));
}

// ---- the film's messages

async function receive(job, head, body) {
  const pane = panes[head.pane];
  if (head.kind === "clip") begin(head.panes);
  else if (head.kind === "unit") pane.startUnit(head);
  else if (head.kind === "step") pane.step(head);
  else if (head.kind === "done") pane.finishUnit(head);
  else if (head.kind === "end") finish(head);
  else if (head.kind === "paint") {
    await pane.paint(head, body);
    if (job !== film.job) return;
    head.sizes.forEach((_, offset) => markStrip(head.first + offset));
    if (!calm.matches || clock.playing) wake();
    else seek(head.first);
  }
}

function begin(clips) {
  makePanes(clips.length);
  clips.forEach((clip, index) => panes[index].begin(clip));
  film.frames = Math.max(...clips.map((clip) => clip.frames));
  film.fps = clips[0].fps;
  film.over = false;
  strip.replaceChildren(...Array.from({ length: film.frames }, () => document.createElement("i")));
  scrub.max = film.frames - 1;
  scrub.disabled = false;
  Object.assign(clock, { frame: 0, part: 0, waited: 0 });
  setPlaying(!calm.matches);
  say(`Making ${panes[0].total} ${panes[0].total === 1 ? "unit" : "units"}.`);
}

function finish(head) {
  const pane = panes[head.pane];
  pane.end(head);
  film.over = panes.every((each) => each.over);
  if (head.status === "done") say(`Done: ${pane.total === 1 ? "1 unit" : `${pane.total} units`} in ${head.seconds.toFixed(1)} seconds.`);
  else if (head.status === "failed") say(head.message);
  else if (pane.made) say(`Stopped after ${pane.made} of ${pane.total} units. What was made stays here.`);
  else say("Stopped.");
  wake();
}

function follow(job) {
  film.unfollow?.();
  film.job = job;
  film.unfollow = followJob(job, (head, body) => receive(job, head, body), say);
  const box = element.getBoundingClientRect();
  if (box.top > innerHeight * 0.7) element.scrollIntoView({ block: "start", behavior: calm.matches ? "auto" : "smooth" });
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
  const passed = Math.min(200, now - clock.last);
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
    if (clock.frame + steps <= last) {
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
  panes.forEach((pane) => pane.show(clock.frame));
  if (Number(scrub.value) !== clock.frame) scrub.value = clock.frame;
  const text = `${clock.frame + 1} / ${film.frames}`;
  if (time.textContent !== text) {
    time.textContent = text;
    scrub.setAttribute("aria-valuetext", `frame ${clock.frame + 1} of ${film.frames}`);
  }
}

function markStrip(frame) {
  const rank = ["none", "part", "preview", "exact"];
  const states = panes.map((pane) => rank.indexOf(pane.frames.state(frame)));
  if (strip.children[frame]) strip.children[frame].dataset.state = rank[Math.min(...states)];
}

function say(text) {
  status.textContent = text;
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
  if (!clock.playing && clock.frame >= film.frames - 1) clock.frame = 0;
  setPlaying(!clock.playing);
}

function seek(frame) {
  if (!film.frames) return;
  setPlaying(false);
  clock.frame = Math.max(0, Math.min(film.frames - 1, frame));
  show();
}

const KEYS = {
  " ": togglePlaying,
  ArrowLeft: () => seek(clock.frame - 1),
  ArrowRight: () => seek(clock.frame + 1),
  Home: () => seek(0),
  End: () => seek(film.frames - 1),
};

element.addEventListener("keydown", (event) => {
  const { target, key } = event;
  const own = target.tagName === "SELECT" || (target.tagName === "BUTTON" && key === " ");
  if (own || !KEYS[key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  KEYS[key]();
});
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
rest(props.plans[0]);
document.addEventListener("videoar:plan", (event) => rest(event.detail));
watch("value", () => {
  const value = props.value;
  if (!value || !value.job || value.job === film.job) return;
  say("Waiting for the model.");
  follow(value.job);
});
