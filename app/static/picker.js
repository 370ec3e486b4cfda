// The choice of a unit type: one radio button per plan, with its picture and a sentence.
// Runs inside Gradio's HTML component, which provides `element`, `props`, `trigger` and `watch`.

const list = element.querySelector(".va-choices");
const group = "va-plan-" + Math.random().toString(36).slice(2);

const choices = props.plans.map((plan) => {
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
    document.dispatchEvent(new CustomEvent("videoar:plan", { detail: plan }));
  };
  return { label, input };
});
list.replaceChildren(...choices.map((choice) => choice.label));

function reflect() {
  for (const { input } of choices) input.checked = input.value === props.value;
}
reflect();
watch("value", reflect);
