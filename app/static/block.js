// Draws a plan as a block of time (to the right), height (down) and width (into the depth), one box per run of a unit.

const SVG = "http://www.w3.org/2000/svg";
const TIME = 168, TALL = 84, DEEP_X = 52, DEEP_Y = 34, GAP = 3;

// The colour of unit `index` of `total`: one ramp from first to last, the same everywhere on the page.
function unitColour(index, total) {
  const f = total > 1 ? index / (total - 1) : 0.1;
  const hue = (258 + 170 * f) % 360;
  return `oklch(${(0.62 + 0.16 * f).toFixed(3)} ${(0.17 - 0.01 * f).toFixed(3)} ${hue.toFixed(1)})`;
}

class BlockPicture {
  // svg: an <svg> element; plan: {grid: [T, H, W], scales, units: [{level, runs, rows, cols}]}
  constructor(svg, plan) {
    this.total = plan.units.length;
    this.shapes = plan.units.map(() => []);
    svg.replaceChildren();
    const boxes = plan.units.flatMap((unit, index) => unit.runs.map((run) => ({ index, unit, run })));
    // Painter's order: what is far (wide into the depth), low and early is covered by what is near, high and late.
    boxes.sort((a, b) => b.unit.cols[0] - a.unit.cols[0] || b.unit.rows[0] - a.unit.rows[0] || a.run[0] - b.run[0]);
    let right = 0;
    const height = TALL + DEEP_Y;
    plan.scales.forEach((scale, level) => {
      const size = 1 / Math.sqrt(scale);
      const origin = [right, height - TALL * size];
      for (const box of boxes.filter((b) => b.unit.level === level)) this.addBox(svg, plan.grid, box, origin, size);
      right += (TIME + DEEP_X) * size + 8;
    });
    svg.setAttribute("viewBox", `-2 -2 ${right - 4} ${height + 4}`);
  }

  addBox(svg, [T, H, W], { index, unit, run }, [left, top], size) {
    const gap = GAP / 2;
    const t = [(run[0] / T) * TIME * size + gap, (run[1] / T) * TIME * size - gap];
    const y = [(unit.rows[0] / H) * TALL * size + gap, (unit.rows[1] / H) * TALL * size - gap];
    const x = [unit.cols[0] / W + 0.03, unit.cols[1] / W - 0.03];
    const point = (a, b, c) =>
      `${(left + t[a] + x[c] * DEEP_X * size).toFixed(1)},${(top + y[b] - x[c] * DEEP_Y * size).toFixed(1)}`;
    const faces = {
      front: [point(0, 0, 0), point(1, 0, 0), point(1, 1, 0), point(0, 1, 0)],
      top: [point(0, 0, 0), point(1, 0, 0), point(1, 0, 1), point(0, 0, 1)],
      side: [point(1, 0, 0), point(1, 1, 0), point(1, 1, 1), point(1, 0, 1)],
    };
    for (const [face, corners] of Object.entries(faces)) {
      const shape = document.createElementNS(SVG, "polygon");
      shape.setAttribute("points", corners.join(" "));
      shape.setAttribute("class", "va-face va-" + face);
      shape.style.setProperty("--unit", unitColour(index, this.total));
      svg.append(shape);
      this.shapes[index].push(shape);
    }
  }

  // state: "todo", "now" or "done"
  mark(index, state) {
    for (const shape of this.shapes[index] || []) shape.dataset.state = state;
  }

  markAll(state) {
    this.shapes.forEach((_, index) => this.mark(index, state));
  }

  // The first `count` units are done, and the next one is in state `next`.
  progress(count, next = "now") {
    this.shapes.forEach((_, index) => this.mark(index, index < count ? "done" : index === count ? next : "todo"));
  }
}
