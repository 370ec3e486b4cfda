// The page "How it works". All geometry comes from the server; this draws it and steps through it.

const $ = (selector) => document.querySelector(selector);
const form = $(".va-cut"), at = $(".va-at"), said = $(".va-said"), mask = $(".va-mask"), byTokens = $(".va-by-tokens input");
const address = new URLSearchParams(location.search);
const darkest = matchMedia("(prefers-color-scheme: dark)");
let shown = null; // the plan on the page: see app/explain.py
let block = null, parts = [], asked = 0, player = 0;

function paintTheme() {
  const wanted = address.get("__theme");
  document.documentElement.classList.toggle("dark", wanted === "dark" || (wanted !== "light" && darkest.matches));
  if (shown) drawMask();
}

// ---- the form

const numbersOf = (kind) => [...form.querySelectorAll(`.va-numbers[data-kind=${kind}] input`)];
const kindOf = () => form.elements.kind.value;

function planText() {
  const numbers = numbersOf(kindOf()).map((input) => input.value);
  return numbers.length ? `${kindOf()}:${numbers.join("x")}` : kindOf();
}

function fillIn() {
  const [kind, numbers] = (address.get("plan") || "cube").split(":");
  const known = [...form.elements.kind].find((input) => input.value === kind);
  if (known) known.checked = true;
  const inputs = known ? numbersOf(kind) : [];
  (numbers || "").split("x").forEach((number, index) => inputs[index] && number && (inputs[index].value = number));
  for (const name of ["frames", "rows", "columns", "window", "sink"]) {
    if (address.get(name)) form.elements[name].value = address.get(name);
  }
}

async function ask(unit) {
  for (const item of form.querySelectorAll("[data-kind]")) item.classList.toggle("va-chosen", item.dataset.kind === kindOf());
  const wanted = new URLSearchParams({ plan: planText() });
  for (const name of ["frames", "rows", "columns", "window", "sink"]) {
    if (form.elements[name].value) wanted.set(name, form.elements[name].value);
  }
  const mine = ++asked;
  let answer;
  try {
    answer = await (await fetch("plan?" + wanted)).json();
  } catch {
    answer = { error: "the server does not answer" };
  }
  if (mine !== asked) return;
  $(".va-error").textContent = answer.error ? `${answer.error[0].toUpperCase()}${answer.error.slice(1)}.` : "";
  if (answer.error) return;
  shown = answer;
  // What nobody has chosen is the served model's.
  ["frames", "rows", "columns"].forEach((name, index) => (form.elements[name].value ||= answer.grid[index]));
  begin(Math.min(unit ?? at.value, shown.units.length));
}

// ---- drawing

const make = (name, attributes, text = "") => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
};

function begin(unit) {
  block = new BlockPicture($(".va-block"), shown);
  drawSlices();
  at.max = shown.units.length;
  step(unit);
}

// One small picture per frame and scale: each unit's part of it, the lines between tokens, the unit's number.
function drawSlices() {
  const [T, H, W] = shown.grid, side = 60 / Math.max(H, W);
  parts = [];
  const levels = shown.scales.map((scale, level) => {
    const row = document.createElement("div");
    for (let t = 0; t < T; t++) {
      const svg = make("svg", { viewBox: `-1 -1 ${W * side + 2} ${H * side + 2}` });
      shown.units.forEach((unit, index) => {
        const place = shown.frames[index].indexOf(t);
        if (unit.level !== level || place < 0) return;
        const [x, y, w, h] = [unit.cols[0], unit.rows[0], unit.cols[1] - unit.cols[0], unit.rows[1] - unit.rows[0]].map((n) => n * side);
        const rect = make("rect", { x, y, width: w, height: h, class: "va-part" });
        rect.style.setProperty("--unit", unitColour(index, shown.units.length));
        const text = Math.min(w, h) < 11 ? null : make("text", { x: x + w / 2, y: y + h / 2 }, index + 1);
        parts.push({ index, place, shapes: text ? [rect, text] : [rect] });
        svg.append(rect);
      });
      const lines = [];
      const seen = scale * side >= 3; // closer together the lines would be all there is to see
      for (let y = scale; seen && y < H; y += scale) lines.push(`M0 ${y * side}H${W * side}`);
      for (let x = scale; seen && x < W; x += scale) lines.push(`M${x * side} 0V${H * side}`);
      svg.append(make("path", { d: lines.join(""), class: "va-tokens" }));
      svg.append(...parts.flatMap(({ shapes }) => (shapes[0].parentNode === svg && shapes[1] ? [shapes[1]] : [])));
      row.append(svg);
    }
    return row;
  });
  $(".va-slices").replaceChildren(...levels);
}

function stateOf(unit, place, now) {
  if (unit >= now) return unit === now ? "now" : "todo";
  const end = shown.until[unit][place];
  return end !== null && end <= now ? "gone" : "seen";
}

function step(unit) {
  const now = unit - 1;
  at.value = unit;
  shown.units.forEach((_, index) => {
    const share = index <= now ? shown.mask[now][index] : 0;
    block.mark(index, index === now ? "now" : index > now ? "todo" : share ? "done" : "gone");
  });
  for (const { index, place, shapes } of parts) {
    for (const shape of shapes) shape.dataset.state = stateOf(index, place, now);
  }
  drawMask();
  said.textContent = describe(now);
  mask.setAttribute("aria-label", `Mask of ${shown.units.length} units. ${said.textContent}`);
  address.set("plan", shown.plan);
  address.set("unit", unit);
  for (const name of ["frames", "rows", "columns", "window", "sink"]) {
    if (form.elements[name].value) address.set(name, form.elements[name].value);
    else address.delete(name);
  }
  history.replaceState(null, "", "?" + address);
}

// 1, 2, 3, 5 becomes "1 to 3 and 5".
function listed(numbers) {
  const runs = [];
  for (const number of numbers) {
    if (runs.length && runs.at(-1)[1] === number - 1) runs.at(-1)[1] = number;
    else runs.push([number, number]);
  }
  const texts = runs.map(([first, last]) => (first === last ? `${first}` : last === first + 1 ? `${first}, ${last}` : `${first} to ${last}`));
  return texts.length > 1 ? `${texts.slice(0, -1).join(", ")} and ${texts.at(-1)}` : texts[0];
}

function describe(now) {
  const earlier = shown.mask[now].slice(0, now);
  const pick = (test) => earlier.flatMap((share, index) => (test(share) ? [index + 1] : []));
  const whole = pick((share) => share === 1), some = pick((share) => share > 0 && share < 1), none = pick((share) => share === 0);
  const units = (numbers) => `unit${numbers.length > 1 ? "s" : ""} ${listed(numbers)}`;
  const all = shown.units.reduce((sum, unit) => sum + unit.tokens, 0);
  let text = `Unit ${now + 1} of ${shown.units.length} attends to itself`;
  if (whole.length) text += ` and ${units(whole)}`;
  if (some.length) text += `${whole.length ? "," : " and"} in part to ${units(some)}`;
  text += `: ${shown.attended[now]} of ${all} tokens.`;
  if (none.length) text += ` It has forgotten ${units(none)}.`;
  return text;
}

// Edges of the units along the mask, in shares of its side.
function edges() {
  const sizes = shown.units.map((unit) => (byTokens.checked ? unit.tokens : 1));
  const total = sizes.reduce((a, b) => a + b, 0);
  let sum = 0;
  return [0, ...sizes.map((size) => (sum += size) / total)];
}

function drawMask() {
  const side = Math.round(Math.min(440, mask.clientWidth || 440) * devicePixelRatio), now = at.value - 1, cuts = edges();
  mask.width = mask.height = side;
  const pen = mask.getContext("2d"), count = shown.units.length, gap = side / count > 8 * devicePixelRatio ? devicePixelRatio : 0;
  const style = getComputedStyle(document.body), ink = style.color, soft = style.getPropertyValue("--va-todo");
  for (let row = 0; row < count; row++) {
    for (let column = 0; column < count; column++) {
      const [x, y] = [cuts[column] * side, cuts[row] * side];
      const box = [x, y, cuts[column + 1] * side - x - gap, cuts[row + 1] * side - y - gap];
      const share = column <= row ? shown.mask[row][column] : 0;
      pen.globalAlpha = 1;
      pen.fillStyle = style.getPropertyValue("--body-background-fill");
      pen.fillRect(...box);
      if (!share) continue;
      pen.globalAlpha = (row === now ? 1 : 0.35) * (0.25 + 0.75 * share);
      pen.fillStyle = unitColour(column, count);
      pen.fillRect(...box);
    }
  }
  pen.globalAlpha = 1;
  pen.strokeStyle = ink || soft;
  pen.lineWidth = 2 * devicePixelRatio;
  const top = cuts[now] * side, inset = devicePixelRatio;
  pen.strokeRect(inset, top + inset, cuts[now + 1] * side - 2 * inset, (cuts[now + 1] - cuts[now]) * side - 2 * inset);
}

// ---- stepping

const move = (by) => shown && step(Math.min(Math.max(1, Number(at.value) + by), shown.units.length));

function play(on) {
  clearInterval(player);
  player = on ? setInterval(() => (Number(at.value) < shown.units.length ? move(1) : play(false)), 900) : 0;
  $(".va-run").textContent = on ? "❚❚" : "▶";
  $(".va-run").setAttribute("aria-label", on ? "Pause" : "Play");
}

function togglePlay() {
  if (!shown) return;
  if (!player && Number(at.value) === shown.units.length) step(1);
  play(!player);
}

form.oninput = () => { play(false); ask(); };
form.onsubmit = (event) => event.preventDefault();
at.oninput = () => { play(false); step(Number(at.value)); };
byTokens.onchange = () => shown && drawMask();
$(".va-prev").onclick = () => { play(false); move(-1); };
$(".va-next").onclick = () => { play(false); move(1); };
$(".va-run").onclick = togglePlay;
mask.onclick = (event) => {
  if (!shown) return;
  const place = event.offsetY / mask.clientHeight;
  play(false);
  step(Math.max(1, edges().findIndex((edge) => edge > place)));
};
document.onkeydown = (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = { ArrowLeft: () => move(-1), ArrowRight: () => move(1), Home: () => step(1), End: () => step(shown.units.length) };
  if (event.key === " " && !event.target.matches("button, a")) keys[" "] = togglePlay;
  if (!keys[event.key] || !shown) return;
  event.preventDefault();
  if (event.key !== " ") play(false);
  keys[event.key]();
};
darkest.onchange = paintTheme;
addEventListener("resize", () => shown && drawMask());

paintTheme();
fillIn();
ask(Number(address.get("unit")) || 1);
