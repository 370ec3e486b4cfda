// One lane per contender on a shared axis of device time, one bar per unit: denoising, clean pass, decoding, encoding.

const MOST_BARS = 48; // of a film without an end, the last ones

class Timeline {
  // list: the element for the lanes; top: the element that says where the axis ends
  constructor(list, top, clips) {
    Object.assign(this, { list, top, begin: 0, end: 0 });
    list.style.setProperty("--begin", 0);
    this.lanes = clips.map((clip) => new Lane(clip, this));
    list.replaceChildren(...this.lanes.map((lane) => lane.root));
    top.textContent = "";
  }

  // The axis grows with the slowest contender.
  reach(clock) {
    if (clock <= this.end) return;
    this.end = clock;
    this.list.style.setProperty("--end", clock);
    this.top.textContent = this.begin ? `${this.begin.toFixed(0)} to ${clock.toFixed(0)} s` : `${clock.toFixed(2)} s`;
  }

  // What is further back is not shown any more.
  leave(clock) {
    this.begin = clock;
    this.list.style.setProperty("--begin", clock);
  }
}

class Lane {
  constructor(clip, timeline) {
    this.timeline = timeline;
    this.slab = clip.plan.units.length;
    this.total = clip.units === undefined ? this.slab : clip.units; // null: nobody knows
    this.count = this.mean = 0;
    this.root = document.createElement("div");
    this.root.className = "va-lane";
    const name = Object.assign(document.createElement("span"), { className: "va-lane-name", textContent: clip.label });
    this.bars = Object.assign(document.createElement("div"), { className: "va-bars" });
    this.bars.setAttribute("role", "img");
    this.root.append(name, this.bars);
    this.describe(clip.label);
    this.label = clip.label;
  }

  bar(unit) {
    return this.bars.querySelector(`[data-unit="${unit}"]`);
  }

  start(unit, clock) {
    // Where decoding overlaps with the next unit, the bar of the one before ends here.
    const before = this.bar(unit - 1);
    if (before && before.dataset.state === "now") before.dataset.until = clock;
    if (unit === 0) this.bars.style.setProperty("--lead", clock); // the prompt was read until then
    const bar = document.createElement("span");
    Object.assign(bar.dataset, { unit, state: "now" });
    bar.style.setProperty("--unit", unitColour(unit % this.slab, this.slab));
    this.bars.append(bar);
    if (this.slab !== this.total && this.bars.children.length > MOST_BARS) {
      this.bars.firstElementChild.remove();
      this.timeline.leave(Number(this.bars.firstElementChild.style.getPropertyValue("--from")));
      this.bars.style.setProperty("--lead", 0);
    }
    bar.style.setProperty("--from", clock);
    this.stretch(unit, clock);
  }

  // The bar of the unit in the making reaches the clock.
  stretch(unit, clock) {
    const bar = this.bar(unit);
    bar.style.setProperty("--to", Math.min(clock, Number(bar.dataset.until ?? clock)));
    this.timeline.reach(clock);
  }

  finish(unit, [denoise, clean, decode, encode], clock) {
    const bar = this.bar(unit), parts = { denoise, clean, decode };
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
    this.count++;
    this.mean += (denoise + clean + decode - this.mean) / this.count;
    this.describe(this.label);
  }

  describe(label) {
    const how = this.count ? `, ${this.mean.toFixed(2)} s on average` : "";
    const made = this.total === null ? this.count : `${this.count} of ${this.total}`;
    this.bars.setAttribute("aria-label", `Time per unit of ${label}: ${made} made${how}`);
  }
}
