"""What a person asks for, validated once, and what it comes to with a given model."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .plan import Grid, Plan, PlanSpec
from .sampler import schedule

if TYPE_CHECKING:
    from .checkpoint import Model

LONGEST_PROMPT = 500
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Request:
    """A film to make; None means the model's default. Raises ValueError, saying what to do, for anything unusable.

    prompt: 1 to 500 characters. plan: "frame:3", "key_detail:4", "cube:2x2x2", "scale:3", "full" ...; None takes the
    first of the model's plans that fits the film. steps: 1 to 200 denoising steps per unit. seed: 0 to 2**63 - 1, None
    draws one. guidance_scale: 0 to 30, 1 is without guidance. height, width: pixels. frames: 1 + 4n. window: latent
    frames attended to, counting the unit in flight and the sink; sink: first latent frames that are never forgotten.
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
        _whole("frames", self.frames, 1, 10_001)
        _whole("window", self.window, 1, 10_000)
        _whole("sink", self.sink, 0, 10_000)
        if self.guidance_scale is not None:
            g = self.guidance_scale
            if isinstance(g, bool) or not isinstance(g, (int, float)) or not 0 <= g <= 30:  # NaN is in no range
                raise ValueError(f"guidance_scale is a number from 0 to 30 (1 is without guidance), not {shown(g)}")
            set_(self, "guidance_scale", float(g))


@dataclass(frozen=True)
class Settings:
    """A request with every choice made for one model."""

    request: Request
    plan: Plan
    height: int
    width: int
    frames: int
    fps: float
    seed: int
    sampler: str
    sigmas: tuple[float, ...]
    guidance_scale: float
    window: int | None
    sink: int


def resolve(model: Model, request: Request) -> Settings:
    """Fills in the model's defaults. Raises ValueError for sizes and plans that do not fit the model."""
    info = model.info
    grid = model.grid(request)
    spec = PlanSpec.parse(request.plan or _first_that_fits(info.plans, grid))
    known_T = model.grid(info).T  # latent frames of a clip as the model was trained
    window = request.window if request.window is not None else info.window
    sink = request.sink if request.sink is not None else info.sink
    slab = None
    if known_T < grid.T:
        # Longer than a training clip: the plan repeats and the context rolls (section 3.4). Where units span the whole
        # slab, half a clip of context and half a clip in flight together stay within what the model knows.
        spans = spec.kind != "cube" or spec.args[0] == 1
        slab = max(1, known_T // 2) if spans else known_T
        window = known_T if window is None else window
    if request.sink and window is None:
        raise ValueError("a sink needs a window, without which nothing is forgotten: set both or neither")
    if window is not None and sink >= window:
        raise ValueError(f"the sink ({sink} latent frames) is part of the window ({window}): make it smaller")
    guidance = request.guidance_scale if request.guidance_scale is not None else info.guidance_scale
    step_y, step_x = model.multiples()
    return Settings(
        request=replace(request, plan=str(spec)),
        plan=spec.build(grid, slab),
        height=grid.H * step_y,
        width=grid.W * step_x,
        frames=1 + 4 * (grid.T - 1),
        fps=info.fps,
        seed=secrets.randbelow(LARGEST_SEED + 1) if request.seed is None else request.seed,
        sampler=info.sampler,
        sigmas=tuple(schedule(request.steps or info.steps, info.shift, info.timesteps, info.sampler)),
        guidance_scale=guidance,
        window=window,
        sink=sink if window is not None else 0,
    )


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
