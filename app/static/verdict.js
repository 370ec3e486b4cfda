// The figures at the end of a run: who showed a picture first, who finished first, what the clips show.

const bytes = (n) => (n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : n >= 1e6 ? `${(n / 1e6).toFixed(1)} MB` : `${Math.round(n / 1e3)} kB`);
const seconds = (s) => (s === null || s === undefined ? "–" : `${s.toFixed(2)} s`);

const COLUMNS = [
  ["First picture", (c) => seconds(c.first_picture_s), (s, i) => s.first_picture === i],
  ["Finished", (c) => (c.status === "done" ? seconds(c.device_s) : c.status), (s, i) => s.first_finished === i],
  ["Pictures per s", (c) => (c.pictures_per_s ? c.pictures_per_s.toFixed(1) : "–")],
  ["Units × steps", (c) => `${c.units_made} × ${c.settings.steps}`],
  ["Cache", (c) => bytes(c.cache_bytes)],
];

function make(tag, text = "", className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

// table: a <table>; summary: that of the `over` message
function fillVerdict(table, summary) {
  const read = summary.contenders.some((c) => c.reads.length);
  const names = ["Contender", ...COLUMNS.map(([name]) => name), ...(read ? ["Read from the clip"] : [])];
  const head = document.createElement("tr");
  head.append(...names.map((name) => Object.assign(make("th", name), { scope: "col" })));
  const rows = summary.contenders.map((contender, index) => {
    const row = document.createElement("tr");
    row.append(Object.assign(make("th", contender.label), { scope: "row" }));
    for (const [, text, wins] of COLUMNS) {
      const first = summary.contenders.length > 1 && wins?.(summary, index);
      row.append(make("td", text(contender) + (first ? " · first" : ""), first ? "va-first" : ""));
    }
    if (read) {
      const cell = document.createElement("td");
      cell.append(
        ...contender.reads.map(({ wanted, seen, right }) =>
          make("span", `${wanted}: ${right ? "yes" : seen === "nothing" ? "no" : `no, ${seen}`}`, right ? "va-yes" : "va-no"),
        ),
      );
      row.append(cell);
    }
    return row;
  });
  table.tHead.replaceChildren(head);
  table.tBodies[0].replaceChildren(...rows);
}

// "Frames showed a picture first (0.31 s). Cubes finished first (2.10 s)."
function verdictSentence({ contenders, first_picture: shown, first_finished: finished }) {
  const said = [];
  if (shown !== null) said.push(`${contenders[shown].label} showed a picture first (${seconds(contenders[shown].first_picture_s)}).`);
  if (finished !== null) said.push(`${contenders[finished].label} finished first (${seconds(contenders[finished].device_s)}).`);
  return said.join(" ");
}

function download(name, text, type = "application/json") {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
