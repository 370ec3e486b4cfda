"""Checks what arrives over the page or the API, where a slider may well hold NaN, and makes a request of it."""

from __future__ import annotations

import math
import secrets
from typing import Any

from videoar.plan import PlanSpec
from videoar.request import Request

MOST_STEPS = 50
MOST_UNITS = 128
LARGEST_SEED = 2**53 - 1  # the page is JavaScript, whose larger numbers lose digits; the command line takes all
_DRAWN_SEEDS = 2**31  # short enough to read out


def read_request(prompt: Any, plan: Any, steps: Any, seed: Any, randomise: Any) -> Request:
    """The request of one click on Generate. Raises ValueError with a sentence that says what to change.

    steps: None takes the model's own. seed: kept if `randomise` is false and there is one; drawn otherwise.
    """
    spec = PlanSpec.parse(plan)
    # Frame plans have as many units as the film has latent frames, which is not the visitor's to choose here.
    units = math.prod(spec.args) if spec.kind in ("cube", "key_detail") else 1
    if units > MOST_UNITS:
        raise ValueError(f"{spec} has {units} units: choose a plan with at most {MOST_UNITS}")
    if not isinstance(randomise, bool):
        raise ValueError("randomise is true or false")
    kept = _whole("the seed", seed, 0, LARGEST_SEED)
    if randomise or kept is None:
        kept = secrets.randbelow(_DRAWN_SEEDS)
    return Request(prompt=prompt, plan=plan, steps=_whole("the number of steps", steps, 1, MOST_STEPS), seed=kept)


def _whole(name: str, value: Any, low: int, high: int) -> int | None:
    """The whole number in `value`, an int or a float that equals one; no bool, NaN or infinity. None stays None."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high or value != int(value):
        raise ValueError(f"{name} is a whole number from {low} to {high}")
    return int(value)
