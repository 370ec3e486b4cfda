"""What was seen in a clip against what its prompt asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..playworld import Attributes, ThingAttributes, parse_caption
from .detect import Seen, SeenThing, detect
from .motion import direction

DIMENSIONS = ("scene", "color", "subject", "multiple_objects", "motion", "direction", "size", "camera", "all")
# PlayBench's semantic dimensions: VBench's that captions of Playworld speak of, "human action" being the verb and "all"
# its overall consistency. A direction is part of the verb, and VBench has no sizes: these two are only shown.
SEMANTIC = ("scene", "color", "subject", "multiple_objects", "motion", "camera", "all")


@dataclass(frozen=True)
class Verdict:
    """One attribute of a prompt: what was asked for, what was seen, whether they are the same."""

    attribute: str
    wanted: str
    seen: str
    right: bool


def score(seen: Seen, wanted: Attributes) -> dict[str, bool | None]:
    """Right or wrong for each of DIMENSIONS; None where the prompt does not say.

    With two things an attribute is right when it is right for both, each compared to the thing that it resembles most.
    multiple_objects: both subjects are there, in whatever colour, of prompts with two. motion: the verb. direction:
    left, right, up or down, of prompts in which something travels. all: scene, color, subject and motion at once.
    """
    pairs = match(seen.things, wanted.things)
    result: dict[str, bool | None] = {"scene": _same(seen.scene, wanted.scene)}
    for name in ("color", "subject", "motion", "size"):
        result[name] = _every(_same(getattr(s, name, None), getattr(w, name)) for s, w in pairs)
    subjects = Counter(w.subject for w in wanted.things)
    several = len(wanted.things) > 1 and None not in subjects
    result["multiple_objects"] = subjects <= Counter(s.subject for s in seen.things) if several else None
    result["direction"] = _every(
        None
        if w.motion is None or direction(w.motion) == "none"
        else s is not None and s.direction == direction(w.motion)
        for s, w in pairs
    )
    result["camera"] = _same(seen.camera, wanted.camera)
    result["all"] = _every(result[name] for name in ("scene", "color", "subject", "motion"))
    return result


def match(
    seen: tuple[SeenThing, ...], wanted: tuple[ThingAttributes, ...]
) -> list[tuple[SeenThing | None, ThingAttributes]]:
    """Each wanted thing with the seen one that it is compared to; colours count most, then subjects, then places."""
    if len(wanted) < 2 or len(seen) < 2:
        rest = list(seen)
        pairs: list[tuple[SeenThing | None, ThingAttributes]] = []
        for w in wanted:
            best = max(rest, key=lambda s: _likeness(s, w), default=None)
            if best is not None:
                rest.remove(best)
            pairs.append((best, w))
        return pairs
    straight = _likeness(seen[0], wanted[0]) + _likeness(seen[1], wanted[1])
    crossed = _likeness(seen[1], wanted[0]) + _likeness(seen[0], wanted[1])
    order = (0, 1) if straight >= crossed else (1, 0)
    return [(seen[order[0]], wanted[0]), (seen[order[1]], wanted[1])]


def verdict(video_THWC: np.ndarray, prompt: str, fps: float = 8) -> tuple[Verdict, ...]:
    """What a clip shows of each thing that its prompt asks for; empty for a prompt that is not Playworld's."""
    wanted = parse_caption(prompt)
    if wanted is None:
        return ()
    seen = detect(video_THWC, things=len(wanted.things) or None, fps=fps)
    rows = []
    for s, w in match(seen.things, wanted.things):
        for name in ("color", "subject", "motion"):
            asked = getattr(w, name)
            if asked is not None:
                found = getattr(s, name, None)
                rows.append(Verdict(name, asked, found or "nothing", found == asked))
    if wanted.scene is not None:
        rows.append(Verdict("scene", wanted.scene, seen.scene, seen.scene == wanted.scene))
    return tuple(rows)


def _likeness(seen: SeenThing, wanted: ThingAttributes) -> int:
    return (
        4 * (seen.color == wanted.color)
        + 2 * (seen.subject == wanted.subject)
        + (seen.motion is not None and seen.motion == wanted.motion)
    )


def _same(seen: str | None, wanted: str | None) -> bool | None:
    return None if wanted is None else seen == wanted


def _every(values) -> bool | None:
    said = [value for value in values if value is not None]
    return all(said) if said else None
