"""The one loop: request in, events out; everything a viewer sees is an event of it.

Shapes: B batch (2 with guidance: conditional, unconditional), N tokens of a unit, D token values.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from . import sampler
from .cache import KVCache
from .canvas import Canvas
from .checkpoint import Model
from .decoder import picture_range
from .events import ClipFailed, ClipFinished, ClipStarted, Event, Patch, StepDone, UnitDecoded, UnitStarted
from .noise import NoiseField
from .plan import Plan, Unit
from .request import Request, Settings, resolve
from .show import Showing

__all__ = [
    "ClipFailed",
    "ClipFinished",
    "ClipStarted",
    "Event",
    "Patch",
    "Request",
    "StepDone",
    "UnitDecoded",
    "UnitStarted",
    "generate",
]


def generate(
    model: Model, request: Request, *, previews: bool = True, overlap: bool = True, keep: bool = True
) -> Iterator[Event]:
    """Makes a film unit by unit: ClipStarted, for each unit UnitStarted, StepDone and UnitDecoded, then ClipFinished.

    Re-entrant: interleaved clips equal sequential ones, and the same request with the same seed gives the same pixels.
    UnitDecoded events come in the order of the units, each as soon as its pixels are there (the next unit may have
    started by then). Closing the iterator midway is safe. previews: also show what is not exact yet. overlap: decode on
    a second thread while the next unit is denoised. keep: hold all exact pictures for ClipFinished.video; without it
    (and for endless films) memory and time per unit do not grow with the film.

    Raises ValueError at once for a request that does not fit the model.
    """
    return _run(model, resolve(model, request), previews, overlap, keep and not request.endless)


@torch.inference_mode()
def _run(model: Model, settings: Settings, previews: bool, overlap: bool, keep: bool) -> Iterator[Event]:
    begin = time.perf_counter()
    total = settings.unit_total()
    yield _started(model, settings)
    denoiser = _Denoiser(model, settings)
    channels, scale = model.transformer.config.in_channels, model.vae.config.scale_factor_spatial
    scale_std = model.info.level_std(len(settings.plan.scales))
    canvas = Canvas(settings.plan, channels, model.patch, scale_std, model.device)
    showing = Showing(model.stream_decoder(), canvas, scale, total, previews, overlap)
    film: list[np.ndarray] = []
    first_frame_s = 0.0

    def arrived(decoded: list[UnitDecoded]) -> Iterator[UnitDecoded]:
        nonlocal first_frame_s
        for event in decoded:
            if keep:
                film.extend(patch.frames for patch in event.patches if not patch.preview)
            if event.patches and not first_frame_s:
                first_frame_s = time.perf_counter() - begin
            yield event

    try:
        places = ((slab, i) for slab in settings.slabs() for i in range(len(slab.units)))
        for index, (plan, place) in enumerate(places):
            unit = plan.units[place]
            if index and not place:
                canvas.advance(plan)
            y0, y1, x0, x1 = (side * scale for side in canvas.box(unit))
            pictures = picture_range(unit.frames[0], unit.frames[-1] + 1)
            yield UnitStarted(index, total, unit, (x0, y0, x1 - x0, y1 - y0), pictures)
            for step in denoiser.denoise(unit):
                yield StepDone(index, total, step, len(settings.sigmas))
                yield from arrived(showing.ready())
            # Shown before the clean pass: with the decoder on its own thread the two run side by side.
            complete = plan.complete_frames(place)
            canvas.put(unit, denoiser.tokens)
            showing.show(index, unit, complete)
            denoiser.remember(unit, complete, last=index + 1 == total)
            showing.times(index, denoiser.denoise_s, denoiser.clean_s, denoiser.cache.kept_bytes)
            # The first picture must not wait for the next unit, nor share the processor with it.
            yield from arrived(showing.ready(wait=index == 0))
        yield from arrived(showing.ready(wait=True))
    finally:
        showing.close()
    video = np.concatenate(film or [np.empty((0, settings.height, settings.width, 3), np.uint8)])
    yield ClipFinished(settings.seed, index + 1, time.perf_counter() - begin, first_frame_s, video)


def _started(model: Model, settings: Settings) -> ClipStarted:
    return ClipStarted(
        request=settings.request,
        plan=settings.plan,
        width=settings.width,
        height=settings.height,
        frames=settings.frames,
        fps=settings.fps,
        seed=settings.seed,
        unit_total=settings.unit_total(),
        steps=len(settings.sigmas),
        guidance_scale=settings.guidance_scale,
        window=settings.window,
        sink=settings.sink,
        model=model.info.name,
    )


class _Denoiser:
    """Turns noise into the tokens of unit after unit, against the cache of the earlier ones."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.transformer, self.settings, self.device = model.transformer, settings, model.device
        self.guidance = settings.guidance_scale
        prompts = [settings.request.prompt]
        if self.guidance != 1.0:
            prompts.append(settings.request.negative_prompt)
        text = model.text(prompts).to(self.device, self.transformer.dtype)
        self.text_kv = self.transformer.encode_text(text)
        self.batch = len(prompts)
        self.noise = NoiseField(settings.seed, settings.plan, self.transformer.config.in_channels, model.patch)
        self.cache: KVCache = self.transformer.new_cache(
            self.batch,
            window=settings.window,
            sink=settings.sink,
            relative=model.info.relative,
            capacity=_capacity(settings.plan, settings.window),
        )
        self.tokens = torch.empty(0)  # [1, N, D] of the last unit
        self.denoise_s = self.clean_s = 0.0

    def denoise(self, unit: Unit) -> Iterator[int]:
        """Yields the number of each step once it is done; afterwards `tokens` holds the unit."""
        positions = self.settings.plan.positions(unit)

        def network(x_BND: torch.Tensor, sigma: float) -> torch.Tensor:
            return self._forward(x_BND, 1000 * sigma, positions)

        def noise(step: int) -> torch.Tensor:
            return self.noise.tokens(unit, step).to(self.device)

        velocity = network if self.batch == 1 else sampler.guided(network, self.guidance)
        sigmas, self.denoise_s = self.settings.sigmas, 0.0
        if self.settings.sampler == "few_step":
            estimates = sampler.few_step(velocity, noise(0), sigmas, lambda step: noise(step + 1))
        else:
            solver = sampler.unipc if self.settings.sampler == "unipc" else sampler.euler
            estimates = solver(velocity, noise(0), sigmas)
        for step in range(len(sigmas)):
            # Only the work is timed: between two steps this generator may rest while others use the device.
            start = self._now()
            self.tokens = next(estimates)
            self.denoise_s += self._now() - start
            yield step

    def remember(self, unit: Unit, complete: int, last: bool) -> None:
        """The clean pass: the finished unit's keys and values at timestep 0 enter the cache, for the units to come."""
        start = self._now()
        if not last:
            tokens = self.tokens.expand(self.batch, -1, -1)
            self._forward(tokens, 0.0, self.settings.plan.positions(unit))
            self.cache.commit()
        self.noise.forget(complete)
        self.clean_s = self._now() - start

    def _forward(self, x_BND: torch.Tensor, timestep: float, positions: torch.Tensor) -> torch.Tensor:
        t = torch.full((self.batch, 1), timestep, device=self.device)
        return self.transformer(x_BND, t, self.text_kv, positions, cache=self.cache).float()

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.current_stream(self.device).synchronize()
        return time.perf_counter()


def _capacity(plan: Plan, window: int | None) -> int:
    """Tokens the cache will hold at most: those of a full window, or without one those of the only slab."""
    per_frame = sum(plan.level_grid(i).H * plan.level_grid(i).W for i in range(len(plan.scales)))
    return (window or plan.grid.T) * per_frame
