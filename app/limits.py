"""Checks what arrives over the page or the API, where a slider may well hold NaN, and makes a request of it."""

from __future__ import annotations

import math
import secrets
from typing import Any

from videoar.events import MOST_CONTENDERS
from videoar.plan import PlanSpec
from videoar.request import Request

MOST_STEPS = 50
MOST_UNITS = 128
MOST_FRAMES_KEPT = 1000  # latent frames in a context window
LARGEST_SEED = 2**53 - 1  # the page is JavaScript, whose larger numbers lose digits; the command line takes all
_DRAWN_SEEDS = 2**31  # short enough to read out


def read_requests(prompt: Any, contenders: Any, seed: Any, randomise: Any) -> list[Request]:
    """The films of one run: one for each contender, with the same prompt and seed.

    contenders: a list of dictionaries with a `plan` and, where it should not be the model's own, `steps`, `window` and
    `guidance`. seed: kept if `randomise` is false and there is one; drawn otherwise. Raises ValueError with a sentence
    that says what to change.
    """
    if not isinstance(contenders, list) or not 1 <= len(contenders) <= MOST_CONTENDERS:
        raise ValueError(f"a comparison has 1 to {MOST_CONTENDERS} contenders, each with a plan")
    if not isinstance(randomise, bool):
        raise ValueError("randomise is true or false")
    kept = _whole("the seed", seed, 0, LARGEST_SEED)
    if randomise or kept is None:
        kept = secrets.randbelow(_DRAWN_SEEDS)
    return [Request(prompt=prompt, seed=kept, **_choices(contender)) for contender in contenders]


def _choices(contender: Any) -> dict[str, Any]:
    if not isinstance(contender, dict) or not set(contender) <= {"plan", "steps", "window", "guidance"}:
        raise ValueError("a contender is a plan and, if you like, steps, window and guidance")
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
