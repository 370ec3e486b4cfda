// A link that opens the same settings, and a QR code of it for phones in the audience. Shares the scope of player.js.

// What the player shows, or what is chosen before the first run: prompt, seed and contenders.
function settingsShown() {
  if (film.clips.length) {
    const [first] = film.clips;
    const contenders = film.clips.map(({ settings: { plan, steps, guidance_scale: guidance, window, model } }) => ({
      ...{ plan, steps, guidance, window },
      ...(props.models.length ? { model } : {}), // last: its name may have spaces
    }));
    const several = isBatch(film.clips);
    const more = several ? { films: contenders.length } : contenders.length === 1 ? moreOf(first.settings) : {};
    return { prompt: first.prompt, seed: first.seed, contenders: several ? [contenders[0]] : contenders, more };
  }
  const { window, guidance, ...more } = film.mode === "compare" ? {} : film.more;
  const one = { plan: film.choice.value, steps: document.querySelector("#va-steps input[type=number]")?.value, guidance, window };
  const contenders = film.mode === "compare" ? film.contenders.map((each) => each.contender) : [one];
  return { prompt: promptField().value, seed: null, contenders, more };
}

// What a film has beside prompt, seed and units, as app/limits.py names it, and the file that it goes on from.
function moreOf({ endless, frames, fps, window, sink, storyboard, continued_from: source }) {
  const more = endless ? { endless } : { seconds: (frames + (source ? 1 : 0)) / fps }; // its first picture is the file's
  if (window && sink !== undefined) more.sink = sink;
  if (storyboard) more.storyboard = storyboard.map(([time, prompt]) => `${Number(time.toFixed(6))} ${prompt}`).join("\n");
  if (source) more.continued_from = source;
  return more;
}

// Prompt, seed and one `units` for each film, and what else one film has, as app/link.py reads them.
function linkTo({ prompt, seed, contenders, more }) {
  const link = new URL(location.pathname, location.origin);
  link.searchParams.set("prompt", prompt);
  if (seed !== null) link.searchParams.set("seed", seed);
  for (const { plan, ...numbers } of contenders) {
    const parts = Object.entries(numbers).filter(([, value]) => value !== null && value !== undefined);
    link.searchParams.append("units", [plan, ...parts.map((part) => part.join(":"))].join(" "));
  }
  for (const [name, value] of Object.entries(more)) link.searchParams.set(name, value === true ? 1 : value);
  return link.href;
}

async function shareLink() {
  const dialog = find("share-dialog"), link = linkTo(settingsShown());
  let answer;
  try {
    answer = await (await fetch(new URL("gradio_api/share?" + new URLSearchParams({ link }), document.baseURI))).json();
  } catch {
    answer = { error: "The server does not answer." };
  }
  if (answer.error) return say(answer.error);
  find("share-code").src = answer.picture;
  Object.assign(find("share-link"), { href: answer.link, textContent: answer.link });
  find("share-note").textContent = answer.note;
  dialog.showModal();
}

find("share-close").onclick = () => find("share-dialog").close();
// Its keys are its own: Escape closes it and nothing else.
find("share-dialog").addEventListener("keydown", (event) => {
  event.stopPropagation();
  if (event.key === "c") find("share-dialog").close();
});
