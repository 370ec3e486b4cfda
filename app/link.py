"""Reads the settings that a link carries: `?prompt=...&seed=7&units=cube:2x2x2+steps:8&units=frame:1+window:4`.

A link to one film may also have `seconds`, `endless`, `storyboard`, `sink` and `films`, which the page reads itself,
and `continued_from`, the name of a file that has to be chosen again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.limits import MORE, read_film, read_requests

_NUMBERS = ("steps", "window", "guidance")


def read_link(
    prompt: str | None, seed: str | None, units: list[str], more: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    """What a link's parameters come to: prompt, seed (None: a new one) and contenders; None for a link without any.

    units: a plan for each film, with its numbers behind it. more: what else there is to one film, by its names in
    `app.limits.MORE`, and `continued_from`. Raises ValueError with a sentence for what cannot be made.
    """
    more = dict(more or {})
    source = more.pop("continued_from", "")
    if prompt is None and seed is None and not units and not more:
        return None
    contenders = [_contender(text) for text in units]
    kept = None
    if seed is not None:
        if not seed.isascii() or not seed.isdigit() or len(seed) > 20:
            raise ValueError("the seed in the link is not a whole number")
        kept = int(seed)
    # The same checks as for a click; a link without a prompt keeps the one that is there.
    said = "a" if prompt is None else prompt
    asked = read_requests(said, contenders or [{"plan": "cube"}], kept, False)
    if more:
        read_film(said, "cube", None, kept, False, {name: _value(name, text) for name, text in more.items()})
    link = {"prompt": None if prompt is None else asked[0].prompt, "seed": kept, "contenders": contenders}
    return link | ({"continued_from": source} if source else {})


def _value(name: str, text: str) -> Any:
    if MORE[name][0] == "boolean":
        return text == "1"
    try:
        return float(text) if MORE[name][0] == "number" else text
    except ValueError:
        raise ValueError(f"the {name} in the link is not a number") from None


def _contender(text: str) -> dict[str, Any]:
    said, named, model = text[:800].partition(" model:")  # a name may have spaces, so it comes last
    plan, *numbers = said.split()[:9] or [""]
    contender: dict[str, Any] = {"plan": plan} | ({"model": model} if named else {})
    for number in numbers:
        name, _, value = number.partition(":")
        if name not in _NUMBERS:
            raise ValueError(f"a link's units have steps, window, guidance and model, not {name[:20]!r}")
        try:
            contender[name] = float(value)
        except ValueError:
            raise ValueError(f"the {name} in the link is not a number") from None
    return contender
