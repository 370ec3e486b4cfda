// The choice of a unit type: one radio button per plan, with its picture and a sentence.
// Runs inside Gradio's HTML component, which provides `element`, `props`, `trigger` and `watch`.

const list = element.querySelector(".va-choices");
const group = "va-plan-" + Math.random().toString(36).slice(2);

const tell = (plan) => document.dispatchEvent(new CustomEvent("videoar:plan", { detail: plan }));

function choiceOf(plan) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: group, value: plan.value });
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("aria-hidden", "true");
  new BlockPicture(picture, plan.picture).markAll("done");
  const words = document.createElement("span");
  const title = Object.assign(document.createElement("strong"), { textContent: plan.title });
  words.append(title, Object.assign(document.createElement("small"), { textContent: plan.sentence }));
  label.append(input, picture, words);
  input.onchange = () => {
    props.value = plan.value;
    tell(plan);
  };
  return { label, input, plan };
}

const choices = props.plans.map(choiceOf);
list.replaceChildren(...choices.map((choice) => choice.label));

// A plan that is not among the choices, from a link or a file, gets a row of its own.
async function offer(value) {
  const url = new URL("gradio_api/plan?" + new URLSearchParams({ plan: value }), document.baseURI);
  const answer = await fetch(url).then((response) => response.json(), () => ({ error: "the server does not answer" }));
  if (answer.error || props.value !== value) return;
  const choice = choiceOf({ value, title: answer.name, sentence: `As opened: ${value}.`, picture: answer });
  choices.splice(props.plans.length, 1, choice);
  list.replaceChildren(...choices.map(({ label }) => label));
  reflect();
}

function reflect() {
  for (const { input } of choices) input.checked = input.value === props.value;
  const chosen = choices.find(({ input }) => input.checked);
  if (chosen) tell(chosen.plan); // from a link or a file
  else offer(props.value);
}
reflect();
watch("value", reflect);
