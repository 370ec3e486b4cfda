// One lane per contender on a shared axis of device time, one bar per unit: denoising, clean pass, decoding, encoding.

class Timeline {
  // list: the element for the lanes; top: the element that says where the axis ends
  constructor(list, top, clips) {
    Object.assign(this, { list, top, end: 0 });
    this.lanes = clips.map((clip) => new Lane(clip, this));
    list.replaceChildren(...this.lanes.map((lane) => lane.root));
    top.textContent = "";
  }

  // The axis grows with the slowest contender.
  reach(clock) {
    if (clock <= this.end) return;
    this.end = clock;
    this.list.style.setProperty("--end", clock);
    this.top.textContent = `${clock.toFixed(2)} s`;
  }
}

class Lane {
  constructor(clip, timeline) {
    this.timeline = timeline;
    this.total = clip.plan.units.length;
    this.made = [];
    this.root = document.createElement("div");
    this.root.className = "va-lane";
    const name = Object.assign(document.createElement("span"), { className: "va-lane-name", textContent: clip.label });
    this.bars = Object.assign(document.createElement("div"), { className: "va-bars" });
    this.bars.setAttribute("role", "img");
    this.bars.append(
      ...clip.plan.units.map((_, index) => {
        const bar = document.createElement("span");
        bar.style.setProperty("--unit", unitColour(index, this.total));
        return bar;
      }),
    );
    this.root.append(name, this.bars);
    this.describe(clip.label);
    this.label = clip.label;
  }

  start(unit, clock) {
    // Where decoding overlaps with the next unit, the bar of the one before ends here.
    const before = this.bars.children[unit - 1];
    if (before && before.dataset.state === "now") before.dataset.until = clock;
    if (unit === 0) this.bars.style.setProperty("--lead", clock); // the prompt was read until then
    const bar = this.bars.children[unit];
    bar.dataset.state = "now";
    bar.style.setProperty("--from", clock);
    this.stretch(unit, clock);
  }

  // The bar of the unit in the making reaches the clock.
  stretch(unit, clock) {
    const bar = this.bars.children[unit];
    bar.style.setProperty("--to", Math.min(clock, Number(bar.dataset.until ?? clock)));
    this.timeline.reach(clock);
  }

  finish(unit, [denoise, clean, decode, encode], clock) {
    const bar = this.bars.children[unit], parts = { denoise, clean, decode };
    this.stretch(unit, clock);
    bar.dataset.state = "done";
    bar.title = `Unit ${unit + 1}: denoising ${denoise.toFixed(3)} s, clean pass ${clean.toFixed(3)} s, decoding ${decode.toFixed(3)} s, encoding ${encode.toFixed(3)} s`;
    bar.replaceChildren(
      ...Object.entries(parts).map(([name, seconds]) => {
        const part = document.createElement("i");
        part.className = "va-" + name;
        part.style.flexGrow = 1000 * seconds; // below 1 in all they would leave a gap
        return part;
      }),
    );
    // Encoding does not use the device: it is drawn under the bars, after the unit.
    const tail = Object.assign(document.createElement("b"), { className: "va-encode" });
    tail.style.setProperty("--encode", encode);
    bar.append(tail);
    this.made.push(denoise + clean + decode);
    this.describe(this.label);
  }

  describe(label) {
    const mean = this.made.reduce((a, b) => a + b, 0) / this.made.length;
    const how = this.made.length ? `, ${mean.toFixed(2)} s on average` : "";
    this.bars.setAttribute("aria-label", `Time per unit of ${label}: ${this.made.length} of ${this.total} made${how}`);
  }
}
