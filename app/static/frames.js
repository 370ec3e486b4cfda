// The pictures of one film: a canvas per frame, painted region by region, and what is known about each frame.

const CELLS = 32; // a frame's state is kept on a grid of this many cells a side

class FrameStore {
  constructor(width, height, count) {
    Object.assign(this, { width, height, count, last: -1 });
    this.pictures = new Map();
    this.cells = new Map();
  }

  // Paints a picture into rectangle [x, y, w, h] of a frame, scaled to fill it.
  paint(frame, bitmap, [x, y, w, h], preview) {
    if (!this.pictures.has(frame)) {
      const canvas = document.createElement("canvas");
      canvas.width = this.width;
      canvas.height = this.height;
      this.pictures.set(frame, canvas);
      this.cells.set(frame, new Uint8Array(CELLS * CELLS));
    }
    this.pictures.get(frame).getContext("2d").drawImage(bitmap, x, y, w, h);
    const cells = this.cells.get(frame), value = preview ? 1 : 2;
    const [left, right] = [x, x + w].map((v) => Math.round((v * CELLS) / this.width));
    const [top, bottom] = [y, y + h].map((v) => Math.round((v * CELLS) / this.height));
    for (let row = top; row < bottom; row++) cells.fill(value, row * CELLS + left, row * CELLS + right);
    this.last = Math.max(this.last, frame);
  }

  // "none", "part" (some of it is painted), "preview" (all of it, some not final) or "exact".
  state(frame) {
    const cells = this.cells.get(frame);
    if (!cells) return "none";
    if (cells.includes(0)) return "part";
    return cells.includes(1) ? "preview" : "exact";
  }

  hasPreview(frame) {
    return Boolean(this.cells.get(frame)?.includes(1));
  }

  // The nearest frame at or before this one that has a picture, or -1.
  nearest(frame) {
    while (frame >= 0 && !this.pictures.has(frame)) frame--;
    return frame;
  }
}
