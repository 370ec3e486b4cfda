// What it takes to make the finished film again, as a list and for the clipboard.
// Runs inside Gradio's HTML component, which provides `element`, `props` and `watch`.

const copy = element.querySelector(".va-copy");

function row(name, value) {
  const group = document.createElement("div");
  group.append(
    Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: value }),
  );
  return group;
}

function list() {
  const film = props.value;
  if (!film) return;
  const rows = [
    ["Prompt", film.prompt],
    ["Units", film.plan],
    ["Seed", film.seed],
    ["Size", `${film.width} × ${film.height}, ${film.frames ? `${film.frames} frames` : "endless"}, ${film.fps} per second`],
    ["Steps", film.steps ?? "the model's own"],
  ];
  if (film.stopped_after_units !== undefined) rows.push(["Stopped", `after ${film.stopped_after_units} units, ${film.kept_frames} frames kept`]);
  if (film.continued_from) rows.push(["Continues", `${film.continued_from}, ${film.given_frames} frames`]);
  for (const [time, prompt] of film.storyboard ?? []) rows.push([`From ${time} s`, prompt]);
  element.querySelector("dl").replaceChildren(...rows.map(([name, value]) => row(name, String(value))));
}

copy.onclick = async () => {
  try {
    await navigator.clipboard.writeText(JSON.stringify(props.value, null, 2));
    copy.textContent = "Copied";
  } catch {
    copy.textContent = "Not allowed here";
  }
  setTimeout(() => (copy.textContent = "Copy as JSON"), 1500);
};
list();
watch("value", list);
