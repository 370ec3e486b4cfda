// The contenders of a comparison: two to five rows of a plan, steps, context window, guidance and model.
// Runs inside Gradio's HTML component, which provides `element`, `props` and `watch`.

const MOST = 5, FEWEST = 2;
const PRESETS = {
  "Cubes and frames": [{ plan: "cube:2x2x2" }, { plan: "frame:1" }],
  "Unit types": ["cube:2x2x2", "frame:1", "key_detail:4", "scale:3", "full"].map((plan) => ({ plan })),
  "Cube sizes": ["cube:1x2x2", "cube:2x2x2", "cube:4x2x2", "cube:2x4x4"].map((plan) => ({ plan })),
  "Chunks": ["frame:1", "frame:2", "frame:4"].map((plan) => ({ plan })),
  "Steps": [2, 4, 8, 16].map((steps) => ({ plan: "cube:2x2x2", steps })),
  "Context": [2, 4, null].map((window) => ({ plan: "frame:1", window })),
  "All at once": [{ plan: "cube:2x2x2" }, { plan: "full", steps: 50 }],
};
if (offered.models.length > 1) PRESETS.Models = offered.models.slice(0, MOST).map((model) => ({ plan: "cube:2x2x2", model }));
const NUMBERS = ["steps", "window", "guidance"];
const rows = element.querySelector("ol"), template = element.querySelector("template");
const add = element.querySelector(".va-add");

// ---- plans, as the server draws them

const drawn = new Map(); // plan -> a promise of {name, picture} or {name, error}

function look(plan) {
  if (!drawn.has(plan)) drawn.set(plan, ask(plan));
  return drawn.get(plan);
}

async function ask(plan) {
  try {
    const url = new URL("gradio_api/plan?" + new URLSearchParams({ plan }), document.baseURI);
    const answer = await (await fetch(url)).json();
    return answer.error ? { name: plan, error: answer.error } : { name: answer.name, picture: answer };
  } catch {
    drawn.delete(plan); // to be asked again
    return { name: plan };
  }
}

const kindOf = (plan) => offered.kinds.find(({ kind }) => kind === plan.split(/[:@]/)[0]) ?? offered.kinds[0];

function numbersOf(plan) {
  const numbers = (plan.split("@")[0].split(":")[1] ?? "").split("x").filter(Boolean);
  return numbers.length ? numbers : kindOf(plan).usual;
}

const planOf = ({ kind }, numbers) => (numbers.length ? `${kind}:${numbers.join("x")}` : kind);

// ---- rows

function change(contenders) {
  touched = true;
  props.value = contenders;
  draw();
}

function row(contender, index) {
  const item = template.content.firstElementChild.cloneNode(true);
  const find = (name) => item.querySelector(".va-" + name), number = index + 1, kind = kindOf(contender.plan);
  const edit = (changes) => change(props.value.map((each, i) => (i === index ? { ...each, ...changes } : each)));
  const select = find("kind-of");
  select.append(...offered.kinds.map((each) => new Option(each.name, each.kind, false, each === kind)));
  select.setAttribute("aria-label", `Units of contender ${number}`);
  select.onchange = () => edit({ plan: planOf(...chosen(select.value)) });
  const sizes = numbersOf(contender.plan).map((value, place) => {
    const input = Object.assign(document.createElement("input"), { type: "number", min: 1, max: 128, value });
    input.title = kind.numbers[place];
    input.setAttribute("aria-label", `${kind.numbers[place]}, contender ${number}`);
    return input;
  });
  for (const input of sizes) input.onchange = () => edit({ plan: planOf(kind, sizes.map((each) => Number(each.value) || 1)) });
  find("sizes-of").append(...sizes.flatMap((input, place) => (place ? ["×", input] : [input])));
  for (const name of NUMBERS) {
    const input = find(`${name}-of`);
    input.value = contender[name] ?? "";
    input.setAttribute("aria-label", `${name} of contender ${number}`);
    input.onchange = () => edit({ [name]: input.value === "" ? null : Number(input.value) });
  }
  const model = find("model-of");
  model.hidden = offered.models.length < 2;
  model.append(...offered.models.map((name) => new Option(name, name, false, name === contender.model)));
  model.setAttribute("aria-label", `Model of contender ${number}`);
  model.onchange = () => edit({ model: model.value });
  const remove = find("remove");
  remove.setAttribute("aria-label", `Remove contender ${number}`);
  remove.disabled = props.value.length <= FEWEST;
  remove.onclick = () => change(props.value.filter((_, i) => i !== index));
  look(contender.plan).then(({ picture, error }) => {
    if (picture) new BlockPicture(item.querySelector("svg"), picture).markAll("done");
    if (error) find("error").textContent = `${error[0].toUpperCase()}${error.slice(1)}.`;
  });
  return item;
}

const chosen = (name) => [kindOf(name), kindOf(name).usual];

let drawing = 0;

async function draw() {
  const contenders = props.value, mine = ++drawing, held = element.contains(document.activeElement) && placeOf(document.activeElement);
  rows.replaceChildren(...contenders.map(row));
  if (held) rows.children[held.row]?.querySelectorAll("select, input, button")[held.place]?.focus();
  add.disabled = contenders.length >= MOST;
  const plans = await Promise.all(contenders.map(({ plan }) => look(plan)));
  if (mine !== drawing) return;
  const shown = contenders.map((contender, index) => ({ contender, title: plans[index].name, sentence: "", picture: plans[index].picture }));
  document.dispatchEvent(new CustomEvent("videoar:contenders", { detail: shown }));
}

// Where the keyboard is, for the rows are drawn anew.
function placeOf(control) {
  const row = [...rows.children].findIndex((item) => item.contains(control));
  return row < 0 ? null : { row, place: [...rows.children[row].querySelectorAll("select, input, button")].indexOf(control) };
}

element.querySelector(".va-presets").replaceChildren(
  ...Object.entries(PRESETS).map(([name, contenders]) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.onclick = () => change(contenders.map((each) => ({ ...each })));
    return button;
  }),
);
add.onclick = () => {
  const unused = offered.kinds.find(({ kind }) => !props.value.some((have) => kindOf(have.plan).kind === kind));
  change([...props.value, { plan: planOf(...chosen((unused ?? offered.kinds[0]).kind)) }]);
};
const blind = element.querySelector(".va-blind-test input");
blind.onchange = () => document.dispatchEvent(new CustomEvent("videoar:blind", { detail: blind.checked }));

// "cube:2x2x2 steps:8 window:4 model:the rest", as links have it; the server checks it.
function readLink(text) {
  const [, said, model] = /^(.*?)(?: model:(.*))?$/.exec(text), [plan, ...numbers] = said.split(" ");
  const named = numbers.map((each) => each.split(":")).map(([name, value]) => [name, Number(value)]);
  return { plan, ...Object.fromEntries(named), ...(model ? { model } : {}) };
}

const linked = new URLSearchParams(location.search).getAll("units").slice(0, MOST);
let touched = false;

// Takes the link's contenders for the usual ones, which Gradio may set again while it builds the page.
function settle() {
  const usual = JSON.stringify(props.value) === JSON.stringify(offered.usual);
  if (usual && !touched && linked.length >= FEWEST) props.value = linked.map(readLink);
  draw();
}
settle();
watch("value", settle);
// The player asks again when this tab is opened.
document.addEventListener("videoar:mode", ({ detail }) => detail === "compare" && draw());
