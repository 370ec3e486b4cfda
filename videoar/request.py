"""What a person asks for, validated once, and what it comes to with a given model."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .plan import Grid, Plan, PlanSpec
from .sampler import schedule

if TYPE_CHECKING:
    from .checkpoint import Model

LONGEST_PROMPT = 500
LARGEST_SEED = 2**63 - 1
LONGEST_FILM = 1_000_001  # frames: a day at 12 a second; for more there is `endless`


@dataclass(frozen=True)
class Request:
    """A film to make; None means the model's default. Raises ValueError, saying what to do, for anything unusable.

    prompt: 1 to 500 characters. plan: "frame:3", "key_detail:4", "cube:2x2x2", "scale:3", "full" ...; None takes the
    first of the model's plans that fits the film. steps: 1 to 200 denoising steps per unit. seed: 0 to 2**63 - 1, None
    draws one. guidance_scale: 0 to 30, 1 is without guidance. height, width: pixels. frames: 1 + 4n, up to 1,000,001;
    endless: no number, but slab after slab until the caller stops. window: latent frames attended to, counting the unit
    in flight and the sink (coherence against speed); sink: first latent frames that are never forgotten.
    """

    prompt: str
    plan: str | None = None
    steps: int | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None
    frames: int | None = None
    window: int | None = None
    sink: int | None = None
    negative_prompt: str = ""
    endless: bool = False

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "prompt", _text("prompt", self.prompt))
        set_(self, "negative_prompt", _text("negative prompt", self.negative_prompt))
        if not self.prompt:
            raise ValueError("the prompt is empty: describe the film in a sentence")
        if self.plan is not None:
            set_(self, "plan", str(PlanSpec.parse(self.plan)))
        _whole("steps", self.steps, 1, 200)
        _whole("seed", self.seed, 0, LARGEST_SEED)
        _whole("height", self.height, 8, 4096)
        _whole("width", self.width, 8, 4096)
        _whole("frames", self.frames, 1, LONGEST_FILM)
        if not isinstance(self.endless, bool):
            raise ValueError(f"endless is true or false, not {shown(self.endless)}")
        if self.endless and self.frames is not None:
            raise ValueError("an endless film has no number of frames: leave one of the two out")
        _whole("window", self.window, 1, 10_000)
        _whole("sink", self.sink, 0, 10_000)
        if self.guidance_scale is not None:
            g = self.guidance_scale
            if isinstance(g, bool) or not isinstance(g, (int, float)) or not 0 <= g <= 30:  # NaN is in no range
                raise ValueError(f"guidance_scale is a number from 0 to 30 (1 is without guidance), not {shown(g)}")
            set_(self, "guidance_scale", float(g))


@dataclass(frozen=True)
class Settings:
    """A request with every choice made for one model.

    plan: that of the first slab (of the whole film if there is only one). frames: None for an endless film.
    """

    request: Request
    plan: Plan
    height: int
    width: int
    frames: int | None
    fps: float
    seed: int
    sampler: str
    sigmas: tuple[float, ...]
    guidance_scale: float
    window: int | None
    sink: int

    def slabs(self) -> Iterator[Plan]:
        """The plans of the film's slabs, one after another; without end for an endless film."""
        spec, (slab, H, W) = self.plan.spec, self.plan.grid
        return spec.slabs(Grid(self._length(), H, W), slab, self.plan.start, self.request.endless)

    def unit_total(self) -> int | None:
        """How many units the film has; None for an endless one."""
        if self.request.endless:
            return None
        slab = self.plan.grid.T
        whole, rest = divmod(self._length(), slab)
        last = next(self.plan.spec.slabs(Grid(rest, *self.plan.grid[1:]), slab), None)
        return whole * len(self.plan.units) + (len(last.units) if last else 0)

    def _length(self) -> int:
        return 1 if self.frames is None else (self.frames - 1) // 4 + 1


def resolve(model: Model, request: Request) -> Settings:
    """Fills in the model's defaults. Raises ValueError for sizes and plans that do not fit the model."""
    info = model.info
    grid = model.grid(request)
    spec = PlanSpec.parse(request.plan or _first_that_fits(info.plans, grid))
    known_T = model.grid(info).T  # latent frames of a clip as the model was trained
    window = request.window if request.window is not None else info.window
    sink = request.sink if request.sink is not None else info.sink
    rolling = request.endless or min(known_T, window or known_T) < grid.T
    if rolling and window is None:
        window = known_T
    if request.sink and window is None:
        raise ValueError("a sink needs a window, without which nothing is forgotten: set both or neither")
    if window is not None and sink >= window:
        raise ValueError(f"the sink ({sink} latent frames) is part of the window ({window}): make it smaller")
    guidance = request.guidance_scale if request.guidance_scale is not None else info.guidance_scale
    step_y, step_x = model.multiples()
    slab = _slab(spec, known_T, window, sink) if rolling and window else grid.T
    return Settings(
        request=replace(request, plan=str(spec)),
        plan=spec.build(Grid(slab if request.endless else min(slab, grid.T), grid.H, grid.W)),
        height=grid.H * step_y,
        width=grid.W * step_x,
        frames=None if request.endless else 1 + 4 * (grid.T - 1),
        fps=info.fps,
        seed=secrets.randbelow(LARGEST_SEED + 1) if request.seed is None else request.seed,
        sampler=info.sampler,
        sigmas=tuple(schedule(request.steps or info.steps, info.shift, info.timesteps, info.sampler)),
        guidance_scale=guidance,
        window=window,
        sink=sink if window is not None else 0,
    )


def _slab(spec: PlanSpec, known_T: int, window: int, sink: int) -> int:
    """After how many latent frames the plan repeats, so that context and unit in flight share the window (section 3.4).

    A unit takes at most half of the window and of what the model knows, and leaves one frame that is not the sink.
    """
    least = spec.args[0] if spec.kind in ("frame", "key_detail") else 1  # latent frames that must be there at once
    flight = max(least, min(window // 2, known_T // 2, window - sink - 1))
    if window - sink - flight < 1:
        raise ValueError(
            f"a window of {window} latent frames with a sink of {sink} leaves {spec} no context in a longer film: "
            f"use a window of at least {sink + least + 1}"
        )
    if spec.kind == "frame":
        return max(known_T - known_T % least, least)
    return max(spec.args[0], min(known_T, flight * spec.args[0])) if spec.kind == "cube" else flight


def _first_that_fits(plans: tuple[str, ...], grid: Grid) -> str:
    """The first of these plans, best first, that a film of this size can be cut into; "full" fits every film."""
    for plan in plans:
        try:
            return str(PlanSpec.parse(plan).build(grid).spec)
        except ValueError:
            continue
    return "full"


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the {name} is text, not {type(value).__name__}")
    if len(value) > 20 * LONGEST_PROMPT:
        raise ValueError(f"the {name} has {len(value)} characters: use at most {LONGEST_PROMPT}")
    # Control characters and lone surrogates break terminals, JSON and tokenizers; line breaks become spaces.
    kept = "".join(
        " " if c.isspace() else c for c in value if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs")
    )
    kept = " ".join(kept.split())
    if len(kept) > LONGEST_PROMPT:
        raise ValueError(f"the {name} has {len(kept)} characters: use at most {LONGEST_PROMPT}")
    return kept


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is a whole number from {low} to {high}, not {shown(value)}")


def shown(value: Any) -> str:
    """A value as an error message names it: short, whatever it is."""
    if isinstance(value, int) and value.bit_length() > 80:
        # Ten thousand digits cannot even be printed.
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
