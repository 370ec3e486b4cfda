"""MP4 files through PyAV: written atomically, with the settings of the clip inside, and read back.

Shapes: T pictures, H/W height and width; pixels are uint8 RGB.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

_SETTINGS_KEY = "comment"  # the one free-text field that every MP4 reader keeps
_BT709 = 1


def write_mp4(
    path: str | Path,
    video_THWC: np.ndarray | Iterable[np.ndarray],
    fps: float,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Writes H.264 (yuv420p, bt709, index in front so that it plays while it loads).

    video_THWC: uint8 [T, H, W, 3], or pictures [H, W, 3] one by one; sides even. settings: JSON-like, kept in the file.
    The file appears under its name only once complete. Raises ValueError for pictures that cannot be encoded.
    """
    import av

    path = Path(path)
    temporary = path.parent / f".{uuid.uuid4().hex}.mp4"
    try:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            if settings is not None:
                container.metadata[_SETTINGS_KEY] = json.dumps(dict(settings), ensure_ascii=False, sort_keys=True)
            stream = None
            for picture_HWC in video_THWC:
                picture_HWC = _checked(picture_HWC)
                stream = stream or _new_stream(container, fps, *picture_HWC.shape[:2])
                frame = av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
                container.mux(stream.encode(frame))
            if stream is None:
                raise ValueError("there is no picture to write")
            container.mux(stream.encode(None))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
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


def _checked(picture_HWC: Any) -> np.ndarray:
    picture = np.ascontiguousarray(picture_HWC)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture is uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
    if picture.shape[0] % 2 or picture.shape[1] % 2:
        raise ValueError(f"H.264 needs even sides, not {picture.shape[1]}x{picture.shape[0]}")
    return picture


def _new_stream(container: Any, fps: float, height: int, width: int) -> Any:
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "fast"})
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
