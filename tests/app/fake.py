"""A model without a network: films of moving stripes, made of the same events as the real ones, by the real engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.device import EngineDevice
from videoar.checkpoint import ModelInfo
from videoar.engine import Engine
from videoar.events import ClipFailed, ClipFinished, ClipStarted, Event, Patch, StepDone, UnitDecoded, UnitStarted
from videoar.plan import Grid, Plan, Unit, picture_range
from videoar.request import Request, resolve

GRID, SIDE, FRAMES = Grid(8, 8, 8), 128, 29
INFO = ModelInfo(
    name="stripes",
    plans=("cube",),
    sampler="few_step",
    steps=4,
    timesteps=(1000.0, 750.0, 500.0, 250.0),
    guidance_scale=1.0,
    height=SIDE,
    width=SIDE,
    frames=FRAMES,
    fps=8.0,
)


@dataclass
class FakeModel:
    """unit_seconds: how long a unit seems to take."""

    unit_seconds: float = 0.0
    info: ModelInfo = INFO

    def grid(self, request: Request) -> Grid:
        return GRID

    def multiples(self) -> tuple[int, int]:
        return 16, 16


def make_device(unit_seconds: float = 0.0) -> EngineDevice:
    """A device with the real engine around the fake model."""
    return EngineDevice(lambda: FakeModel(unit_seconds), lambda model: Engine(model, run=generate))


def film_of(seed: int) -> np.ndarray:
    """uint8 [T, H, W, 3]: what the fake makes of a seed. Colours are the seed's own, so that mixed-up films show."""
    rng = np.random.default_rng(seed)
    dark, light = rng.integers(20, 110, 3), rng.integers(120, 250, 3)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    frames = []
    for t in range(FRAMES):
        stripe = ((x + y // 2 + 4 * t) // 24) % 2 == 0
        disc = (x - 64 - 30 * np.cos(t / 4)) ** 2 + (y - 64 - 30 * np.sin(t / 4)) ** 2 < 22**2
        frames.append(np.where(disc[..., None], 255 - dark, np.where(stripe[..., None], light, dark)))
    return np.asarray(frames).astype(np.uint8)


def generate(model: FakeModel, request: Request, overlap: bool = True) -> Iterator[Event]:
    """The events of a film of stripes. A prompt with "fail" in it fails at its third unit."""
    settings, began = resolve(model, request), time.perf_counter()
    plan, total, steps = settings.plan, len(settings.plan.units), len(settings.sigmas)
    video = film_of(settings.seed)
    size = {"width": SIDE, "height": SIDE, "frames": FRAMES, "fps": 8.0}
    sampling = {"steps": steps, "guidance_scale": 1.0, "window": None, "sink": 0, "model": model.info.name}
    yield ClipStarted(request=request, plan=plan, seed=settings.seed, unit_total=total, **size, **sampling)
    first, shown = 0.0, 0
    for index, unit in enumerate(plan.units):
        made = list(_previews(plan, unit, video))
        region = made[0].x, made[0].y, made[0].width, made[0].height
        yield UnitStarted(index, total, unit, region, picture_range(unit.frames[0], unit.frames[-1] + 1))
        for step in range(steps):
            time.sleep(model.unit_seconds / steps)
            yield StepDone(index, total, step, steps)
        if "fail" in request.prompt and index == 2:
            yield ClipFailed("The device is out of memory: choose a smaller size.")
            return
        complete = plan.complete_frames(index)
        if complete > shown:
            start, stop = picture_range(shown, complete)
            made.append(Patch(start, video[start:stop], 0, 0, SIDE, SIDE, preview=False))
            shown = complete
        first = first or time.perf_counter() - began
        parts = [model.unit_seconds * share * (1 + 0.2 * np.sin(index)) for share in (0.7, 0.1, 0.2)]
        yield UnitDecoded(index, total, tuple(made), *parts, cache_bytes=1000 * index)
    yield ClipFinished(settings.seed, total, time.perf_counter() - began, first, video)


def _previews(plan: Plan, unit: Unit, video: np.ndarray) -> Iterator[Patch]:
    """The rectangle that a unit covers, darkened because it is a preview; coarse levels are small pictures."""
    scale = plan.scales[unit.level]
    cell = SIDE // GRID.H * scale
    (top, bottom), (left, right) = ([cell * edge for edge in span] for span in (unit.rows, unit.cols))
    for latent in unit.frames:
        start, stop = picture_range(latent, latent + 1)
        frames = video[start:stop, top:bottom:scale, left:right:scale] // 2
        yield Patch(start, frames, left, top, right - left, bottom - top, preview=True)
