// The pictures of one film: a canvas per frame, painted region by region, and what is known about each frame.
// Of a long film only what is near the picture on the screen is a canvas; what is final is kept as the JPEG it came as.

const CELLS = 32; // a frame's state is kept on a grid of this many cells a side
const EXACT = new Uint8Array(CELLS * CELLS).fill(2);
const MOST_CANVASES = 240; // films with more pictures are long
const AHEAD = 12, BEHIND = 4; // decoded around the picture on the screen
const MOST_BYTES = 192 * 2 ** 20; // of JPEGs

// A picture that can be drawn and wants to be closed. ImageDecoder is three times as fast as a Blob, which takes a way
// through the browser's other processes, but exists only on pages of https and of this machine.
async function decodeJpeg(jpeg) {
  const type = "image/jpeg";
  if (!window.ImageDecoder) return createImageBitmap(new Blob([jpeg], { type }));
  const decoder = new ImageDecoder({ data: jpeg, type });
  try {
    return (await decoder.decode()).image;
  } finally {
    decoder.close();
  }
}

class FrameStore {
  constructor(width, height, count) {
    Object.assign(this, { width, height, count, first: 0, last: -1, bytes: 0 });
    this.pictures = new Map(); // frame -> canvas, or what was decoded if it was packed
    this.cells = new Map();
    this.packed = count > MOST_CANVASES ? new Map() : null; // frame -> JPEG
    this.coming = new Set(); // frames that are being decoded
    this.spare = [];
  }

  // Paints a picture into rectangle [x, y, w, h] of a frame, scaled to fill it.
  paint(frame, bitmap, [x, y, w, h], preview) {
    if (!this.cells.has(frame)) this.cells.set(frame, new Uint8Array(CELLS * CELLS));
    this.canvas(frame).getContext("2d").drawImage(bitmap, x, y, w, h);
    const cells = this.cells.get(frame), value = preview ? 1 : 2;
    const [left, right] = [x, x + w].map((v) => Math.round((v * CELLS) / this.width));
    const [top, bottom] = [y, y + h].map((v) => Math.round((v * CELLS) / this.height));
    for (let row = top; row < bottom; row++) cells.fill(value, row * CELLS + left, row * CELLS + right);
    this.last = Math.max(this.last, frame);
  }

  // Keeps the JPEG of a whole and final picture, to be decoded when it is due.
  pack(frame, jpeg) {
    this.release(frame);
    this.packed.set(frame, jpeg);
    this.cells.set(frame, EXACT);
    this.bytes += jpeg.length;
    this.last = Math.max(this.last, frame);
  }

  // Decodes what is packed around a frame, and lets go of what is farther away. onReady(frame): it can be shown now.
  near(frame, onReady) {
    if (!this.packed) return;
    for (const other of this.pictures.keys()) {
      if (this.packed.has(other) && (other < frame - BEHIND || other > frame + 2 * AHEAD)) this.release(other);
    }
    for (let due = frame; due < frame + AHEAD; due++) {
      const jpeg = this.packed.get(due);
      if (!jpeg || this.pictures.has(due) || this.coming.has(due)) continue;
      this.coming.add(due);
      decodeJpeg(jpeg).then((picture) => {
        this.coming.delete(due);
        if (!this.packed.has(due)) return picture.close();
        this.pictures.set(due, picture);
        onReady(due);
      });
    }
  }

  // Forgets the pictures before a frame, and older ones that are too many to keep.
  forget(frame) {
    for (; this.first < Math.min(frame, this.last) || this.bytes > MOST_BYTES; this.first++) {
      this.bytes -= this.packed.get(this.first)?.length ?? 0;
      this.packed.delete(this.first);
      this.release(this.first);
      this.cells.delete(this.first);
    }
  }

  // The canvas of a frame: its own, one that is not needed any more, or a new one.
  canvas(frame) {
    if (!this.pictures.has(frame)) {
      const canvas = this.spare.pop() ?? document.createElement("canvas");
      canvas.width = this.width; // which also clears it
      canvas.height = this.height;
      this.pictures.set(frame, canvas);
    }
    return this.pictures.get(frame);
  }

  release(frame) {
    const picture = this.pictures.get(frame);
    if (picture?.getContext) this.spare.push(picture);
    else picture?.close();
    this.pictures.delete(frame);
  }

  // Lets go of all pictures; another film is shown in this place.
  clear() {
    for (const frame of [...this.pictures.keys()]) this.release(frame);
    this.packed?.clear();
  }

  // "none", "part" (some of it is painted), "preview" (all of it, some not final) or "exact".
  state(frame) {
    const cells = this.cells.get(frame);
    if (!cells) return "none";
    if (cells === EXACT) return "exact";
    if (cells.includes(0)) return "part";
    return cells.includes(1) ? "preview" : "exact";
  }

  hasPreview(frame) {
    return Boolean(this.cells.get(frame)?.includes(1));
  }

  // The nearest frame at or before this one that has a picture, or -1.
  nearest(frame) {
    while (frame >= this.first && !this.cells.has(frame)) frame--;
    return frame < this.first ? -1 : frame;
  }
}
