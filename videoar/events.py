"""What happens while a film is made; every front end reads these.

Shapes: T pictures, h/w height and width of a patch; pixels are uint8 RGB numpy arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .plan import Plan, Unit
from .request import Request

# In a race: more would be too small on a screen.
MOST_CONTENDERS = 5


@dataclass(frozen=True)
class Patch:
    """Pictures for a rectangle of the film, from picture `first_frame` on.

    frames: uint8 [T, h, w, 3]; x, y, width, height: the rectangle in film pixels. Frames may be smaller than it and are
    then scaled up by the viewer. preview: an approximation that a later patch replaces.
    """

    first_frame: int
    frames: np.ndarray
    x: int
    y: int
    width: int
    height: int
    preview: bool


@dataclass(frozen=True)
class ClipStarted:
    """The first event: what was asked for and what it comes to.

    plan: that of the first slab, which is the whole film if it is not longer than the model's clips. frames,
    unit_total: None for an endless film, as is `total` in the later events.
    """

    request: Request
    plan: Plan
    width: int
    height: int
    frames: int | None
    fps: float
    seed: int
    unit_total: int | None
    steps: int
    guidance_scale: float
    window: int | None
    sink: int
    model: str

    def settings(self) -> dict[str, Any]:
        """Everything needed to make this film again, as JSON values."""
        chosen = {key: getattr(self.request, key) for key in ("prompt", "negative_prompt", "plan")}
        if self.request.storyboard:
            chosen["storyboard"] = [list(scene) for scene in self.request.storyboard]
        if self.request.endless:
            chosen["endless"] = True
        keys = ("steps", "seed", "guidance_scale", "height", "width", "frames", "fps", "window", "sink", "model")
        return chosen | {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class UnitStarted:
    """A unit is being denoised. region: x, y, width, height in film pixels; frame_range: half-open, in pictures."""

    index: int
    total: int | None
    unit: Unit
    region: tuple[int, int, int, int]
    frame_range: tuple[int, int]


@dataclass(frozen=True)
class PromptSwitched:
    """From unit `index`, which begins with picture `first_frame`, on, `prompt` rules.

    seconds: device time it took to encode what is in the window under the new prompt.
    """

    index: int
    first_frame: int
    prompt: str
    seconds: float


@dataclass(frozen=True)
class StepDone:
    """One denoising step of a unit is done: for progress, and a point where a clip can be stopped or wait its turn."""

    index: int
    total: int | None
    step: int
    steps: int


@dataclass(frozen=True)
class UnitDecoded:
    """Pixels of a unit: exact where latent frames are complete, previews elsewhere. Times are device seconds.

    cache_bytes: keys and values that are kept for later units, this one's included.
    """

    index: int
    total: int | None
    patches: tuple[Patch, ...]
    denoise_s: float
    clean_s: float
    decode_s: float
    cache_bytes: int = 0


@dataclass(frozen=True)
class ClipFinished:
    """The last event. seconds, first_frame_s: since the start, as a viewer waits.

    video: uint8 [T, H, W, 3], exact; without pictures (T = 0) if the caller asked `generate` not to keep the film.
    """

    seed: int
    units: int
    seconds: float
    first_frame_s: float
    video: np.ndarray


@dataclass(frozen=True)
class ClipFailed:
    """The last event of a clip that could not be finished (from the engine). message: for a person."""

    message: str


@dataclass(frozen=True)
class Turn:
    """One event of one contender of a race. device_s: seconds of the device that it has used, this event included."""

    contender: int
    event: Event
    device_s: float


Event = ClipStarted | PromptSwitched | UnitStarted | StepDone | UnitDecoded | ClipFinished | ClipFailed
