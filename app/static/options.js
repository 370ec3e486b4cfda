// What else a film has: its length, and what is folded away. The value holds only what was chosen.
// Runs inside Gradio's HTML component, which provides `element`, `props` and `watch`.

const group = "va-length-" + Math.random().toString(36).slice(2);
const lengths = [...element.querySelectorAll(".va-lengths [type=radio]")];
const seconds = element.querySelector(".va-seconds");
seconds.max = props.most_seconds;

function gather() {
  const length = lengths.find((input) => input.checked).value;
  const chosen = {};
  if (length === "seconds") chosen.seconds = seconds.value === "" ? 0 : Number(seconds.value);
  if (length === "endless") chosen.endless = true;
  props.value = chosen;
}

for (const input of lengths) {
  input.name = group;
  input.onchange = gather;
}
seconds.oninput = () => {
  lengths.find((input) => input.value === "seconds").checked = true;
  gather();
};
