"""Turns finished units into patches of pixels: exact frames as soon as they are complete, previews of the rest.

Shapes: T pictures, h/w height and width of a patch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch.nn import functional as F

from .canvas import Canvas
from .decoder import StreamDecoder
from .events import Patch, UnitDecoded
from .plan import PICTURES_PER_LATENT, Unit, picture_range, runs
from .stopwatch import Stopwatch

# Latent frames in front of a region's preview that fill the decoder's memory.
_WARM_UP = 1

Work = Callable[[], list[Patch]]


class Showing:
    """One clip's decoding, in the order of its units, by default on a thread of its own.

    The latents a unit needs are copied when it is handed over, so that the generator may go on writing the canvas.
    total: number of units, for the events. before: latents [1, C, n, h, w] of a film that this one continues; they are
    decoded for the decoder's memory alone.
    """

    def __init__(
        self,
        decoder: StreamDecoder,
        canvas: Canvas,
        scale: int,
        total: int | None,
        previews: bool,
        overlap: bool,
        before: torch.Tensor | None = None,
    ) -> None:
        self.decoder, self.canvas, self.scale, self.previews = decoder, canvas, scale, previews
        self._total, self._before = total, before
        self._everything = (0, canvas.latents.shape[-2], 0, canvas.latents.shape[-1])
        self._shown = canvas.plan.start  # latent frames whose exact pixels are on their way
        self._origin = picture_range(0, canvas.plan.start)[1]  # pictures of what came before
        self._pool = ThreadPoolExecutor(1, "videoar-decode") if overlap else None
        self._jobs: deque[tuple[int, Future]] = deque()
        self._times: dict[int, tuple[Stopwatch, Stopwatch, int]] = {}
        device = canvas.latents.device
        self._stream = torch.cuda.Stream(device) if overlap and device.type == "cuda" else None

    def show(self, index: int, unit: Unit, complete: int) -> None:
        """Hands over a unit that is on the canvas; `complete` leading latent frames are whole now."""
        work: list[Work] = []
        if self._before is not None:
            work.append(self._recall(self._before))
            self._before = None
        if complete > self._shown:
            exact = self.canvas.take(range(self._shown, complete))
            first = picture_range(0, self._shown)[1]
            work.append(lambda: [self._patch(first, self.decoder.push(exact))])
            self._shown = complete
        left = [frame for frame in unit.frames if frame >= complete]
        if self.previews and left:
            box = self.canvas.box(unit)
            whole = box == self._everything
            coarser = self.canvas.plan.scales[unit.level]
            work.append(self._preview_frames(left, coarser) if whole else self._preview_region(left, box))
        self._submit(index, work)

    def times(self, index: int, denoised: Stopwatch, cleaned: Stopwatch, cache_bytes: int) -> None:
        """What the unit's generation took, for its event."""
        self._times[index] = (denoised, cleaned, cache_bytes)

    def ready(self, wait: bool = False) -> list[UnitDecoded]:
        """Events of the units that are decoded, in order. At most one unit is left behind the generator; wait: none."""
        events = []
        while self._jobs and self._jobs[0][0] in self._times:
            index, job = self._jobs[0]
            denoised, cleaned, cache_bytes = self._times[index]
            if not (wait or (job.done() and cleaned.done()) or len(self._jobs) > 1):
                break
            patches, seconds = job.result()
            self._jobs.popleft()
            del self._times[index]
            times = (denoised.seconds(), cleaned.seconds(), seconds)
            events.append(UnitDecoded(index, self._total, patches, *times, cache_bytes))
        return events

    def close(self) -> None:
        """Drops what has not been decoded. Does not wait."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _recall(self, latents: torch.Tensor) -> Work:
        def work() -> list[Patch]:
            self.decoder.push(latents)
            return []

        return work

    def _preview_frames(self, frames: list[int], coarser: int = 1) -> Work:
        """Whole frames ahead of the film: decoded as if they followed one another from where it is exact.

        coarser: how much coarser in space than the film their level is; so much smaller are the pictures.
        """
        latents = self.canvas.take(frames)
        starting = self._shown == 0

        def work() -> list[Patch]:
            pictures = _shrunk(self.decoder.preview(latents), self.scale * coarser // 2 if coarser > 1 else 1)
            patches, used = [], 0
            for start, stop in runs(frames):
                first, end = picture_range(start, stop)
                if starting and not used and start:
                    # A stream's first latent frame gives one picture only: the last one of its place.
                    first += PICTURES_PER_LATENT - 1
                count = end - first
                patches.append(self._patch(first, pictures[:, used : used + count], preview=True))
                used += count
            return patches

        return work

    def _preview_region(self, frames: list[int], box: tuple[int, int, int, int]) -> Work:
        """A part of successive frames, decoded with its surroundings as far as they are known."""
        first, end = frames[0], frames[-1] + 1
        warm_up = min(first, _WARM_UP)
        filled = self.canvas.filled(first - warm_up, end)
        start = picture_range(0, first)[1]
        return lambda: [self._patch(start, self.decoder.preview_region(filled, box, warm_up), box, preview=True)]

    def _patch(self, first: int, video_BTHWC: torch.Tensor, box=None, preview: bool = False) -> Patch:
        y0, y1, x0, x1 = (side * self.scale for side in box or self._everything)
        return Patch(first - self._origin, video_BTHWC[0].numpy(), x0, y0, x1 - x0, y1 - y0, preview)

    def _submit(self, index: int, work: list[Work]) -> None:
        if self._pool is None:
            job: Future = Future()
            job.set_result(self._decode(work))
        else:
            here = torch.cuda.current_stream(self._stream.device) if self._stream else None
            job = self._pool.submit(self._decode_beside, work, here.record_event() if here else None)
        self._jobs.append((index, job))

    @torch.inference_mode()
    def _decode(self, work: list[Work]) -> tuple[tuple[Patch, ...], float]:
        start = time.perf_counter()
        patches = tuple(patch for item in work for patch in item())
        return patches, time.perf_counter() - start

    def _decode_beside(self, work: list[Work], written: Any) -> tuple[tuple[Patch, ...], float]:
        if self._stream is None:
            return self._decode(work)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(written)
            return self._decode(work)


def _shrunk(video_BTHWC: torch.Tensor, factor: int) -> torch.Tensor:
    """Pictures that are so many times smaller; each pixel is the mean of what it stands for.

    What a decoder makes of an enlarged coarse latent repeats the inside of one block in all of them: a pattern that
    means nothing and that disappears in the mean.
    """
    if factor == 1:
        return video_BTHWC
    height, width = (max(1, round(side / factor)) for side in video_BTHWC.shape[2:4])
    small = F.interpolate(video_BTHWC[0].movedim(3, 1).float(), (height, width), mode="area")
    return small.round().to(torch.uint8).movedim(1, 3).contiguous()[None]
