"""Checks what arrives over the page or the API, where a slider may well hold NaN, and makes a request of it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from videoar.events import MOST_CONTENDERS
from videoar.plan import PlanSpec
from videoar.request import Request, Scene, frames_for
from videoar.storyboard import parse_storyboard

CONCURRENT_FILMS = 2
MOST_STEPS = 50
MOST_UNITS = 128
MOST_FRAMES_KEPT = 1000  # latent frames in a context window
LARGEST_SEED = 2**53 - 1  # the page is JavaScript, whose larger numbers lose digits; the command line takes all
MOST_SECONDS = 600
MOST_FILMS = 4
# What a film can have beside prompt, plan, steps and seed: JSON type and meaning.
MORE = {
    "seconds": ("number", f"how long the film is, up to {MOST_SECONDS}; without it a clip as the model was trained"),
    "endless": ("boolean", "true for a film that goes on until it is stopped"),
    "storyboard": ("string", "a line for each scene, with the second at which it begins and its prompt"),
    "window": ("number", "latent frames that are remembered: more is more coherent, less is faster"),
    "sink": ("number", "how many of them are the first ones of the film"),
    "guidance": ("number", "guidance scale, 0 to 30: 1 is without guidance and takes half the time"),
    "films": ("number", f"1 to {MOST_FILMS} clips with seeds that follow each other"),
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

    seconds: how long the film is; None for a clip of the model's own length, and for endless ones. models: the name
    of each film's model, None for the usual one. source: a file that the film continues. contest: whether several films
    are made side by side, and not one after another.
    """

    requests: list[Request]
    seconds: float | None = None
    models: Sequence[str | None] = ()
    source: str | None = None
    contest: bool = True

    def settle(self, model: Any) -> list[Request]:
        """The requests for a model. Raises ValueError for what does not fit it."""
        requests = self.requests
        if self.seconds is not None:
            requests = [replace(request, frames=frames_for(self.seconds, model.info.fps)) for request in requests]
        if self.source is not None:
            from videoar.continuing import continue_from

            requests = [continue_from(model, request, self.source) for request in requests]
        return requests


def read_film(prompt: Any, plan: Any, steps: Any, seed: Any, randomise: Any, more: Any, start: Any = None) -> Wanted:
    """What the page's first tab asks for. more: a dictionary with any of `MORE`; start: a picture or clip, as Gradio
    names an uploaded file.

    Raises ValueError with a sentence that says what to change.
    """
    if more is not None and not isinstance(more, dict):
        raise ValueError(f"more is a dictionary of {', '.join(MORE)}")
    chosen = {name: value for name, value in (more or {}).items() if value not in (None, "")}
    if not set(chosen) <= set(MORE):
        raise ValueError(f"a film has {', '.join(MORE)} beside its prompt and plan")
    seconds, endless = chosen.get("seconds"), chosen.get("endless", False)
    if seconds is not None:
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not 0 < seconds <= MOST_SECONDS:
            raise ValueError(f"a film here has more than 0 and at most {MOST_SECONDS} seconds; or make it endless")
        if endless:
            raise ValueError("a film has a number of seconds or is endless: leave one of the two out")
    scenes = _scenes(chosen.get("storyboard", ""), prompt, endless)
    contender = {"plan": plan, "steps": steps, "window": chosen.get("window"), "guidance": chosen.get("guidance")}
    [request] = read_requests(scenes[0].prompt if scenes else prompt, [contender], seed, randomise)
    sink = _whole("the sink", chosen.get("sink"), 0, MOST_FRAMES_KEPT)
    request = replace(request, endless=endless, storyboard=scenes[1:], sink=sink)
    source = _path(start)
    films = _whole("the number of films", chosen.get("films"), 1, MOST_FILMS) or 1
    if films > 1 and (seconds or endless or scenes or source):
        raise ValueError(
            "several films at once are clips from a prompt alone: choose one film, or the length of a clip"
        )
    assert request.seed is not None, "read_requests draws one"
    seeds = ((request.seed + number) % (LARGEST_SEED + 1) for number in range(films))
    return Wanted([replace(request, seed=seed) for seed in seeds], seconds, source=source, contest=False)


def _scenes(text: Any, prompt: Any, endless: Any) -> tuple[Scene, ...]:
    if not isinstance(text, str):
        raise ValueError("a storyboard is text: a line for each scene, with a time and a prompt")
    scenes = parse_storyboard(text, prompt) if text.strip() else ()
    if scenes and not endless and scenes[-1].time > MOST_SECONDS:
        raise ValueError(f"the storyboard is longer than {MOST_SECONDS} seconds: shorten it, or make the film endless")
    return scenes


def _path(start: Any) -> str | None:
    """The path of an uploaded file, which Gradio has checked to be one."""
    path = start.get("path") if isinstance(start, dict) else getattr(start, "path", start)
    if path is not None and not isinstance(path, str):
        raise ValueError("a film goes on from an uploaded picture or clip")
    return path


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
