"""A storyboard: which prompt rules from which time on, as a small text or JSON file.

As text a line is a time and a prompt; what follows a # at the start of a line is a comment:

    0     a red ball rolls across a sunny meadow
    0:12  a red ball rolls across a meadow at night
    1:30  a blue fish drifts left deep under the ocean

As JSON it is a list of such pairs: [[0, "a red ball ..."], [12, "..."]].
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from .request import Scene, make_scene

_TIME = re.compile(r"(?:(?:(\d{1,4}):)?(\d{1,6}):)?(\d{1,9}(?:\.\d{1,6})?)s?")
_LARGEST_FILE = 1_000_000  # bytes


def read_storyboard(path: str | Path) -> tuple[Scene, ...]:
    """The scenes of a file, the first at time 0. Raises ValueError with line and reason for what cannot be used."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read the storyboard {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path.name}, line {line}: a storyboard is a text file in UTF-8") from error
    if len(data) > _LARGEST_FILE:
        raise ValueError(f"{path.name} is too large for a storyboard")
    try:
        return parse_storyboard(text)
    except ValueError as error:
        raise ValueError(f"{path.name}, {error}") from error


def parse_storyboard(text: str, prompt: str | None = None) -> tuple[Scene, ...]:
    """The scenes of a text or of JSON, the first at time 0. Raises ValueError with line (or scene) and reason.

    prompt: rules until the first scene begins, which without it has to be at time 0.
    """
    places = _from_json(text) if text.lstrip().startswith("[") else _from_lines(text)
    scenes: list[Scene] = []
    if prompt is not None and places and places[0][1] != 0:
        scenes.append(make_scene(0, prompt))
    for where, time, prompt in places:
        try:
            scenes.append(make_scene(time, prompt, scenes[-1].time if scenes else None))
            if scenes[0].time:
                raise ValueError("the first scene begins at time 0")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if not scenes:
        raise ValueError("line 1: there is no scene; write a time and a prompt, such as: 0 a red ball rolls")
    return tuple(scenes)


def _from_lines(text: str) -> list[tuple[str, float, str]]:
    places = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        time, prompt = (*line.split(None, 1), "")[:2]
        found = _TIME.fullmatch(time)
        if not found:
            raise ValueError(f"line {number}: begins with a time, such as 12, 12.5 or 1:05, not {time[:40]!r}")
        hours, minutes, seconds = (float(part or 0) for part in found.groups())
        places.append((f"line {number}", 3600 * hours + 60 * minutes + seconds, prompt))
    return places


def _from_json(text: str) -> list[tuple[str, float, str]]:
    try:
        scenes = json.loads(text)
    except ValueError as error:
        raise ValueError(f"line {getattr(error, 'lineno', 1)}: this is not JSON: {error}") from error
    for number, scene in enumerate(scenes, 1):
        if not (isinstance(scene, list) and len(scene) == 2):
            raise ValueError(f"scene {number}: is a pair of a time and a prompt, not {str(scene)[:40]}")
    return [(f"scene {number}", time, prompt) for number, (time, prompt) in enumerate(scenes, 1)]
