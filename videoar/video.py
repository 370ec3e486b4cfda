"""MP4 files through PyAV: written while the film is made, with its settings inside, and read back.

Shapes: T pictures, H/W height and width; pixels are uint8 RGB.
"""

from __future__ import annotations

import itertools
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

_SETTINGS_KEY = "comment"  # the one free-text field that every MP4 reader keeps
_BT709 = 1
_LARGEST_SIDE = 8192


class Mp4Writer:
    """An MP4 that is written while its film is made: H.264, yuv420p, bt709, in constant memory.

    It grows in fragments of two seconds under another name (clip.mp4 as clip.partial.mp4; a name that is free), and can
    be played from there at any time, also when the process is killed. `finish` turns it into an ordinary file, with its
    index in front so that it plays while it loads, under the name that was asked for.

    path: where the film belongs. settings: JSON-like, kept in the file. Raises OSError if nothing can be written there.
    """

    def __init__(self, path: str | Path, fps: float, settings: Mapping[str, Any] | None = None) -> None:
        self.path, self.fps = Path(path), fps
        self.frames = 0
        self.partial = _free(self.path.with_suffix(".partial.mp4"))
        self._settings, self._stream = settings, None
        options = {"movflags": "+frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
        self._container = _open_to_write(self.partial, options, settings)

    def write(self, picture_HWC: np.ndarray) -> None:
        """Appends a picture, uint8 [H, W, 3] with even sides. Raises ValueError for one that cannot be encoded."""
        import av

        picture = _checked(picture_HWC)
        self._stream = self._stream or _new_stream(self._container, self.fps, *picture.shape[:2])
        assert self._stream is not None
        if picture.shape[:2] != (self._stream.height, self._stream.width):
            raise ValueError(f"all pictures of a film have one size, not {picture.shape[1]}x{picture.shape[0]} as well")
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def finish(self, settings: Mapping[str, Any] | None = None) -> None:
        """Completes the film and gives it its name. settings: replace those from the beginning."""
        if self._stream is None:
            self.discard()
            raise ValueError("there is no picture to write")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        whole = self.path.parent / f".{uuid.uuid4().hex}.mp4"
        try:
            _copy(self.partial, whole, self._settings if settings is None else settings)
            os.replace(whole, self.path)
        except BaseException:
            whole.unlink(missing_ok=True)
            raise
        self.partial.unlink()

    def discard(self) -> None:
        """Removes what has been written."""
        self._container.close()
        self.partial.unlink(missing_ok=True)


def write_mp4(
    path: str | Path,
    video_THWC: np.ndarray | Iterable[np.ndarray],
    fps: float,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Writes a whole film with Mp4Writer; if that fails, the old file stays and nothing else.

    video_THWC: uint8 [T, H, W, 3], or pictures [H, W, 3] one by one; sides even. settings: JSON-like, kept in the file.
    Raises ValueError for pictures that cannot be encoded.
    """
    writer = Mp4Writer(path, fps, settings)
    try:
        for picture_HWC in video_THWC:
            writer.write(picture_HWC)
        writer.finish()
    except BaseException:
        writer.discard()
        raise


def read_settings(path: str | Path) -> dict[str, Any] | None:
    """The settings inside an MP4, or None if there are none. Raises ValueError for what is no video file."""
    with _open(path) as container:
        text = container.metadata.get(_SETTINGS_KEY)
    try:
        settings = json.loads(text) if text else None
    except ValueError:
        return None
    return settings if isinstance(settings, dict) else None


def read_video(path: str | Path, max_frames: int | None = None) -> tuple[np.ndarray, float]:
    """Pictures uint8 [T, H, W, 3] and frames per second. Raises ValueError for what is no video file."""
    import av

    pictures: list[np.ndarray] = []
    with _open(path) as container:
        if not container.streams.video:
            raise ValueError(f"{Path(path).name} has no video stream")
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0)
        try:
            for frame in container.decode(stream):
                if max_frames is not None and len(pictures) >= max_frames:
                    break
                pictures.append(frame.to_ndarray(format="rgb24"))
        except av.FFmpegError as error:
            raise ValueError(f"{Path(path).name} is damaged: {error.strerror}") from error
    if not pictures:
        raise ValueError(f"{Path(path).name} has no pictures")
    return np.stack(pictures), rate


def read_pictures(path: str | Path, width: int, height: int, fps: float) -> Iterator[np.ndarray]:
    """The pictures of an image or video file one by one, uint8 [height, width, 3]: cut to shape, at another frame rate.

    An image is one picture. Raises ValueError for what is neither, for pictures that are too large, and for none.
    """
    image = _read_image(path)
    if image is not None:
        yield fit(image, width, height)
        return
    import av

    shown = 0
    with _open(path) as container:
        if not container.streams.video:
            raise ValueError(f"{Path(path).name} has no video stream")
        stream = container.streams.video[0]
        _check_size(path, stream.width, stream.height)
        rate = float(stream.average_rate or stream.base_rate or fps)
        begin = None
        try:
            for number, frame in enumerate(container.decode(stream)):
                time = number / rate if frame.time is None else frame.time
                begin = time if begin is None else begin
                # Within half a picture of its time, so that the file's last picture is never lost: it is the joint.
                due = int((time - begin) * fps + 0.5) + 1 - shown
                if due > 0:
                    picture = fit(frame.to_ndarray(format="rgb24"), width, height)
                    yield from [picture] * due
                    shown += due
        except av.FFmpegError as error:
            what = "is damaged" if shown else "is damaged, or neither a picture nor a video"
            raise ValueError(f"{Path(path).name} {what}: choose another file ({error.strerror})") from error
    if not shown:
        raise ValueError(f"{Path(path).name} has no pictures")


def fit(picture_HWC: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture uint8 [H, W, 3] scaled to a size; what is too wide or too high is cut off on both sides."""
    from PIL import Image

    h, w = picture_HWC.shape[:2]
    if (h, w) == (height, width):
        return picture_HWC
    scale = min(w / width, h / height)
    left, top = (w - width * scale) / 2, (h - height * scale) / 2
    box = (left, top, w - left, h - top)
    return np.asarray(Image.fromarray(picture_HWC).resize((width, height), Image.Resampling.LANCZOS, box=box))


def _read_image(path: str | Path) -> np.ndarray | None:
    """A still picture uint8 [H, W, 3]; None for a file that is none (a video, perhaps)."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    try:
        if not path.stat().st_size:
            raise ValueError(f"{path.name} is empty")
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                return None
            _check_size(path, *image.size)
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path.name} has too many pixels: make it smaller first") from error
    except (OSError, SyntaxError) as error:  # PIL's ways to say that a picture is cut short
        raise ValueError(f"cannot read {path.name}: {error}") from error


def _check_size(path: str | Path, width: int, height: int) -> None:
    if max(width, height) > _LARGEST_SIDE:
        raise ValueError(
            f"{Path(path).name} has {width}x{height} pixels, more than {_LARGEST_SIDE} a side: make it smaller first"
        )


def _checked(picture_HWC: Any) -> np.ndarray:
    picture = np.ascontiguousarray(picture_HWC)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture is uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
    if picture.shape[0] % 2 or picture.shape[1] % 2:
        raise ValueError(f"H.264 needs even sides, not {picture.shape[1]}x{picture.shape[0]}")
    return picture


def _free(path: Path) -> Path:
    """This path, or one with a number if there is such a file (perhaps all that is left of a film)."""
    names = itertools.chain([path], (path.with_stem(f"{path.stem}-{i}") for i in itertools.count(2)))
    return next(name for name in names if not name.exists())


def _open_to_write(path: Path, options: dict[str, str], settings: Mapping[str, Any] | None) -> Any:
    import av

    container = av.open(str(path), "w", format="mp4", options=options)
    if settings is not None:
        container.metadata[_SETTINGS_KEY] = json.dumps(dict(settings), ensure_ascii=False, sort_keys=True)
    return container


def _copy(source: Path, target: Path, settings: Mapping[str, Any] | None) -> None:
    """Packs the same encoded pictures into an ordinary MP4 file."""
    import av

    with av.open(str(source)) as old, _open_to_write(target, {"movflags": "+faststart"}, settings) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:  # the last one only says that there are no more
                packet.stream = stream
                new.mux(packet)


def _new_stream(container: Any, fps: float, height: int, width: int) -> Any:
    rate = Fraction(fps).limit_denominator(1001)
    # A fragment begins at every key frame; what x264 looks ahead is lost when the process is killed.
    options = {"crf": "16", "preset": "fast", "g": str(max(1, round(2 * fps))), "rc-lookahead": "8"}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    context.color_range = 1  # limited
    return stream


def _open(path: str | Path) -> Any:
    import av

    try:
        return av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"cannot read {Path(path).name} as a video: {error.strerror}") from error
