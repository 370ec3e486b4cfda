"""Checks what arrives over the page or the API, where a slider may well hold NaN, and makes a request of it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from videoar.events import MOST_CONTENDERS
from videoar.plan import PlanSpec
from videoar.request import Request, frames_for

if TYPE_CHECKING:
    from videoar.checkpoint import ModelInfo

MOST_STEPS = 50
MOST_UNITS = 128
MOST_FRAMES_KEPT = 1000  # latent frames in a context window
LARGEST_SEED = 2**53 - 1  # the page is JavaScript, whose larger numbers lose digits; the command line takes all
MOST_SECONDS = 600
# What a film can have beside prompt, plan, steps and seed: JSON type and meaning.
MORE = {
    "seconds": ("number", f"how long the film is, up to {MOST_SECONDS}; without it a clip as the model was trained"),
    "endless": ("boolean", "true for a film that goes on until it is stopped"),
}
_DRAWN_SEEDS = 2**31  # short enough to read out


def read_requests(prompt: Any, contenders: Any, seed: Any, randomise: Any) -> list[Request]:
    """The films of one run: one for each contender, with the same prompt and seed.

    contenders: a list of dictionaries with a `plan` and, where it should not be the model's own, `steps`, `window` and
    `guidance`, and a `model` where several are served. seed: kept if `randomise` is false and there is one; drawn
    otherwise. Raises ValueError with a sentence that says what to change.
    """
    if not isinstance(contenders, list) or not 1 <= len(contenders) <= MOST_CONTENDERS:
        raise ValueError(f"a comparison has 1 to {MOST_CONTENDERS} contenders, each with a plan")
    if not isinstance(randomise, bool):
        raise ValueError("randomise is true or false")
    kept = _whole("the seed", seed, 0, LARGEST_SEED)
    if randomise or kept is None:
        kept = secrets.randbelow(_DRAWN_SEEDS)
    return [Request(prompt=prompt, seed=kept, **_choices(contender)) for contender in contenders]


@dataclass(frozen=True)
class Wanted:
    """One run as it was asked for; what depends on the model is settled when that is there.

    seconds: how long the films are; None for a clip of the model's own length, and for endless ones. models: the name
    of each film's model, None for the usual one.
    """

    requests: list[Request]
    seconds: float | None = None
    models: Sequence[str | None] = ()

    def settle(self, info: ModelInfo) -> list[Request]:
        """The requests for a model. Raises ValueError for what does not fit it."""
        if self.seconds is None:
            return self.requests
        frames = frames_for(self.seconds, info.fps)
        return [replace(request, frames=frames) for request in self.requests]


def read_film(prompt: Any, plan: Any, steps: Any, seed: Any, randomise: Any, more: Any) -> Wanted:
    """What the page's first tab asks for. more: a dictionary of what is folded away there; see `MORE`.

    Raises ValueError with a sentence that says what to change.
    """
    more = {name: value for name, value in _dictionary(more).items() if value is not None}
    if not set(more) <= set(MORE):
        raise ValueError(f"a film can have {', '.join(MORE)} beside its prompt and plan")
    [request] = read_requests(prompt, [{"plan": plan, "steps": steps}], seed, randomise)
    seconds, endless = more.get("seconds"), more.get("endless", False)
    if not isinstance(endless, bool):
        raise ValueError("endless is true or false")
    if seconds is not None:
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not 0 < seconds <= MOST_SECONDS:
            raise ValueError(f"a film here has more than 0 and at most {MOST_SECONDS} seconds: or make it endless")
        if endless:
            raise ValueError("a film has a number of seconds or is endless: leave one of the two out")
    return Wanted([replace(request, endless=endless)], seconds)


def _dictionary(value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"more is a dictionary of {', '.join(MORE)}")
    return value or {}


def _choices(contender: Any) -> dict[str, Any]:
    if not isinstance(contender, dict) or not set(contender) <= {"plan", "steps", "window", "guidance", "model"}:
        raise ValueError("a contender is a plan and, if you like, steps, window, guidance and model")
    if not isinstance(contender.get("model"), str | None):
        raise ValueError("the model of a contender is a name")
    spec = PlanSpec.parse(contender.get("plan"))  # type: ignore[arg-type]
    # Frame plans have as many units as the film has latent frames, which is not the visitor's to choose here.
    units = math.prod(spec.args) if spec.kind in ("cube", "key_detail") else 1
    if units > MOST_UNITS:
        raise ValueError(f"{spec} has {units} units: choose a plan with at most {MOST_UNITS}")
    return {
        "plan": str(spec),
        "steps": _whole("the number of steps", contender.get("steps"), 1, MOST_STEPS),
        "window": _whole("the context window", contender.get("window"), 1, MOST_FRAMES_KEPT),
        "guidance_scale": contender.get("guidance"),
    }


def _whole(name: str, value: Any, low: int, high: int) -> int | None:
    """The whole number in `value`, an int or a float that equals one; no bool, NaN or infinity. None stays None."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high or value != int(value):
        raise ValueError(f"{name} is a whole number from {low} to {high}")
    return int(value)
