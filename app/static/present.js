// Presenter mode: the player on the whole screen, in large type, driven by the keyboard alone.
// Shares the scope of player.js. Prompts come from the page's examples and from whoever presents.

const PATIENCE_MS = 8000;
const podium = { on: false, chosen: 0, prompts: [...props.prompts] };
const cue = find("cue"), own = find("own");

// The form is Gradio's: the prompt goes into its text field, and the button of the open tab starts.
const promptField = () => document.querySelector("#va-prompt textarea");
// Past the framework's own setter, which would otherwise take the change for its own.
function write(field, text) {
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set.call(field, text);
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
const press = (name) => document.getElementById(name).click();

podium.keys = () => (podium.on ? PODIUM_KEYS : {});

function present(on) {
  if (podium.on === on) return;
  podium.on = on;
  element.querySelector(".va-player").classList.toggle("va-presenting", on);
  find("podium").hidden = !on;
  document.documentElement.classList.toggle("va-locked", on);
  if (on) {
    const written = promptField().value.trim();
    if (written && !podium.prompts.includes(written)) podium.prompts.unshift(written);
    choose(Math.max(0, podium.prompts.indexOf(written)));
    // Where the whole screen is not granted (a frame in another page), the whole window has to do.
    // All of the page, so that what Gradio has to say is seen.
    document.documentElement.requestFullscreen?.().catch(() => {});
    element.querySelector(".va-player").focus();
  } else {
    own.hidden = true;
    if (document.fullscreenElement) document.exitFullscreen();
    find("present").focus();
  }
}

function choose(index) {
  podium.chosen = (index + podium.prompts.length) % podium.prompts.length;
  cue.children[0].textContent = `${podium.chosen + 1} / ${podium.prompts.length}`;
  cue.children[1].textContent = podium.prompts[podium.chosen];
}

function writeOwn() {
  own.hidden = false;
  own.value = podium.prompts[podium.chosen];
  own.select();
  own.focus();
}

function start() {
  const { showing } = film;
  if (!film.over) return say("Press S to stop the films that are being made.");
  write(promptField(), podium.prompts[podium.chosen]);
  say("Waiting for the model.");
  setTimeout(() => press(film.mode === "compare" ? "va-race" : "va-go"), 50);
  // What Gradio says about a failing server is not on the whole screen.
  setTimeout(() => {
    if (podium.on && film.showing === showing && archive.lastGood()) say("No answer yet. Press R for the last good run.");
  }, PATIENCE_MS);
}

const PODIUM_KEYS = {
  ArrowUp: () => choose(podium.chosen - 1),
  ArrowDown: () => choose(podium.chosen + 1),
  PageUp: () => choose(podium.chosen - 1), // what a presenter's remote sends
  PageDown: () => choose(podium.chosen + 1),
  n: () => choose(podium.chosen + 1),
  Enter: start,
  e: writeOwn,
  s: () => press(film.mode === "compare" ? "va-stop-all" : "va-stop"),
  b: () => document.querySelector(".va-blind-test input").click(),
  0: () => vote(null),
  ...Object.fromEntries([1, 2, 3, 4, 5].map((number) => [number, () => number <= panes.length && vote(number - 1)])),
  m: () => element.querySelector(".va-player").classList.toggle("va-muted"),
  h: () => find("keys").classList.toggle("va-away"),
  q: () => present(false),
  Escape: () => present(false),
  p: () => present(false),
};

own.onkeydown = (event) => {
  event.stopPropagation();
  if (event.key !== "Enter" && event.key !== "Escape") return;
  event.preventDefault();
  const written = own.value.trim();
  own.hidden = true;
  element.querySelector(".va-player").focus();
  if (event.key === "Escape" || !written) return;
  podium.prompts.splice(podium.chosen, 0, written);
  choose(podium.chosen);
  start();
};
document.addEventListener("fullscreenchange", () => !document.fullscreenElement && present(false));
