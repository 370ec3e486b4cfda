// The blind test: films in random order and without names, shown when all are done; the viewer votes, then sees whose they are.
// Shares the scope of player.js. Votes stay in this tab.

const VOTES = "videoar-votes";
const blind = { wanted: false, veiled: false, run: null };
const readVotes = () => JSON.parse(sessionStorage.getItem(VOTES) ?? "[]");

// Puts the panes of a new comparison in random order and takes their names away.
function veil() {
  blind.veiled = true;
  const shuffled = panes.map((pane) => [Math.random(), pane]).sort(([a], [b]) => a - b);
  panes.splice(0, panes.length, ...shuffled.map(([, pane]) => pane));
  panes.forEach((pane, place) => pane.call("ABCDE"[place]));
  find("panes").replaceChildren(...panes.map((pane) => pane.root));
  document.documentElement.classList.add("va-veiled");
}

// The names come back, and the films keep their places.
function unveil() {
  if (!blind.veiled) return;
  blind.veiled = false;
  document.documentElement.classList.remove("va-veiled");
  find("ballot").hidden = true;
  panes.forEach((pane) => pane.call(`${pane.title} · ${pane.clip.label}`));
  show();
}

// After the last film: asks for the vote, or, where there is nothing to vote on, tells the names at once.
function openBallot(run) {
  blind.run = run;
  if (!panes.every((pane) => pane.root.dataset.phase === "done")) return unveil();
  const button = (text, place) => Object.assign(make("button", text), { type: "button", onclick: () => vote(place) });
  find("ballot div").replaceChildren(...panes.map((pane, place) => button(pane.title, place)), button("No difference", null));
  find("ballot").hidden = false;
  say("Which film is the best one?");
}

// place: of the best film on the screen, null for none.
function vote(place) {
  if (find("ballot").hidden) return;
  const labels = panes.map((pane) => pane.clip.label), [clip] = film.clips;
  const choice = place === null ? null : labels[place], letters = panes.map((pane) => pane.title);
  const votes = [...readVotes(), { time: new Date().toISOString(), prompt: clip.prompt, seed: clip.seed, shown: labels, choice }];
  sessionStorage.setItem(VOTES, JSON.stringify(votes));
  unveil();
  say(place === null ? "No difference, you say." : `${letters[place]} is ${choice}.`);
  find("verdict").hidden = false;
  remember(blind.run);
  drawTally();
}

// The interval of a share of `won` in `of`, 95%, after Wilson (1927).
function wilson(won, of) {
  const z = 1.959964, share = won / of, middle = (share + (z * z) / (2 * of)) / (1 + (z * z) / of);
  const half = ((z / (1 + (z * z) / of)) * Math.sqrt((share * (1 - share)) / of + (z * z) / (4 * of * of)));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function drawTally() {
  const votes = readVotes(), decided = votes.filter((each) => each.choice !== null);
  find("tally").hidden = !votes.length;
  const labels = [...new Set(votes.flatMap((each) => each.shown))].sort();
  const rows = labels.map((label) => {
    const among = decided.filter((each) => each.shown.includes(label)), won = among.filter((each) => each.choice === label).length;
    const percent = (share) => Math.round(100 * share);
    const [low, high] = among.length ? wilson(won, among.length).map(percent) : [];
    const row = document.createElement("tr");
    row.append(Object.assign(make("th", label), { scope: "row" }), make("td", `${won} of ${among.length}`));
    row.append(make("td", among.length ? `${percent(won / among.length)}% (${low} to ${high}%)` : "–"));
    return row;
  });
  find("tally tbody").replaceChildren(...rows);
  const none = votes.length - decided.length;
  find("tally-note").textContent = `${votes.length} ${votes.length === 1 ? "vote" : "votes"} in this tab` + (none ? `, ${none} without a difference` : "");
}

function votesAsCsv() {
  const cell = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const lines = readVotes().map(({ time, prompt, seed, shown, choice }) => [time, prompt, seed, shown.join(" | "), choice ?? ""]);
  return [["time", "prompt", "seed", "shown", "choice"], ...lines].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

find("csv").onclick = () => download("videoar-votes.csv", votesAsCsv(), "text/csv");
find("forget-votes").onclick = () => {
  sessionStorage.removeItem(VOTES);
  drawTally();
};
document.addEventListener("videoar:blind", ({ detail }) => (blind.wanted = detail));
drawTally();
