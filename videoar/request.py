"""What a person asks for, validated once, and what it comes to with a given model."""

from __future__ import annotations

import math
import secrets
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .plan import Grid, Plan, PlanSpec, latent_count, picture_range
from .sampler import schedule

if TYPE_CHECKING:
    from .checkpoint import Model

LONGEST_PROMPT = 500
LARGEST_SEED = 2**63 - 1
LONGEST_FILM = 1_000_001  # frames: a day at 12 a second; for more there is `endless`


class Scene(NamedTuple):
    """From `time` (seconds into the film) on `prompt` rules."""

    time: float
    prompt: str


def make_scene(time: Any, prompt: Any, after: float | None = None) -> Scene:
    """A scene, checked. after: the time of the one before it. Raises ValueError."""
    number = isinstance(time, (int, float)) and not isinstance(time, bool)
    if not number or not 0 <= time <= LONGEST_FILM:  # NaN is in no range
        raise ValueError(f"the time of a scene is a number of seconds from 0 to {LONGEST_FILM}, not {shown(time)}")
    if after is not None and time <= after:
        raise ValueError(f"scenes come in the order of their times: {time:g} s does not follow {after:g} s")
    return Scene(float(time), clean_prompt(prompt))


def clean_prompt(prompt: Any) -> str:
    """A prompt without control characters and line breaks. Raises ValueError for what is empty, too long or no text."""
    prompt = _text("prompt", prompt)
    if not prompt:
        raise ValueError("the prompt is empty: describe the film in a sentence")
    return prompt


@dataclass(frozen=True)
class Request:
    """A film to make; None means the model's default. Raises ValueError, saying what to do, for anything unusable.

    prompt: 1 to 500 characters. plan: "frame:3", "key_detail:4", "cube:2x2x2", "scale:3", "full" ...; None takes the
    first of the model's plans that fits the film. steps: 1 to 200 denoising steps per unit. seed: 0 to 2**63 - 1, None
    draws one. guidance_scale: 0 to 30, 1 is without guidance. height, width: pixels. frames: 1 + 4n, up to 1,000,001;
    endless: no number, but slab after slab until the caller stops. window: latent frames attended to, counting the unit
    in flight and the sink (coherence against speed); sink: first latent frames that are never forgotten.

    storyboard: (seconds, prompt) pairs in ascending order: from which time on which prompt rules instead of the first.
    Without `frames` the film is as long as the last time and one of the model's clips.
    start: uint8 [T, H, W, 3], a picture (T = 1) or a clip at the model's frame rate that the film continues. It is not
    part of the film: its last picture counts as the first of `frames`, and the film begins with the one after it.
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
    storyboard: tuple[Scene, ...] = ()
    start: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "prompt", clean_prompt(self.prompt))
        set_(self, "negative_prompt", _text("negative prompt", self.negative_prompt))
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
        if not isinstance(self.storyboard, (list, tuple)):
            raise ValueError(f"a storyboard is a list of (seconds, prompt) pairs, not {shown(self.storyboard)}")
        scenes: list[Scene] = []
        for i, pair in enumerate(self.storyboard, 1):
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise ValueError(f"scene {i} of the storyboard is a pair of seconds and prompt, not {shown(pair)}")
            scenes.append(make_scene(*pair, after=scenes[-1].time if scenes else 0.0))
        set_(self, "storyboard", tuple(scenes))
        if self.start is not None:
            _check_start(self.start)


@dataclass(frozen=True)
class Settings:
    """A request with every choice made for one model.

    plan: that of the first slab (of the whole film if there is only one). length: latent frames to make. frames: the
    pictures they come to. Both are None for an endless film.
    """

    request: Request
    plan: Plan
    height: int
    width: int
    length: int | None
    frames: int | None
    fps: float
    seed: int
    sampler: str
    sigmas: tuple[float, ...]
    guidance_scale: float
    guidance_interval: tuple[float, float]
    window: int | None
    sink: int

    def slabs(self) -> Iterator[Plan]:
        """The plans of the film's slabs, one after another; without end for an endless film."""
        spec, (slab, H, W) = self.plan.spec, self.plan.grid
        return spec.slabs(Grid(self.length or slab, H, W), slab, self.plan.start, endless=self.length is None)

    def given(self) -> Iterator[Plan]:
        """The plans of the latent frames that the film continues, cut as it is."""
        spec, (slab, H, W) = self.plan.spec, self.plan.grid
        return spec.slabs(Grid(self.plan.start, H, W), slab)

    def scenes(self) -> list[tuple[int, str]]:
        """The storyboard with times as numbers of latent frames, rounded up to the next one that begins."""
        origin = picture_range(0, self.plan.start)[1]
        pictures = [(origin + round(scene.time * self.fps), scene.prompt) for scene in self.request.storyboard]
        return [(latent_count(max(1, picture) + 3), prompt) for picture, prompt in pictures]

    def unit_total(self) -> int | None:
        """How many units the film has; None for an endless one."""
        if self.length is None:
            return None
        slab = self.plan.grid.T
        whole, rest = divmod(self.length, slab)
        last = next(self.plan.spec.slabs(Grid(rest, *self.plan.grid[1:]), slab), None)
        return whole * len(self.plan.units) + (len(last.units) if last else 0)


def resolve(model: Model, request: Request) -> Settings:
    """Fills in the model's defaults. Raises ValueError for sizes and plans that do not fit the model."""
    info = model.info
    request = _sized(request, info.frames, info.fps)
    grid = model.grid(request)
    spec = PlanSpec.parse(request.plan or _first_that_fits(info.plans, grid))
    known_T = model.grid(info).T  # latent frames of a clip as the model was trained
    window = request.window if request.window is not None else info.window
    sink = request.sink if request.sink is not None else info.sink
    # The last picture that is given counts as the first of the film, so that much less is to be made.
    given = 0 if request.start is None else min(latent_count(len(request.start)), most_given(model, request))
    length = None if request.endless else grid.T - min(given, 1)
    if length == 0:
        raise ValueError("the film would have no picture of its own: ask for at least 5 frames")
    rolling = length is None or min(known_T, window or known_T) < given + length
    if rolling and window is None:
        window = known_T
    if request.sink and window is None:
        raise ValueError("a sink needs a window, without which nothing is forgotten: set both or neither")
    if window is not None and sink >= window:
        raise ValueError(f"the sink ({sink} latent frames) is part of the window ({window}): make it smaller")
    guidance = request.guidance_scale if request.guidance_scale is not None else info.guidance_scale
    step_y, step_x = model.multiples()
    slab = slab_length(spec, known_T, window, sink) if rolling and window else grid.T
    slab = min(slab, length or slab)
    frames = length and 4 * length - (0 if given else 3)
    for scene in request.storyboard:
        if frames and scene.time * info.fps >= frames:
            raise ValueError(f"the scene at {scene.time:g} s begins after the film ends, at {frames / info.fps:g} s")
    return Settings(
        request=replace(request, plan=str(spec)),
        plan=spec.build(Grid(slab, grid.H, grid.W), given),
        height=grid.H * step_y,
        width=grid.W * step_x,
        length=length,
        frames=frames,
        fps=info.fps,
        seed=secrets.randbelow(LARGEST_SEED + 1) if request.seed is None else request.seed,
        sampler=info.sampler,
        sigmas=tuple(schedule(request.steps or info.steps, info.shift, info.timesteps, info.sampler)),
        guidance_scale=guidance,
        guidance_interval=info.guidance_interval,
        window=window,
        sink=sink if window is not None else 0,
    )


def most_given(model: Model, request: Request) -> int:
    """How many latent frames of what a film continues it can see at most: a full window."""
    return request.window or model.info.window or model.grid(model.info).T


def frames_for(seconds: float, fps: float) -> int:
    """The length in frames, 1 + 4n, of a film that is at least so many seconds long. Raises ValueError."""
    if not 0 < seconds * fps <= LONGEST_FILM - 1:  # NaN is in no range
        raise ValueError(
            f"the length of a film is more than 0 and at most {LONGEST_FILM // fps:g} seconds, not {seconds:g}"
        )
    return 1 + 4 * math.ceil((seconds * fps - 1) / 4)


def _sized(request: Request, frames: int, fps: float) -> Request:
    """With the size of what it continues, and room for its storyboard."""
    if request.start is not None:
        height, width = request.start.shape[1:3]
        if (request.height or height, request.width or width) != (height, width):
            raise ValueError(
                f"the film is to be {request.width or width}x{request.height or height} and what it continues is "
                f"{width}x{height}: leave the size out, or fit the pictures first (videoar.video.fit)"
            )
        request = replace(request, height=height, width=width)
    if request.storyboard and request.frames is None and not request.endless:
        until = 1 + 4 * math.ceil(request.storyboard[-1].time * fps / 4)
        request = replace(request, frames=until - 1 + frames)
    return request


def slab_length(spec: PlanSpec, known_T: int, window: int, sink: int) -> int:
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


def _check_start(video: Any) -> None:
    if not isinstance(video, np.ndarray) or video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3:
        what = f"{video.dtype} {list(video.shape)}" if isinstance(video, np.ndarray) else type(video).__name__
        raise ValueError(f"what a film continues are pictures, uint8 [T, H, W, 3], not {what}")
    if not video.size:
        raise ValueError("there is no picture to continue from")


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
