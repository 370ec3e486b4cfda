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
  return [...said, whySentence({ contenders })].join(" ").trim();
}

// "Frames took longer mostly for denoising: 64 steps of 21 ms against 64 of 14 ms." Empty if no part of the work stands out.
function whySentence({ contenders }) {
  const done = contenders.filter((c) => c.status === "done").sort((a, b) => a.device_s - b.device_s);
  const [fast, slow] = [done[0], done.at(-1)];
  if (done.length < 2 || !fast.units.length || !slow.units.length) return "";
  const sum = (c, part) => c.units.reduce((total, unit) => total + unit[part], 0);
  const steps = (c) => c.units.length * c.settings.steps, each = (c) => `${Math.round((1000 * sum(c, "denoise_s")) / steps(c))} ms`;
  const parts = {
    denoise_s: `denoising: ${steps(slow)} steps of ${each(slow)} against ${steps(fast)} of ${each(fast)}`,
    clean_s: `clean passes: ${seconds(sum(slow, "clean_s"))} against ${seconds(sum(fast, "clean_s"))}`,
    decode_s: `decoding, previews included: ${seconds(sum(slow, "decode_s"))} against ${seconds(sum(fast, "decode_s"))}`,
  };
  const more = (part) => sum(slow, part) - sum(fast, part);
  const most = Object.keys(parts).reduce((a, b) => (more(b) > more(a) ? b : a));
  return more(most) > 0.5 * (slow.device_s - fast.device_s) ? `${slow.label} took longer mostly for ${parts[most]}.` : "";
}

function download(name, text, type = "application/json") {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
