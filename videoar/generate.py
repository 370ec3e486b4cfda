"""The one loop: request in, events out; everything a viewer sees is an event of it.

Shapes: B batch (2 with guidance: conditional, unconditional), N tokens of a unit, D token values.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from . import sampler
from .cache import KVCache
from .canvas import Canvas
from .checkpoint import Model
from .decoder import StreamDecoder
from .events import (
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
from .memory import send
from .noise import NoiseField
from .plan import Unit, picture_range
from .pyramid import coarsen
from .request import Request, Settings, clean_prompt, resolve
from .show import Showing
from .stopwatch import Stopwatch
from .transformer import TextKV, patchify

__all__ = [
    "ClipFailed",
    "ClipFinished",
    "ClipStarted",
    "Event",
    "Generation",
    "Patch",
    "PromptSwitched",
    "Request",
    "StepDone",
    "UnitDecoded",
    "UnitStarted",
    "generate",
]


class Generation(Iterator[Event]):
    """A film that is being made: an iterator over its events, and the handle to direct it by."""

    def __init__(self, model: Model, settings: Settings, previews: bool, overlap: bool, keep: bool) -> None:
        self._script = _Script(settings)
        self._events = _run(model, settings, self._script, previews, overlap, keep)

    def __next__(self) -> Event:
        return next(self._events)

    def switch(self, prompt: str) -> None:
        """Goes on under another prompt, from the next border on at which no frame is half done. From any thread.

        There PromptSwitched comes, and the window is encoded anew, so that the film flows from one prompt into the
        other. The last of several prompts counts. Raises ValueError for a prompt that cannot be used.
        """
        self._script.wish = clean_prompt(prompt)

    def close(self) -> None:
        """Ends the film where it is. Safe at any time, from the thread that reads the events."""
        self._events.close()


def generate(
    model: Model, request: Request, *, previews: bool = True, overlap: bool = True, keep: bool = True
) -> Generation:
    """Makes a film unit by unit: ClipStarted, for each unit UnitStarted, StepDone and UnitDecoded, then ClipFinished.

    Re-entrant: interleaved clips equal sequential ones, and the same request with the same seed gives the same pixels.
    UnitDecoded events come in the order of the units, each as soon as its pixels are there (the next unit may have
    started by then). Closing the iterator midway is safe. previews: also show what is not exact yet. overlap: decode on
    a second thread while the next unit is denoised. keep: hold all exact pictures for ClipFinished.video; without it
    (and for endless films) memory and time per unit do not grow with the film.

    Raises ValueError at once for a request that does not fit the model.
    """
    return Generation(model, resolve(model, request), previews, overlap, keep and not request.endless)


@torch.inference_mode()
def _run(
    model: Model, settings: Settings, script: _Script, previews: bool, overlap: bool, keep: bool
) -> Generator[Event, None, None]:
    begin = time.perf_counter()
    total = settings.unit_total()
    yield _started(model, settings)
    before = _encode(model, settings)
    denoiser = _Denoiser(model, settings, before)
    channels, scale = model.transformer.config.in_channels, model.vae.config.scale_factor_spatial
    scale_std = model.info.level_std(len(settings.plan.scales))
    canvas = Canvas(settings.plan, channels, model.patch, scale_std, model.device, before)
    showing = Showing(model.stream_decoder(), canvas, scale, total, previews, overlap, before)
    origin = picture_range(0, settings.plan.start)[1]
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
            first, end = picture_range(unit.frames[0], unit.frames[-1] + 1)
            pictures = first - origin, end - origin
            if plan.is_border(place) and (prompt := script.due(unit.frames[0])):
                yield PromptSwitched(index, pictures[0], prompt, denoiser.switch(prompt))
            yield UnitStarted(index, total, unit, (x0, y0, x1 - x0, y1 - y0), pictures)
            for step in denoiser.denoise(unit):
                yield StepDone(index, total, step, len(settings.sigmas))
                yield from arrived(showing.ready())
            # Shown before the clean pass: with the decoder on its own thread the two run side by side.
            complete = plan.complete_frames(place)
            canvas.put(unit, denoiser.tokens)
            showing.show(index, unit, complete)
            denoiser.remember(unit, complete, last=index + 1 == total)
            showing.times(index, denoiser.denoised, denoiser.cleaned, denoiser.cache.kept_bytes)
            # The first picture must not wait for the next unit, nor share the processor with it.
            yield from arrived(showing.ready(wait=index == 0))
        yield from arrived(showing.ready(wait=True))
    finally:
        showing.close()
    video = np.concatenate(film or [np.empty((0, settings.height, settings.width, 3), np.uint8)])
    yield ClipFinished(settings.seed, index + 1, time.perf_counter() - begin, first_frame_s, video)


class _Script:
    """Which prompt rules when: by the storyboard, and by what is wished for while the film is made."""

    def __init__(self, settings: Settings) -> None:
        self.wish: str | None = None  # written by any thread, taken by the one that makes the film
        self._now = settings.request.prompt
        self._scenes = deque(settings.scenes())

    def due(self, frame: int) -> str | None:
        """The prompt that begins with this latent frame, if it is another than before."""
        prompt = self._now
        while self._scenes and self._scenes[0][0] <= frame:
            prompt = self._scenes.popleft()[1]
        wish, self.wish = self.wish, None
        before, self._now = self._now, wish or prompt
        return self._now if self._now != before else None


def _encode(model: Model, settings: Settings) -> torch.Tensor | None:
    """Latents [1, C, n, h, w] of what the film continues: as much of its end as the plan has room for."""
    video = settings.request.start
    if video is None:
        return None
    pictures = picture_range(0, settings.plan.start)[1]
    return StreamDecoder(model.vae).encode(torch.from_numpy(video[None, -pictures:].copy()).to(model.device)).float()


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

    def __init__(self, model: Model, settings: Settings, before: torch.Tensor | None = None) -> None:
        self.transformer, self.settings, self.device = model.transformer, settings, model.device
        self.text, self.guidance = model.text, settings.guidance_scale
        self.batch = 1 if self.guidance == 1.0 else 2
        self.text_kv = self._read(settings.request.prompt)
        self.noise = NoiseField(settings.seed, settings.plan, self.transformer.config.in_channels, model.patch)
        self.alone = settings.unit_total() == 1 and before is None  # a film of one unit needs no cache
        self.cache: KVCache = self.transformer.new_cache(
            self.batch,
            window=settings.window,
            sink=settings.sink,
            relative=model.info.relative,
            capacity=0 if self.alone else _capacity(settings),
        )
        self.clean: list[tuple[Unit, torch.Tensor]] = []  # the units in the cache and their tokens [1, N, D]
        self.tokens = torch.empty(0)  # [1, N, D] of the last unit
        self.denoised = self.cleaned = Stopwatch(self.device)  # of the last unit
        if before is not None:
            self._recall(before, model.patch, model.info.level_std(len(settings.plan.scales)))

    def denoise(self, unit: Unit) -> Iterator[int]:
        """Yields the number of each step once it is done; afterwards `tokens` holds the unit."""
        positions = self.settings.plan.positions(unit)

        def network(x_BND: torch.Tensor, sigma: float) -> torch.Tensor:
            return self._forward(x_BND, 1000 * sigma, positions)

        def noise(step: int) -> torch.Tensor:
            return send(self.noise.tokens(unit, step), self.device)

        interval = self.settings.guidance_interval
        velocity = network if self.batch == 1 else sampler.guided(network, self.guidance, interval)
        sigmas, self.denoised = self.settings.sigmas, Stopwatch(self.device)
        if self.settings.sampler == "few_step":
            estimates = sampler.few_step(velocity, noise(0), sigmas, lambda step: noise(step + 1))
        else:
            solver = sampler.unipc if self.settings.sampler == "unipc" else sampler.euler
            estimates = solver(velocity, noise(0), sigmas)
        for step in range(len(sigmas)):
            # Only the work is timed: between two steps this generator may rest while others use the device.
            self.denoised.start()
            self.tokens = next(estimates)
            self.denoised.stop()
            yield step

    def remember(self, unit: Unit, complete: int, last: bool) -> None:
        """The clean pass: the finished unit's keys and values at timestep 0 enter the cache, for the units to come."""
        self.cleaned = Stopwatch(self.device)
        self.cleaned.start()
        if not last:
            self._commit(unit, self.tokens)
        self.noise.forget(complete)
        self.cleaned.stop()

    def switch(self, prompt: str) -> float:
        """Goes on under another prompt: one pass over what is in the cache, so that it is seen under that one as well.

        Returns the seconds that took.
        """
        watch = Stopwatch(self.device)
        watch.start()
        self.text_kv = self._read(prompt)
        held, clean = set(self.cache.frames), self.clean
        self.cache.clear()
        self.clean = []
        for unit, tokens in clean:
            self._commit(*_part(unit, tokens, held))
        watch.stop()
        return watch.seconds()

    def _read(self, prompt: str) -> TextKV:
        prompts = [prompt] if self.batch == 1 else [prompt, self.settings.request.negative_prompt]
        return self.transformer.encode_text(self.text(prompts).to(self.device, self.transformer.dtype))

    def _recall(self, latents_1CFhw: torch.Tensor, patch: tuple[int, int, int], scale_std: Sequence[float]) -> None:
        """Fills the cache with what the film continues, unit by unit as if it had been made here."""
        for plan in self.settings.given():
            slab = latents_1CFhw[:, :, plan.start : plan.start + plan.grid.T]
            for unit in plan.units:
                size, std = plan.level_grid(unit.level), scale_std[unit.level]
                level = coarsen(slab, size, patch, std) if plan.scales[unit.level] > 1 else slab
                self._commit(unit, patchify(level, patch)[:, plan.sites(unit)])

    def _commit(self, unit: Unit, tokens_1ND: torch.Tensor) -> None:
        self._forward(tokens_1ND.expand(self.batch, -1, -1), 0.0, self.settings.plan.positions(unit))
        self.cache.commit()
        held = set(self.cache.frames)
        self.clean = [known for known in self.clean if not held.isdisjoint(known[0].frames)]
        self.clean.append((unit, tokens_1ND))

    def _forward(self, x_BND: torch.Tensor, timestep: float, positions: torch.Tensor) -> torch.Tensor:
        t = torch.full((self.batch, 1), timestep, device=self.device)
        cache = None if self.alone else self.cache
        return self.transformer(x_BND, t, self.text_kv, positions, cache=cache).float()


def _part(unit: Unit, tokens_1ND: torch.Tensor, frames: set[int]) -> tuple[Unit, torch.Tensor]:
    """What is left of a unit and its tokens [1, N, D] with these latent frames alone."""
    kept = [i for i, frame in enumerate(unit.frames) if frame in frames]
    tokens = tokens_1ND.unflatten(1, (len(unit.frames), -1))[:, kept].flatten(1, 2)
    return replace(unit, frames=tuple(unit.frames[i] for i in kept)), tokens


def _capacity(settings: Settings) -> int:
    """Tokens the cache will hold at most: those of a full window, or without one those of all frames."""
    plan = settings.plan
    per_frame = sum(plan.level_grid(i).H * plan.level_grid(i).W for i in range(len(plan.scales)))
    return (settings.window or plan.start + plan.grid.T) * per_frame
