// Long films: played while they are made, from what is final on; directed by new prompts; without an end if asked for.
// Shares the scope of player.js. A film is long if it has more than one slab of its plan.

const REFILL_SECONDS = 1; // what has to be there before a film that ran dry plays on
const KEEP_SECONDS = 60; // of an endless film, behind the picture on the screen
const TELL_MS = 400; // how often the server hears what has been seen of an endless film, so that it goes on
const marks = find("marks"), scene = find("scene");
const long = { dry: true, told: -1, next: 0, scenes: [] };

const minutes = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const isEndless = () => film.frames === Infinity;
const firstFrame = () => panes[0]?.frames?.first ?? 0;

function beginLong(clip) {
  Object.assign(long, { dry: true, told: -1, next: 0 });
  long.scenes = [{ first: 0, prompt: clip.prompt }];
  marks.replaceChildren();
  scene.textContent = "";
  element.querySelector(".va-player").classList.toggle("va-long", film.long);
  direct(film.long);
}

// While a long film is made its prompt can be switched.
function direct(on) {
  document.documentElement.classList.toggle("va-directing", on);
}

// How far a long film can be played now: to the last final picture, but before there is any, to what is painted.
function edge() {
  const { exact } = panes[0];
  return film.long && !film.over && exact ? exact - 1 : lastFrame();
}

function playLong(steps) {
  const last = edge();
  if (long.dry && (film.over || last - clock.frame >= REFILL_SECONDS * film.fps)) long.dry = false;
  if (long.dry) return;
  if (clock.frame + steps <= last) clock.frame += steps;
  else if (!film.over) Object.assign(clock, { frame: Math.max(clock.frame, last) }), (long.dry = true);
  else if (clock.loop) clock.frame = firstFrame();
  else Object.assign(clock, { frame: last }), setPlaying(false);
}

function switched({ first, prompt }) {
  long.scenes.push({ first, prompt });
  const mark = document.createElement("i");
  mark.title = `${minutes(first / film.fps)} ${prompt}`;
  mark.dataset.first = first;
  marks.append(mark);
  say(`From ${minutes(first / film.fps)} on: ${prompt}`);
  drawTrack();
}

// The track shows what is kept: all of a film with an end, the last minute of one without.
function drawTrack() {
  const from = firstFrame(), last = lastFrame();
  const to = isEndless() ? Math.max(last, from + 10 * film.fps) : film.frames - 1;
  const share = (frame) => `${((100 * Math.max(0, frame - from)) / (to - from)).toFixed(2)}%`;
  scrub.min = from;
  scrub.max = to;
  strip.style.setProperty("--exact", share(panes[0].exact));
  strip.style.setProperty("--painted", share(last + 1));
  for (const mark of [...marks.children]) {
    if (mark.dataset.first < from) mark.remove();
    else mark.style.left = share(mark.dataset.first);
  }
}

function showLong() {
  const now = long.scenes.findLast(({ first }) => first <= clock.frame) ?? long.scenes[0];
  const text = long.scenes.length > 1 ? now.prompt : "";
  if (scene.textContent !== text) scene.textContent = text;
  if (isEndless()) panes[0].frames.forget(clock.frame - KEEP_SECONDS * film.fps);
  else panes[0].frames.forget(0);
  drawTrack();
  tell();
}

function tell() {
  const now = performance.now();
  if (!isEndless() || film.over || clock.frame === long.told || now < long.next) return;
  Object.assign(long, { told: clock.frame, next: now + TELL_MS });
  const url = `gradio_api/units/${encodeURIComponent(film.job)}/seen?frame=${clock.frame}`;
  fetch(new URL(url, document.baseURI), { method: "POST", keepalive: true }).catch(() => {});
}

// One of several films is liked: its seed goes into the form, for a longer film or for other units.
function takeSeed(seed) {
  const box = document.querySelector("#va-seed input"), drawn = document.querySelector("#va-drawn input");
  if (drawn.checked) drawn.click();
  write(box, seed);
  document.dispatchEvent(new CustomEvent("videoar:alone"));
  say(`Seed ${seed} is in the form.`);
}

// Ctrl-Enter in the prompt starts a film, or switches the prompt of the one that is being made.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !event.target.closest?.("#va-prompt")) return;
  event.preventDefault();
  const directing = document.documentElement.classList.contains("va-directing");
  press(directing ? "va-switch" : film.mode === "compare" ? "va-race" : "va-go");
});
