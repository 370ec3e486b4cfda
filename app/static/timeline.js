// One bar per unit: how long denoising, the clean pass and decoding took.

class Timeline {
  // bars: the element that holds the bars; top: the element that says how long the longest one is
  constructor(bars, top, total) {
    Object.assign(this, { bars, top, total, longest: 0, seconds: [] });
    bars.replaceChildren(
      ...Array.from({ length: total }, (_, index) => {
        const bar = document.createElement("span");
        bar.style.setProperty("--unit", unitColour(index, total));
        return bar;
      }),
    );
    top.textContent = "";
    bars.setAttribute("aria-label", `Time per unit: none of ${total} units is made yet`);
  }

  add(index, [denoise, clean, decode]) {
    const parts = { denoise, clean, decode };
    const bar = this.bars.children[index];
    if (!bar) return;
    this.seconds[index] = denoise + clean + decode;
    bar.title = `Unit ${index + 1}: denoising ${denoise.toFixed(2)} s, clean pass ${clean.toFixed(2)} s, decoding ${decode.toFixed(2)} s`;
    bar.replaceChildren(
      ...Object.entries(parts).map(([name, seconds]) => {
        const part = document.createElement("i");
        part.className = "va-" + name;
        part.style.flexGrow = 1000 * seconds; // below 1 in all they would leave a gap
        return part;
      }),
    );
    this.longest = Math.max(...this.seconds.filter((s) => s !== undefined));
    this.seconds.forEach((s, i) => (this.bars.children[i].style.height = `${(100 * s) / this.longest}%`));
    this.top.textContent = `${this.longest.toFixed(2)} s`;
    const made = this.seconds.filter((s) => s !== undefined);
    const mean = made.reduce((a, b) => a + b, 0) / made.length;
    this.bars.setAttribute("aria-label", `Time per unit: ${made.length} of ${this.total} made, ${mean.toFixed(2)} s on average`);
  }
}
