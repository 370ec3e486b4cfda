"""Films of one plan, measured: the diffusion alone, with the autoencoder, and with the tiny decoder."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch

from videoar.checkpoint import Model
from videoar.generate import ClipFinished, ClipStarted, Request, UnitDecoded, generate
from videoar.tiny_decoder import TinyDecoder

from .budget import MARGIN, Budget, OutOfTime, Pace
from .wan import film_flop

FULL_STEPS = 50  # of the whole clip, which few-step plans are compared with
GUIDANCE = 5.0
_WARM_UP_STEPS = 2  # the kernels of a plan are the same however many steps it takes
_WARM_UP_FRAMES = 13  # decoders go from latent frame to latent frame, and after three they do always the same


@dataclass(frozen=True)
class Film:
    """What one film took."""

    frames: int
    seconds: float
    first_frame_s: float
    decode_s: float
    units: tuple[float, ...]  # denoising and clean pass of each

    def stretched(self, seconds: float) -> Film:
        """Return the same film of one unit, had its diffusion taken so long and all the rest what it did."""
        (measured,) = self.units
        longer = seconds - measured
        return dataclasses.replace(
            self, seconds=self.seconds + longer, first_frame_s=self.first_frame_s + longer, units=(seconds,)
        )


@dataclass
class Films:
    """Films of one request: undecoded, with the autoencoder, with the tiny decoder; and bytes at most of each run."""

    alone: list[Film] = field(default_factory=list)
    whole: list[Film] = field(default_factory=list)
    light: list[Film] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)  # without the tiny decoder


class Rig:
    """Measures one request after the other, within a budget.

    The decoders are warmed up once for all, the transformer once for each request. Raises OutOfTime, also in the
    middle of a film, if the budget ends before a request's first film is done.
    """

    def __init__(self, model: Model, tiny: TinyDecoder, budget: Budget) -> None:
        self.model, self.tiny, self.budget, self.pace = model, tiny, budget, Pace()
        self._decoders_are_warm = False

    def expect(self, request: Request, films: int = 1) -> float:
        """Return the seconds to expect for a film to warm up and one undecoded, or with films=3 for all three ways."""
        warm_up = film_flop(self.model, dataclasses.replace(request, steps=_WARM_UP_STEPS))
        return self.pace.expect(warm_up + films * film_flop(self.model, request), decoded=films > 1)

    def measure(self, request: Request, runs: int, later: Sequence[Request] = ()) -> dict[str, Any]:
        """Return the medians over `runs` runs, after a film to warm up; over the films that there was time for.

        later: what is to be measured afterwards. Only the first run may take the time of a run of each.
        """
        films, kept, last = Films(), sum(self.expect(one, films=3) for one in later), 0.0
        flop = film_flop(self.model, request)
        try:
            self._warm_up(self.model, request)
            for run in range(runs):
                if run and MARGIN * last + kept >= self.budget.left():
                    break
                began = self.budget.clock()
                self._run(request, films, flop)
                last = self.budget.clock() - began
        except OutOfTime:
            if not films.alone:
                raise
        figures = summary(films, flop)
        self.pace.learn(flop, figures["diffusion_s"], _decode_s(films))
        return figures

    def measure_full(self, steps: int) -> dict[str, Any]:
        """Return the figures of 50 guided steps of the whole clip at once, made from `steps` of them.

        Fewer steps are made if they would take more than half of the time that is left. Diffusion takes as long as it
        has steps; all the rest, the decoding above all, is counted once.
        """
        info = dataclasses.replace(self.model.info, sampler="unipc", timesteps=())
        model = dataclasses.replace(self.model, info=info)
        request = Request("benchmark", plan="full", steps=FULL_STEPS, guidance_scale=GUIDANCE, seed=1)
        step_s = sum(self._warm_up(model, request).units) / _WARM_UP_STEPS
        flop = film_flop(model, request)
        self.pace.learn(flop / FULL_STEPS, step_s)
        steps = int(min(steps, self.budget.left() / 2 / step_s))
        if steps < 1:
            raise OutOfTime
        reset_peak(model.device)
        whole = self._film(model, dataclasses.replace(request, steps=steps))
        peak = read_peak(model.device)
        light = self._film(dataclasses.replace(model, decoder=self.tiny), dataclasses.replace(request, steps=1))
        scaled = whole.units[0] * FULL_STEPS / steps
        # Nothing is decoded before the only unit is done, so that the film with the decoder tells of both.
        films = Films([whole.stretched(scaled)], [whole.stretched(scaled)], [light.stretched(scaled)], [peak])
        self.pace.learn(flop, scaled, _decode_s(films))
        return {
            "steps": FULL_STEPS,
            "measured_steps": steps,
            "measured_diffusion_s": whole.units[0],
            "measured_end_to_end_s": whole.seconds,
            "guidance_scale": GUIDANCE,
            **summary(films, flop),
        }

    def _warm_up(self, model: Model, request: Request) -> Film:
        if not self._decoders_are_warm:
            frames = min(_WARM_UP_FRAMES, self.model.info.frames)
            short = Request("benchmark", plan="full", frames=frames, steps=1, seed=1)
            for decoder in (None, self.tiny):
                self._film(dataclasses.replace(self.model, decoder=decoder), short)
            self._decoders_are_warm = True
        return self._film(self._undecoded(model), dataclasses.replace(request, steps=_WARM_UP_STEPS))

    def _run(self, request: Request, films: Films, flop: float) -> None:
        reset_peak(self.model.device)
        films.alone.append(self._film(self._undecoded(self.model), request))
        self.pace.learn(flop, sum(films.alone[-1].units))
        for decoder, made in ((None, films.whole), (self.tiny, films.light)):
            # Rather than a film that is stopped in the middle the next plan has what is left.
            if self.pace.expect(flop, decoded=decoder is None) >= self.budget.left():
                raise OutOfTime
            made.append(self._film(dataclasses.replace(self.model, decoder=decoder), request))
            if decoder is None:
                films.peaks.append(read_peak(self.model.device))

    def _undecoded(self, model: Model) -> Model:
        return dataclasses.replace(model, decoder=_Blank(model.transformer.dtype))

    def _film(self, model: Model, request: Request) -> Film:
        return film(model, request, self.budget.check)


def film(model: Model, request: Request, check: Callable[[], None] = lambda: None) -> Film:
    """Make a film and return what it took. check: called after every step, may raise."""
    units: list[float] = []
    decode_s = 0.0
    with closing(generate(model, request, previews=False, keep=False)) as events:
        for event in events:
            check()
            if isinstance(event, ClipStarted):
                frames = event.frames
            elif isinstance(event, UnitDecoded):
                units.append(event.denoise_s + event.clean_s)
                decode_s += event.decode_s
    assert isinstance(event, ClipFinished)
    assert frames is not None
    return Film(frames, event.seconds, event.first_frame_s, decode_s, tuple(units))


def summary(films: Films, flop: float) -> dict[str, Any]:
    """Return the figures of a row, medians; those that need a film which was not made are left out.

    flop: operations of a film's transformer.
    """
    alone, whole, light = films.alone, films.whole, films.light
    units = [seconds for film in alone for seconds in film.units]
    diffusion = statistics.median(sum(film.units) for film in alone)
    figures = {
        "runs": len(alone),
        "runs_end_to_end": len(whole),
        "runs_tiny_decoder": len(light),
        "units": len(alone[0].units),
        "diffusion_s": diffusion,
        "diffusion_fps": alone[0].frames / diffusion,
        "unit_s_median": statistics.median(units),
        "unit_s_p95": torch.tensor(units, dtype=torch.float64).quantile(0.95).item(),
        "cost_tflop": flop / 1e12,
        "achieved_tflop_per_s": flop / 1e12 / diffusion,
    }
    if whole:
        figures["end_to_end_s"] = statistics.median(film.seconds for film in whole)
        figures["end_to_end_fps"] = whole[0].frames / figures["end_to_end_s"]
        figures["first_frame_s"] = statistics.median(film.first_frame_s for film in whole)
        figures["decode_s"] = statistics.median(film.decode_s for film in whole)
        figures["peak_memory_gb"] = max(films.peaks) / 1e9
    if light:
        figures["end_to_end_fps_tiny_decoder"] = light[0].frames / statistics.median(film.seconds for film in light)
        figures["first_frame_s_tiny_decoder"] = statistics.median(film.first_frame_s for film in light)
    return figures


def _decode_s(films: Films) -> float:
    """Return what both decoders take for a film, as far as that is known."""
    return sum(max((film.decode_s for film in made), default=0.0) for made in (films.whole, films.light))


class _Blank:
    """In the place of a decoder: pictures of one pixel."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def decode_chunk(self, latents_BCFHW: torch.Tensor, state: Any) -> tuple[torch.Tensor, bool]:
        count = 4 * latents_BCFHW.shape[2] - (3 if state is None else 0)
        return torch.zeros(1, 3, count, 1, 1), True


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def read_peak(device: torch.device) -> int:
    """The most memory that was allocated on the device since the last reset; on a CPU what the process holds."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss
