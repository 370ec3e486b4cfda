"""Turns the events of a film into small binary messages for the browser's player, and back again.

A message is `u32 head length | u32 body length | head | body`, little-endian, with a JSON head. The kinds of head:

    clip   a film begins: its panes with size, frames, fps, seed and the picture of the plan
    unit   a unit is being made: pane, index, region in film pixels, range of frames
    step   a denoising step of the unit is done: pane, unit, step, steps
    paint  pixels of a unit: pane, unit, first frame, rectangle, preview or exact; the body is one JPEG per frame
    done   a unit is finished: pane, index, seconds of denoising, clean pass and decoding, seconds since the beginning
    film   the finished MP4 (stays on the server; the page gets it as a file)
    end    the film is over: done, stopped or failed

A picture smaller than its rectangle is scaled up by the viewer, so coarse levels travel at their own size.
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from videoar.events import ClipFailed, ClipFinished, ClipStarted, Event, StepDone, UnitDecoded, UnitStarted
from videoar.plan import Plan
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


def messages(events: Iterable[Event], label: str = "", pane: int = 0) -> Iterator[Message]:
    """The messages of one film, in order; ends with an `end` message unless the events stop early.

    events: what `videoar.generate.generate` or an engine session yields; label: shown above the pane.
    """
    started: ClipStarted | None = None
    clock = time.perf_counter()
    for event in events:
        if isinstance(event, ClipStarted):
            started, clock = event, time.perf_counter()
            yield {"kind": "clip", "panes": [_pane(event, label)], "settings": event.settings()}, b""
        elif isinstance(event, UnitStarted):
            head = {"kind": "unit", "pane": pane, "unit": event.index}
            yield head | {"region": list(event.region), "frames": list(event.frame_range)}, b""
        elif isinstance(event, StepDone):
            yield {"kind": "step", "pane": pane, "unit": event.index, "step": event.step + 1, "steps": event.steps}, b""
        elif isinstance(event, UnitDecoded):
            for patch in event.patches:
                rectangle = [patch.x, patch.y, patch.width, patch.height]
                head = {"kind": "paint", "pane": pane, "unit": event.index, "first": patch.first_frame, "at": rectangle}
                pictures = [jpeg(frame) for frame in patch.frames]
                sizes = [len(picture) for picture in pictures]
                yield head | {"preview": bool(patch.preview), "sizes": sizes}, b"".join(pictures)
            seconds = [round(float(s), 4) for s in (event.denoise_s, event.clean_s, event.decode_s)]
            elapsed = round(time.perf_counter() - clock, 4)
            yield {"kind": "done", "pane": pane, "unit": event.index, "seconds": seconds, "elapsed": elapsed}, b""
        elif isinstance(event, ClipFinished):
            assert started is not None, "a film cannot finish before it has started"
            film = started.settings() | _summary(event)
            yield {"kind": "film", "settings": film}, mp4(event.video, started.fps, film)
            yield {"kind": "end", "pane": pane, "status": "done", **_summary(event)}, b""
        elif isinstance(event, ClipFailed):
            yield {"kind": "end", "pane": pane, "status": "failed", "message": event.message}, b""


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


def plan_picture(plan: Plan) -> dict[str, Any]:
    """What the page draws of a plan: the grid and every unit as boxes, in finest-level tokens.

    A unit whose frames are not neighbours (key-detail) has one run `[start, stop)` of frames per box.
    """
    units = []
    for unit in plan.units:
        scale = plan.scales[unit.level]
        rows = [min(row * scale, plan.grid.H) for row in unit.rows]
        cols = [min(col * scale, plan.grid.W) for col in unit.cols]
        box = {"level": unit.level, "runs": _runs(unit.frames), "rows": rows, "cols": cols}
        units.append(box | {"tokens": unit.size()})
    return {"grid": list(plan.grid), "scales": list(plan.scales), "units": units}


def _runs(frames: tuple[int, ...]) -> list[list[int]]:
    """Half-open ranges of neighbouring numbers: (0, 1, 4) becomes [[0, 2], [4, 5]]."""
    ranges = []
    for _, group in groupby(enumerate(frames), key=lambda pair: pair[1] - pair[0]):
        run = [frame for _, frame in group]
        ranges.append([run[0], run[-1] + 1])
    return ranges


def _pane(event: ClipStarted, label: str) -> dict[str, Any]:
    size = {"width": event.width, "height": event.height, "frames": event.frames, "fps": event.fps}
    # As text: a seed may be larger than the whole numbers that JavaScript keeps exactly.
    seed = {"seed": str(event.seed)}
    return {"label": label, "prompt": event.request.prompt} | size | seed | {"plan": plan_picture(event.plan)}


def _summary(event: ClipFinished) -> dict[str, Any]:
    return {"seconds": round(event.seconds, 3), "first_picture_seconds": round(event.first_frame_s, 3)}
