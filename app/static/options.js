// What else a film has: its length, and, folded away, storyboard, context and several films. The value holds only what
// was chosen. Also says how long one will wait. Runs inside Gradio's HTML component, with `element`, `props`, `watch`.

const POLL_MS = 5000;
const get = (selector) => element.querySelector(selector);
const group = "va-length-" + Math.random().toString(36).slice(2);
const lengths = [...element.querySelectorAll(".va-lengths [type=radio]")];
const seconds = get(".va-seconds"), story = get("textarea"), context = get("[type=range]"), sink = get(".va-sink");
const count = get("select"), wait = get(".va-wait");
let touched = false, state = null, last = "{}"; // as JSON, what was chosen here

function gather() {
  touched = true;
  const length = lengths.find((input) => input.checked).value;
  const chosen = {};
  if (length === "seconds") chosen.seconds = seconds.value === "" ? 0 : Number(seconds.value);
  if (length === "endless") chosen.endless = true;
  if (story.value.trim()) chosen.storyboard = story.value;
  if (state?.model && Number(context.value) !== state.model.window) chosen.window = Number(context.value);
  if (sink.value !== "") chosen.sink = Number(sink.value);
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
function apply(asked) {
  const clip = state?.model && Math.round(asked.seconds * state.model.fps) === state.model.frames;
  choose(asked.endless ? "endless" : asked.seconds && !clip ? "seconds" : "clip");
  if (asked.seconds) seconds.value = asked.seconds;
  story.value = asked.storyboard ?? "";
  if (asked.window && state?.model) context.value = asked.window;
  sink.value = asked.sink ?? "";
  count.value = asked.films ?? 1;
  get("details").open = Boolean(asked.storyboard || asked.window || asked.sink || asked.films > 1);
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
for (const input of [story, context, sink, count]) input.oninput = gather;
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
    if (!before && state.model) {
      context.max = context.value = state.model.window;
      context.disabled = false;
      sink.placeholder = state.model.sink;
      if (linked.window) apply(linked);
    }
    show();
  } catch {
    // The next look may find the server again.
  }
}

// ---- links

const said = new URLSearchParams(location.search);
const names = ["seconds", "endless", "storyboard", "sink", "films"];
const linked = Object.fromEntries(names.filter((name) => said.has(name)).map((name) => [name, said.get(name)]));
const own = said.getAll("units").length === 1 && / window:(\d+)/.exec(said.get("units"));
if (own) linked.window = Number(own[1]);

// Takes what a link says for the empty value, which Gradio may set again while it builds the page.
function settle() {
  if (!touched && Object.keys(linked).length) apply(linked);
}
settle();
watch("value", () => {
  const asked = props.value ?? {};
  if (Object.keys(asked).length === 0) settle();
  else if (JSON.stringify(asked) !== last) apply(asked); // from a file or an earlier run
});
document.addEventListener("videoar:alone", () => {
  count.value = 1;
  gather();
});
document.addEventListener("visibilitychange", look);
look();
setInterval(look, POLL_MS);
