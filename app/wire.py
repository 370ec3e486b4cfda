"""Turns the turns of a race into small binary messages for the browser's player, and back again.

A message is `u32 head length | u32 body length | head | body`, little-endian, with a JSON head. The kinds of head:

    clip   a run begins: a pane for each contender with size, frames, fps, seed, settings and the picture of the plan
    unit   a unit is being made: pane, index, region in film pixels, range of frames
    step   a denoising step of the unit is done: pane, unit, step, steps
    paint  pixels of a unit: pane, unit, first frame, rectangle, preview or exact; the body is one JPEG per frame
    switch from this unit on another prompt rules: pane, unit, first frame, prompt, seconds
    done   a unit is finished: pane, index, seconds of denoising, clean pass, decoding and encoding, bytes of the cache
    film   a finished MP4, of films that are no longer than a clip (stays on the server; the page gets it as a file)
    end    a contender's film is over: done or failed
    over   the run is over (from app.runs): done, stopped or failed, and its figures

Heads from `unit` to `end` hold `clock`, the contender's device time in seconds. docs/how-it-works.md lists all fields.
A picture smaller than its rectangle is scaled up by the viewer, so coarse levels travel at their own size.
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.plans import labels, plan_picture
from videoar.events import (
    ClipFailed,
    ClipFinished,
    ClipStarted,
    PromptSwitched,
    StepDone,
    Turn,
    UnitDecoded,
    UnitStarted,
)
from videoar.video import write_mp4

Message = tuple[dict[str, Any], bytes]

_LENGTHS = struct.Struct("<II")
_SMALL_PICTURE = 256 * 256


def pack(head: dict[str, Any], body: bytes = b"") -> bytes:
    """One message as bytes."""
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    return _LENGTHS.pack(len(text), len(body)) + text + body


def unpack(data: bytes) -> Iterator[Message]:
    """The messages in a run of whole messages."""
    start = 0
    while start < len(data):
        head_size, body_size = _LENGTHS.unpack_from(data, start)
        start += _LENGTHS.size
        head = json.loads(data[start : start + head_size])
        start += head_size
        yield head, data[start : start + body_size]
        start += body_size


def messages(turns: Iterable[Turn], contenders: int = 1) -> Iterator[Message]:
    """The messages of a run, in order, up to an `end` for each contender unless the turns stop early.

    turns: of `videoar.race.race` or an engine session; contenders: how many there are.
    """
    started: list[ClipStarted] = []
    for turn in turns:
        event, about = turn.event, {"pane": turn.contender, "clock": round(turn.device_s, 4)}
        if isinstance(event, ClipStarted):
            started.append(event)
            if len(started) == contenders:
                yield {"kind": "clip", "panes": list(map(_pane, started, labels(started)))}, b""
        elif isinstance(event, UnitStarted):
            place = {"region": list(event.region), "frames": list(event.frame_range)}
            yield {"kind": "unit", **about, "unit": event.index, **place}, b""
        elif isinstance(event, StepDone):
            yield {"kind": "step", **about, "unit": event.index, "step": event.step + 1, "steps": event.steps}, b""
        elif isinstance(event, PromptSwitched):
            said = {"unit": event.index, "first": event.first_frame, "prompt": event.prompt}
            yield {"kind": "switch", **about, **said, "seconds": round(event.seconds, 4)}, b""
        elif isinstance(event, UnitDecoded):
            yield from _decoded(event, about)
        elif isinstance(event, ClipFinished):
            began, times = started[turn.contender], {"seconds": round(event.seconds, 3)}
            settings = began.settings() | times | {"device_seconds": about["clock"]}
            if len(event.video):
                yield {"kind": "film", **about, "settings": settings}, mp4(event.video, began.fps, settings)
            yield {"kind": "end", **about, "status": "done", **times}, b""
        elif isinstance(event, ClipFailed):
            yield {"kind": "end", **about, "status": "failed", "message": event.message}, b""


def _decoded(event: UnitDecoded, about: dict[str, Any]) -> Iterator[Message]:
    """A unit's pixels, and then its figures."""
    encode_s = 0.0
    for patch in event.patches:
        began = time.perf_counter()
        pictures = [jpeg(frame) for frame in patch.frames]
        encode_s += time.perf_counter() - began
        head = {"kind": "paint", **about, "unit": event.index, "first": patch.first_frame, "preview": patch.preview}
        area = [patch.x, patch.y, patch.width, patch.height]
        yield head | {"area": area, "sizes": [len(picture) for picture in pictures]}, b"".join(pictures)
    seconds = [round(float(s), 4) for s in (event.denoise_s, event.clean_s, event.decode_s, encode_s)]
    yield {"kind": "done", **about, "unit": event.index, "seconds": seconds, "cache": event.cache_bytes}, b""


def mp4(video_THWC: np.ndarray, fps: float, film_settings: dict[str, Any]) -> bytes:
    """The frames as an MP4 file with the settings inside."""
    with tempfile.TemporaryDirectory(prefix="videoar-") as folder:
        path = Path(folder) / "film.mp4"
        write_mp4(path, video_THWC, fps, film_settings)
        return path.read_bytes()


def jpeg(frame_HWC: np.ndarray) -> bytes:
    """One picture. Small ones keep their full colour resolution, without which the edges of small units would smear."""
    small = frame_HWC.shape[0] * frame_HWC.shape[1] <= _SMALL_PICTURE
    options = {"quality": 95, "subsampling": 0} if small else {"quality": 87}
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame_HWC)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def pictures(sizes: list[int], body: bytes) -> list[np.ndarray]:
    """The pictures of a `paint` message, uint8 [h, w, 3] each."""
    ends = np.cumsum(sizes, dtype=int).tolist()
    jpegs = (body[end - size : end] for end, size in zip(ends, sizes, strict=True))
    return [np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs]


def _pane(event: ClipStarted, label: str) -> dict[str, Any]:
    size = {"width": event.width, "height": event.height, "frames": event.frames, "fps": event.fps}
    # The seed as text: it may be larger than the whole numbers that JavaScript keeps exactly.
    about = {
        "label": label,
        "units": event.unit_total,
        "prompt": event.request.prompt,
        "seed": str(event.seed),
        "settings": event.settings(),
    }
    return about | size | {"plan": plan_picture(event.plan)}
