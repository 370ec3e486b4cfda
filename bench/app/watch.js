// What the bench sees of the page, from outside of its code: bytes that arrive, pictures that are decoded, units that
// are on a canvas (read back from its pixels). All times are milliseconds of the system's clock.

window.bench = { arrived: [], decoded: [], shown: [], bytes: 0, playback: null };

(() => {
  const now = () => performance.timeOrigin + performance.now();
  const { bench, fetch, createImageBitmap, ImageDecoder } = window;

  // Of the stream of a run: how many bytes there were when.
  window.fetch = async (...args) => {
    const response = await fetch(...args);
    if (!response.url.includes("/gradio_api/units/")) return response;
    const getReader = response.body.getReader.bind(response.body);
    response.body.getReader = () => {
      const reader = getReader(), read = reader.read.bind(reader);
      reader.read = async () => {
        const part = await read();
        if (!bench.playback && part.value) bench.arrived.push([(bench.bytes += part.value.length), now()]);
        return part;
      };
      return reader;
    };
    return response;
  };

  // One time for each picture, in the order in which they were given to a decoder.
  async function timed(decoding) {
    if (bench.playback) return decoding;
    const place = bench.decoded.push(null) - 1, picture = await decoding;
    bench.decoded[place] = now();
    return picture;
  }
  window.createImageBitmap = (...args) => timed(createImageBitmap(...args));
  const { decode } = ImageDecoder?.prototype ?? {};
  if (decode) ImageDecoder.prototype.decode = function (...args) {
    return timed(decode.apply(this, args));
  };

  // The stamp in the corner of a picture (see scripted.py): its number, or -1.
  function stamp(paper) {
    const pixels = paper.getImageData(0, 4, 32, 1).data;
    const [clip, high, low, check] = [4, 12, 20, 28].map((x) => pixels[4 * x] >> 4);
    return (clip + high + low) % 16 === check ? 16 * high + low : -1;
  }

  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (...args) {
    draw.apply(this, args);
    const screen = this.canvas.closest(".va-screen");
    if (!screen) return;
    if (bench.playback) return bench.playback(this);
    const unit = stamp(this);
    if (screen.benchUnit === unit) return;
    screen.benchUnit = unit;
    const pane = [...document.querySelectorAll(".va-screen")].indexOf(screen);
    bench.shown.push([pane, unit, now()]);
  };

  // From now on only the times between the pictures that follow each other on the screen.
  bench.watchPlayback = () => {
    const found = { pictures: 0, skipped: 0, unread: 0, gaps: {}, long: [], since: now() };
    let last = -1, at = 0;
    bench.playback = (paper) => {
      const number = stamp(paper), time = now();
      if (number === last) return;
      if (number < 0) return void found.unread++;
      if (last >= 0) {
        const gap = time - at, rounded = Math.round(gap);
        found.pictures++;
        if ((number - last + 256) % 256 > 1) found.skipped++;
        found.gaps[rounded] = (found.gaps[rounded] ?? 0) + 1;
        if (gap > 150) found.long.push([Math.round(time - found.since), rounded]);
      }
      last = number;
      at = time;
    };
    return (bench.found = found);
  };
})();
