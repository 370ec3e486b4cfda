// What else a film has: its length, and, folded away, storyboard, context, guidance and several films. The value holds only what
// was chosen. Also says how long one will wait. Runs inside Gradio's HTML component, with `element`, `props`, `watch`.

const POLL_MS = 5000;
const get = (selector) => element.querySelector(selector);
const group = "va-length-" + Math.random().toString(36).slice(2);
const lengths = [...element.querySelectorAll(".va-lengths [type=radio]")];
const seconds = get(".va-seconds"), story = get("textarea"), context = get("[type=range]"), sink = get(".va-sink");
const guidance = get("#va-guidance"), count = get("select"), wait = get(".va-wait");
let state = null, last = "{}"; // as JSON, what was chosen here
let asked = null; // the context that a link or a file asks for, until the model says what its own is

function gather() {
  const length = lengths.find((input) => input.checked).value;
  const chosen = {};
  if (length === "seconds") chosen.seconds = seconds.value === "" ? 0 : Number(seconds.value);
  if (length === "endless") chosen.endless = true;
  if (story.value.trim()) chosen.storyboard = story.value;
  const frames = state?.model ? Number(context.value) : asked;
  if (frames && frames !== state?.model?.window) chosen.window = frames;
  if (sink.value !== "") chosen.sink = Number(sink.value);
  if (guidance.value !== "") chosen.guidance = Number(guidance.value);
  if (count.value !== "1") chosen.films = Number(count.value);
  last = JSON.stringify(chosen);
  props.value = chosen;
  document.dispatchEvent(new CustomEvent("videoar:more", { detail: chosen }));
  show();
}

function show() {
  const frames = Number(context.value);
  if (state?.model) get("output").textContent = `${frames} latent frames, ${((4 * frames) / state.model.fps).toFixed(1)} s`;
  wait.textContent = estimate();
}

function choose(length) {
  for (const input of lengths) input.checked = input.value === length;
}

// What a link or a file asks for: an object as `props.value`. Numbers may be text.
function apply(said) {
  choose(said.endless ? "endless" : said.seconds ? "seconds" : "clip");
  if (said.seconds) seconds.value = Math.floor(100 * said.seconds) / 100; // rounded up it might be a few frames more
  story.value = said.storyboard ?? "";
  asked = Number(said.window) || null;
  sink.value = said.sink ?? "";
  guidance.value = said.guidance ?? "";
  count.value = said.films ?? 1;
  compareToModel();
  get("details").open = ["storyboard", "window", "sink", "guidance", "films"].some((name) => name in props.value);
}

// Once the model is known, what is its own need not be asked for; a context may be beyond what the knob has.
function compareToModel() {
  const { model } = state ?? {};
  if (model) {
    const frames = asked ?? model.window;
    Object.assign(context, { min: Math.min(2, frames), max: Math.max(model.window, frames), value: frames, disabled: false });
    asked = null;
    if (Math.round(seconds.value * model.fps) === model.frames && lengths[1].checked) {
      choose("clip");
      seconds.value = seconds.defaultValue;
    }
    if (sink.value === String(model.sink)) sink.value = "";
    if (guidance.value === String(model.guidance)) guidance.value = "";
    sink.placeholder = model.sink;
    guidance.placeholder = model.guidance;
  }
  gather();
}

for (const input of lengths) {
  input.name = group;
  input.onchange = gather;
}
seconds.max = props.most_seconds;
seconds.oninput = () => {
  choose("seconds");
  gather();
};
for (const input of [story, context, sink, guidance, count]) input.oninput = gather;
get("[type=file]").onchange = async ({ target }) => {
  if (target.files.length) story.value = await target.files[0].text();
  target.value = ""; // so that the same file can be loaded again
  gather();
};

// ---- how long it will take

const about = (s) => (s < 90 ? `${Math.max(1, Math.round(s))} s` : `${Math.round(s / 60)} minutes`);

function estimate() {
  if (!state) return "";
  const { model, waiting, making, slots, typical, rate } = state;
  if (!model) return "The model is still loading.";
  const said = [];
  const turns = waiting || making >= slots ? Math.ceil((waiting + 1) / slots) : 0;
  if (turns) said.push(`${waiting ? `${waiting} waiting` : "All places are taken"}: your turn in about ${about(turns * typical)}.`);
  const { seconds, endless, storyboard, films = 1 } = props.value ?? {};
  const steps = Number(document.querySelector("#va-steps input[type=number]")?.value) || model.steps;
  const frames = seconds ? seconds * model.fps : model.frames;
  if (rate && !endless && !storyboard) said.push(`Takes about ${about(rate * frames * films * (steps + 1))}.`);
  return said.join(" ");
}

async function look() {
  if (document.hidden) return;
  try {
    const before = state?.model;
    state = await (await fetch(new URL("gradio_api/state", document.baseURI))).json();
    if (!before && state.model) compareToModel();
    show();
  } catch {
    // The next look may find the server again.
  }
}

// ---- links

const said = new URLSearchParams(location.search);
const names = ["seconds", "storyboard", "sink", "films"];
const linked = Object.fromEntries(names.filter((name) => said.has(name)).map((name) => [name, said.get(name)]));
if (said.get("endless") === "1") linked.endless = true;
for (const name of said.getAll("units").length === 1 ? ["window", "guidance"] : []) {
  const own = new RegExp(` ${name}:([\\d.]+)`).exec(said.get("units"));
  if (own) linked[name] = own[1];
}
if (Object.keys(linked).length) apply(linked);
watch("value", () => {
  const value = props.value ?? {};
  // An empty one is that of the beginning, which Gradio may set again while it builds the page.
  if (Object.keys(value).length === 0) last !== "{}" && (props.value = JSON.parse(last));
  else if (JSON.stringify(value) !== last) apply(value); // from a file or an earlier run
});
document.addEventListener("videoar:alone", () => {
  count.value = 1;
  gather();
});
document.addEventListener("visibilitychange", look);
look();
setInterval(look, POLL_MS);
