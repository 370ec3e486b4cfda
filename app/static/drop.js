// Gradio gives the field for a file a name other than what is written in it, and a new one whenever it is emptied.
const nameField = () => document.querySelector("#va-start button[aria-label='Click to upload or drop files']")?.removeAttribute("aria-label");
new MutationObserver(nameField).observe(document.getElementById("va-controls"), { childList: true, subtree: true });

// A file that is dropped anywhere on the page is opened, as if it had been chosen with the button. Scope of player.js.

const brings = (event) => !event.defaultPrevented && [...(event.dataTransfer?.types ?? [])].includes("Files");
const dropping = (on) => document.documentElement.classList.toggle("va-dropping", on);

document.addEventListener("dragover", (event) => {
  if (!brings(event)) return;
  event.preventDefault();
  dropping(true);
});
document.addEventListener("dragleave", (event) => event.relatedTarget || dropping(false));
document.addEventListener("drop", (event) => {
  dropping(false);
  if (!brings(event)) return; // a component that takes files itself
  event.preventDefault();
  if (!event.dataTransfer.files.length) return; // a folder, or a picture of another page
  say(`Opening ${event.dataTransfer.files[0].name}.`);
  const field = document.querySelector("#va-file input[type=file]"), files = new DataTransfer();
  files.items.add(event.dataTransfer.files[0]);
  field.files = files.files;
  field.dispatchEvent(new Event("change", { bubbles: true }));
});
