"""A model without a network: films of moving stripes, made of the same events as the real ones, by the real engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.device import EngineDevice
from videoar.checkpoint import ModelInfo
from videoar.engine import Engine
from videoar.events import (
    ClipFailed,
    ClipFinished,
    ClipStarted,
    Event,
    Patch,
    PromptSwitched,
    StepDone,
    UnitDecoded,
    UnitStarted,
)
from videoar.plan import Grid, Plan, Unit, latent_count, picture_range
from videoar.request import Request, Settings, clean_prompt, resolve

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

    def grid(self, request: Request | ModelInfo) -> Grid:
        return Grid(latent_count(request.frames or FRAMES), GRID.H, GRID.W)

    def multiples(self) -> tuple[int, int]:
        return 16, 16


def make_device(unit_seconds: float = 0.0) -> EngineDevice:
    """A device with the real engine around the fake model."""
    return EngineDevice(lambda: FakeModel(unit_seconds), lambda model: Engine(model, run=generate))


def film_of(seed: int) -> np.ndarray:
    """uint8 [T, H, W, 3]: what the fake makes of a seed. Colours are the seed's own, so that mixed-up films show."""
    return pictures_of(seed, 0, FRAMES)


def pictures_of(seed: int, start: int, stop: int) -> np.ndarray:
    """uint8 [T, H, W, 3]: the same for any part of a longer film."""
    rng = np.random.default_rng(seed)
    dark, light = rng.integers(20, 110, 3), rng.integers(120, 250, 3)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    frames = []
    for t in range(start, stop):
        stripe = ((x + y // 2 + 4 * t) // 24) % 2 == 0
        disc = (x - 64 - 30 * np.cos(t / 4)) ** 2 + (y - 64 - 30 * np.sin(t / 4)) ** 2 < 22**2
        frames.append(np.where(disc[..., None], 255 - dark, np.where(stripe[..., None], light, dark)))
    return np.asarray(frames).astype(np.uint8)


class generate(Iterator[Event]):
    """The events of a film of stripes. A prompt with "fail" in it fails at its third unit; a new one turns it dark."""

    def __init__(self, model: FakeModel, request: Request, overlap: bool = True, keep: bool = True) -> None:
        self._wish: str | None = None
        self._events = self._run(model, request, resolve(model, request), keep)

    def __next__(self) -> Event:
        return next(self._events)

    def switch(self, prompt: str) -> None:
        self._wish = clean_prompt(prompt)

    def close(self) -> None:
        self._events.close()

    def _run(self, model: FakeModel, request: Request, settings: Settings, keep: bool) -> Iterator[Event]:
        began, total, steps = time.perf_counter(), settings.unit_total(), len(settings.sigmas)
        size = {"width": SIDE, "height": SIDE, "frames": settings.frames, "fps": 8.0}
        about = {"window": settings.window, "sink": settings.sink, "model": model.info.name}
        sampling = {"steps": steps, "guidance_scale": 1.0, **about}
        yield ClipStarted(request=request, plan=settings.plan, seed=settings.seed, unit_total=total, **size, **sampling)
        origin = picture_range(0, settings.plan.start)[1]
        first, shown, index, dimmed = 0.0, settings.plan.start, 0, 1
        film: list[np.ndarray] = []
        for plan in settings.slabs():
            for place, unit in enumerate(plan.units):
                at = [picture - origin for picture in picture_range(unit.frames[0], unit.frames[-1] + 1)]
                if self._wish and plan.is_border(place):
                    dimmed, prompt, self._wish = 3, self._wish, None
                    yield PromptSwitched(index, at[0], prompt, 0.01)
                made = list(_previews(unit, plan, settings.seed, origin, dimmed))
                region = made[0].x, made[0].y, made[0].width, made[0].height
                yield UnitStarted(index, total, unit, region, (at[0], at[1]))
                for step in range(steps):
                    time.sleep(model.unit_seconds / steps)
                    yield StepDone(index, total, step, steps)
                if "fail" in request.prompt and index == 2:
                    yield ClipFailed("The device is out of memory: choose a smaller size.")
                    return
                complete = plan.complete_frames(place)
                if complete > shown:
                    start, stop = (picture - origin for picture in picture_range(shown, complete))
                    exact = pictures_of(settings.seed, start, stop) // dimmed
                    made.append(Patch(start, exact, 0, 0, SIDE, SIDE, preview=False))
                    film += [exact] if keep and not request.endless else []
                    shown = complete
                first = first or time.perf_counter() - began
                parts = [model.unit_seconds * share * (1 + 0.2 * np.sin(index)) for share in (0.7, 0.1, 0.2)]
                yield UnitDecoded(index, total, tuple(made), *parts, cache_bytes=1000 * index)
                index += 1
        video = np.concatenate(film or [np.empty((0, SIDE, SIDE, 3), np.uint8)])
        yield ClipFinished(settings.seed, index, time.perf_counter() - began, first, video)


def _previews(unit: Unit, plan: Plan, seed: int, origin: int, dimmed: int) -> Iterator[Patch]:
    """The rectangle that a unit covers, darkened because it is a preview; coarse levels are small pictures."""
    scale = plan.scales[unit.level]
    cell = SIDE // GRID.H * scale
    (top, bottom), (left, right) = ([cell * edge for edge in span] for span in (unit.rows, unit.cols))
    for latent in unit.frames:
        start, stop = (picture - origin for picture in picture_range(latent, latent + 1))
        frames = pictures_of(seed, start, stop)[:, top:bottom:scale, left:right:scale] // (2 * dimmed)
        yield Patch(start, frames, left, top, right - left, bottom - top, preview=True)
