"""A run as one file: saved when it is over, read back, and replayed with its true timing, without a model.

The file is a zip archive: `run.json` holds the heads of all messages, `pictures/` their JPEGs as they were sent, and
`films/` the finished MP4s. docs/how-it-works.md lists the fields of the heads.
"""

from __future__ import annotations

import io
import json
import math
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import Image

from app.wire import Message
from videoar.events import MOST_CONTENDERS
from videoar.plan import PlanSpec

SUFFIX = ".videoar"
_FORMAT, _VERSION = "videoar run", 1
_HEADS = "run.json"
_MOST_BYTES, _MOST_HEADS_BYTES = 1 << 30, 64 << 20
_LONGEST_RUN_S = 7 * 24 * 3600
_LARGEST_SIDE = 8192
_LONGEST_TEXT = 10_000

# pane -> the MP4 and its settings
Films = Mapping[int, tuple[bytes, dict[str, Any]]]


@dataclass(frozen=True)
class Recording:
    """A run that is over: its messages from `clip` to `over`, and the finished films."""

    messages: list[Message]
    films: Films = field(default_factory=dict)


def save_recording(file: str | Path | IO[bytes], messages: Sequence[Message], films: Films | None = None) -> None:
    """Writes a run to a path or an open file.

    messages: as `Job.messages` gives them once the run is over. Raises ValueError for a run that is not over, that made
    nothing, or whose beginning has been dropped because it was too long.
    """
    heads = [head for head, _ in messages]
    if not heads or heads[-1]["kind"] != "over":
        raise ValueError("the run is not over yet: save it when it is")
    if len(heads) < 3:
        raise ValueError("the run made nothing that could be saved")
    if [head["seq"] for head in heads] != list(range(len(heads))):
        raise ValueError("the run was too long to be kept as a whole, so it cannot be saved")
    if any(pane["frames"] is None for pane in messages[0][0]["panes"]):
        raise ValueError("an endless film cannot be replayed: keep its MP4")
    films = films or {}
    settings = {str(pane): film_settings for pane, (_, film_settings) in films.items()}
    text = json.dumps({"format": _FORMAT, "version": _VERSION, "heads": heads, "films": settings}, allow_nan=False)
    # The pictures and films are compressed already.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_HEADS, text, zipfile.ZIP_DEFLATED)
        for head, body in messages:
            for name, (start, stop) in _pictures(head):
                archive.writestr(name, body[start:stop])
        for pane, (film, _) in films.items():
            archive.writestr(f"films/{pane}.mp4", film)


def read_recording(file: str | Path | IO[bytes]) -> Recording:
    """Reads what `save_recording` wrote. Raises ValueError, saying what is wrong, for any other or damaged file."""
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(info.file_size for info in archive.infolist()) > _MOST_BYTES:
                raise ValueError(f"the file holds more than {_MOST_BYTES >> 20} MB: it is no run that was saved here")
            return _read(archive)
    except zipfile.BadZipFile as error:
        raise ValueError(f"this is no whole {SUFFIX} file ({error}): it may have been cut short on its way") from error
    except KeyError as error:
        raise ValueError(f"the file is damaged: {error.args[0]}") from error
    except (zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"the file is damaged: {error}") from error


def replay(
    messages: Iterable[Message], wait: Callable[[float], Any] = time.sleep, speed: float = 1.0
) -> Iterator[Message]:
    """The messages, each at the time it once came.

    wait: rests for so many seconds; if it returns something true, as `threading.Event.wait` does, the replay ends.
    speed: how many times faster than it was. Raises ValueError for a speed that is not above 0.
    """
    if not 0 < speed < math.inf:
        raise ValueError(f"the speed of a replay is a number above 0, not {speed}")
    return _replay(messages, wait, speed)


def _replay(messages: Iterable[Message], wait: Callable[[float], Any], speed: float) -> Iterator[Message]:
    began = time.monotonic()
    for head, body in messages:
        rest = head["at"] / speed - (time.monotonic() - began)
        if rest > 0 and wait(rest):
            return
        yield head, body


def _pictures(head: dict[str, Any]) -> Iterator[tuple[str, tuple[int, int]]]:
    """For each picture of a message its name in the archive and its place in the body."""
    start = 0
    for number, size in enumerate(head.get("sizes", ())):
        yield f"pictures/{head['seq']:06}-{number:03}.jpg", (start, start + size)
        start += size


def _read(archive: zipfile.ZipFile) -> Recording:
    if _HEADS not in archive.namelist():
        raise ValueError(f"this is no {SUFFIX} file: it has no {_HEADS} inside")
    if archive.getinfo(_HEADS).file_size > _MOST_HEADS_BYTES:
        raise ValueError(f"the {_HEADS} inside the file is too large")
    try:
        said = json.loads(archive.read(_HEADS))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the {_HEADS} inside the file is damaged: {str(error)[:200]}") from error
    if not isinstance(said, dict) or said.get("format") != _FORMAT:
        raise ValueError(f"this is no {SUFFIX} file: its {_HEADS} does not say {_FORMAT!r}")
    if said.get("version") != _VERSION:
        raise ValueError(f"the file has version {str(said.get('version'))[:20]}, and only version 1 is known here")
    heads, films = said.get("heads"), said.get("films")
    if not isinstance(heads, list) or not isinstance(films, dict):
        raise ValueError(f"the {_HEADS} inside the file has no list of messages and films")
    panes = _check_heads(heads)
    messages = [(head, b"".join(_read_pictures(archive, head))) for head in heads]
    kept: dict[int, tuple[bytes, dict[str, Any]]] = {}
    for pane, settings in films.items():
        if pane not in map(str, range(panes)) or not _are_settings(settings):
            raise ValueError(f"the file has a film of contender {str(pane)[:20]!r} that does not belong to the run")
        kept[int(pane)] = archive.read(f"films/{pane}.mp4"), settings
    return Recording(messages, kept)


def _read_pictures(archive: zipfile.ZipFile, head: dict[str, Any]) -> Iterator[bytes]:
    for name, (start, stop) in _pictures(head):
        picture = archive.read(name)
        if len(picture) != stop - start:
            raise ValueError(f"the file is damaged: {name} has {len(picture)} bytes instead of {stop - start}")
        try:
            with Image.open(io.BytesIO(picture), formats=("JPEG",)) as image:
                size = image.size
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"the file is damaged: {name} is no JPEG picture") from error
        if max(size) > _LARGEST_SIDE:
            raise ValueError(f"the file is damaged: {name} has {size[0]}x{size[1]} pixels")
        yield picture


def _check_heads(heads: list[Any]) -> int:
    """Checks all that a player relies on; returns the number of contenders. Raises ValueError."""
    panes = time_s = 0
    for seq, head in enumerate(heads):
        kind = head.get("kind") if isinstance(head, dict) else None
        fields = _FIELDS.get(kind) if isinstance(kind, str) else None
        first, last = seq == 0, seq == len(heads) - 1
        if fields is None or (kind == "clip") != first or (kind == "over") != last:
            raise ValueError(f"message {seq} of the run is damaged: {str(kind)[:40]!r} has no place there")
        for name, good in (_ANY | fields).items():
            if not good(head.get(name)):
                raise ValueError(f"message {seq} of the run is damaged: its {name!r} cannot be used")
        panes = panes or len(head["panes"])
        if head["seq"] != seq or head["at"] < time_s or head.get("pane", 0) >= panes:
            raise ValueError(f"message {seq} of the run is damaged: it is out of order or of no contender")
        time_s = head["at"]
    if not panes:
        raise ValueError("the run has no messages")
    return panes


def _number(value: Any, low: float = 0.0, high: float = 1e9) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    )  # NaN is in no range


def _whole(value: Any, low: int = 0, high: int = 1 << 30) -> bool:
    return isinstance(value, int) and _number(value, low, high)


def _wholes(count: int | None = None) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) == (count or len(value)) and all(map(_whole, value))


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_plan(plan: Any) -> bool:
    fields = {"level": _whole, "rows": _wholes(2), "cols": _wholes(2), "tokens": _whole}
    return (
        isinstance(plan, dict)
        and all(good(plan.get(name)) for name, good in {"grid": _wholes(3), "scales": _wholes()}.items())
        and isinstance(plan.get("units"), list)
        and len(plan["units"]) > 0
        and all(isinstance(unit, dict) and isinstance(unit.get("runs"), list) for unit in plan["units"])
        and all(good(unit.get(name)) for unit in plan["units"] for name, good in fields.items())
        and all(map(_wholes(2), (run for unit in plan["units"] for run in unit["runs"])))
    )


def _are_panes(panes: Any) -> bool:
    return (
        isinstance(panes, list)
        and 1 <= len(panes) <= MOST_CONTENDERS
        and all(isinstance(pane, dict) for pane in panes)
        and all(good(pane.get(name)) for pane in panes for name, good in _PANE.items())
    )


def _are_settings(value: Any) -> bool:
    """What the figures and the names of files are made of; the rest is only shown."""
    if not isinstance(value, dict) or not _whole(value.get("frames"), 1) or not _whole(value.get("steps"), 1):
        return False
    try:
        PlanSpec.parse(value.get("plan"))  # type: ignore[arg-type]
    except ValueError:
        return False
    return True


_PANE: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("label", "prompt", "seed"), _text),
    **dict.fromkeys(("width", "height"), lambda value: _whole(value, 1, _LARGEST_SIDE)),
    "frames": lambda value: _whole(value, 1),
    "units": lambda value: value is None or _whole(value, 1),  # None in films of several calls, and in older files
    "fps": lambda value: _number(value, 0.01, 1000),
    "settings": _are_settings,
    "plan": _is_plan,
}
_ANY: dict[str, Callable[[Any], bool]] = {"seq": _whole, "at": lambda value: _number(value, 0, _LONGEST_RUN_S)}
_OF_A_PANE: dict[str, Callable[[Any], bool]] = {"pane": _whole, "clock": _number}
_OF_A_UNIT = _OF_A_PANE | {"unit": _whole}
_FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "clip": {"panes": _are_panes},
    "unit": _OF_A_UNIT | {"region": _wholes(4), "frames": _wholes(2)},
    "step": _OF_A_UNIT | {"step": _whole, "steps": _whole},
    "switch": _OF_A_UNIT | {"first": _whole, "prompt": _text, "seconds": _number},
    "paint": _OF_A_UNIT
    | {"first": _whole, "area": _wholes(4), "preview": lambda value: isinstance(value, bool), "sizes": _wholes()},
    "done": _OF_A_UNIT
    | {
        "seconds": lambda value: isinstance(value, list) and len(value) == 4 and all(map(_number, value)),
        "cache": _whole,
    },
    "end": _OF_A_PANE | {"status": _text},
    "over": {
        "status": lambda value: value in ("done", "stopped", "failed"),
        "summary": lambda value: isinstance(value, dict),
    },
}
