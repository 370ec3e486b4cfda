// The contenders of a comparison: two to five rows of a plan, steps, context window and guidance.
// Runs inside Gradio's HTML component, which provides `element`, `props` and `watch`.

const MOST = 5, FEWEST = 2;
const PRESETS = {
  "Cubes and frames": [{ plan: "cube:2x2x2" }, { plan: "frame:1" }],
  "Unit types": ["cube:2x2x2", "frame:1", "key_detail:4", "scale:3", "full"].map((plan) => ({ plan })),
  "Cube sizes": ["cube:1x2x2", "cube:2x2x2", "cube:4x2x2", "cube:2x4x4"].map((plan) => ({ plan })),
  "Chunks": ["frame:1", "frame:2", "frame:4"].map((plan) => ({ plan })),
  "Steps": [2, 4, 8, 16].map((steps) => ({ plan: "cube:2x2x2", steps })),
  "Context": [2, 4, null].map((window) => ({ plan: "frame:1", window })),
  "All at once": [{ plan: "cube:2x2x2" }, { plan: "full", steps: 50, guidance: 5 }],
};
const NUMBERS = ["steps", "window", "guidance"];
const rows = element.querySelector("ol"), template = element.querySelector("template");
const add = element.querySelector(".va-add");

const known = (plan) => props.offered.find((each) => each.value === plan);
const nameOf = (contender) => known(contender.plan)?.name ?? contender.plan;

function change(contenders) {
  touched = true;
  props.value = contenders;
  draw();
}

function row(contender, index) {
  const item = template.content.firstElementChild.cloneNode(true);
  const select = item.querySelector("select"), number = index + 1;
  const plans = known(contender.plan) ? props.offered : [...props.offered, { value: contender.plan, name: contender.plan }];
  select.append(...plans.map((each) => new Option(each.name, each.value, false, each.value === contender.plan)));
  select.setAttribute("aria-label", `Units of contender ${number}`);
  const picture = known(contender.plan)?.picture;
  if (picture) new BlockPicture(item.querySelector("svg"), picture).markAll("done");
  const edit = (changes) => change(props.value.map((each, i) => (i === index ? { ...each, ...changes } : each)));
  select.onchange = () => edit({ plan: select.value });
  for (const name of NUMBERS) {
    const input = item.querySelector(`.va-${name}-of`);
    input.value = contender[name] ?? "";
    input.setAttribute("aria-label", `${name} of contender ${number}`);
    input.onchange = () => edit({ [name]: input.value === "" ? null : Number(input.value) });
  }
  const remove = item.querySelector(".va-remove");
  remove.setAttribute("aria-label", `Remove contender ${number}`);
  remove.disabled = props.value.length <= FEWEST;
  remove.onclick = () => change(props.value.filter((_, i) => i !== index));
  return item;
}

function draw() {
  const contenders = props.value;
  rows.replaceChildren(...contenders.map(row));
  add.disabled = contenders.length >= MOST;
  const shown = contenders.map((each) => ({ title: nameOf(each), sentence: "", picture: known(each.plan)?.picture }));
  document.dispatchEvent(new CustomEvent("videoar:contenders", { detail: shown }));
}

element.querySelector(".va-presets").replaceChildren(
  ...Object.entries(PRESETS).map(([name, contenders]) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.onclick = () => change(contenders.map((each) => ({ ...each })));
    return button;
  }),
);
add.onclick = () => {
  const unused = props.offered.find((each) => !props.value.some((have) => have.plan === each.value));
  change([...props.value, { plan: (unused ?? props.offered[0]).value }]);
};
// "cube:2x2x2 steps:8 window:4", as links have it; the server checks it.
function readLink(text) {
  const [plan, ...numbers] = text.split(" ");
  return { plan, ...Object.fromEntries(numbers.map((each) => each.split(":")).map(([name, value]) => [name, Number(value)])) };
}

const linked = new URLSearchParams(location.search).getAll("units").slice(0, MOST);
let touched = false;

// Takes the link's contenders for the usual ones, which Gradio may set again while it builds the page.
function settle() {
  const usual = JSON.stringify(props.value) === JSON.stringify(props.usual);
  if (usual && !touched && linked.length >= FEWEST) props.value = linked.map(readLink);
  draw();
}
settle();
watch("value", settle);
// The player asks again when this tab is opened.
document.addEventListener("videoar:mode", ({ detail }) => detail === "compare" && draw());
