"""A comparison as it was recorded: for every contender what a viewer got when, and the figures that follow from it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .events import ClipFailed, ClipFinished, ClipStarted, Patch, UnitDecoded, UnitStarted
from .race import Turn


@dataclass(frozen=True)
class Begun:
    """A unit is being denoised. region: x, y, width, height in film pixels; frames: half-open, in pictures."""

    unit: int
    region: tuple[int, int, int, int]
    frames: tuple[int, int]


@dataclass(frozen=True)
class Done:
    """A unit is finished. Times are device seconds; cache_bytes: keys and values kept for later units."""

    unit: int
    denoise_s: float
    clean_s: float
    decode_s: float
    cache_bytes: int


@dataclass(frozen=True)
class Ended:
    """The film is complete, or failed, which `message` explains to a person."""

    message: str = ""


class Moment(NamedTuple):
    """What happened, `at` seconds after the run began, as a viewer waits, and after `clock` seconds of device time."""

    at: float
    clock: float
    what: Begun | Patch | Done | Ended


@dataclass(frozen=True)
class Take:
    """One contender's recording. units: of the whole film; settings: all it takes to make the film again.

    moments: in order; read more than once. The last one is Ended unless the run was stopped.
    """

    label: str
    width: int
    height: int
    frames: int
    fps: float
    units: int
    settings: dict[str, Any]
    moments: Iterable[Moment]


@dataclass
class Recorder:
    """Collects the turns of a race. labels: one for each contender."""

    labels: Sequence[str]
    _began: float = field(default_factory=time.perf_counter)
    _started: dict[int, ClipStarted] = field(default_factory=dict)
    _moments: dict[int, list[Moment]] = field(default_factory=dict)

    def add(self, turn: Turn) -> None:
        """Notes a turn, at the time of this call. Raises ValueError for endless films, which cannot be compared."""
        event, whats = turn.event, list[Begun | Patch | Done | Ended]()
        if isinstance(event, ClipStarted):
            if event.frames is None:
                raise ValueError("endless films cannot be compared: give them a length")
            self._started[turn.contender], self._moments[turn.contender] = event, []
        elif isinstance(event, UnitStarted):
            whats = [Begun(event.index, event.region, event.frame_range)]
        elif isinstance(event, UnitDecoded):
            done = Done(event.index, event.denoise_s, event.clean_s, event.decode_s, event.cache_bytes)
            whats = [*event.patches, done]
        elif isinstance(event, ClipFinished):
            whats = [Ended()]
        elif isinstance(event, ClipFailed):
            whats = [Ended(event.message)]
        at = time.perf_counter() - self._began
        # A contender that failed before it could be announced has no size, and so no place in the comparison.
        self._moments.get(turn.contender, []).extend(Moment(at, turn.device_s, what) for what in whats)

    def takes(self) -> list[Take]:
        """The recordings so far, of all contenders that were announced."""
        takes = []
        for i, start in sorted(self._started.items()):
            assert start.frames is not None, "endless films are refused above"
            size = start.width, start.height, start.frames, start.fps
            units = start.unit_total or len(start.plan.units)
            takes.append(Take(self.labels[i], *size, units, start.settings(), self._moments[i]))
        return takes


def timings(takes: Sequence[Take]) -> dict[str, Any]:
    """All figures of a comparison as JSON values: per contender and unit, and who was first. Times are in seconds.

    `clock` counts the device time of one contender alone, `at` the time since the run began, as a viewer waits.
    """
    contenders = [_figures(take) for take in takes]
    return {
        "contenders": contenders,
        "first_picture": _first(contenders, "first_picture_clock"),
        "finished_first": _first(contenders, "finished_clock"),
    }


def _figures(take: Take) -> dict[str, Any]:
    begun: dict[int, Moment] = {}
    units, first, end, message, most = [], None, None, "", 0
    for moment in take.moments:
        what = moment.what
        if isinstance(what, Begun):
            begun[what.unit] = moment
        elif isinstance(what, Patch):
            first = first or moment
        elif isinstance(what, Done):
            start, most = begun.get(what.unit, moment), max(most, what.cache_bytes)
            times = {"begun_at": start.at, "done_at": moment.at, "begun_clock": start.clock, "done_clock": moment.clock}
            parts = {"denoise": what.denoise_s, "clean": what.clean_s, "decode": what.decode_s}
            rounded = {name: round(value, 4) for name, value in (times | parts).items()}
            units.append({"unit": what.unit, **rounded, "cache_bytes": what.cache_bytes})
        elif isinstance(what, Ended):
            end, message = moment, what.message
    status = "stopped" if end is None else "failed" if message else "done"
    finished = end if status == "done" else None
    return {
        "label": take.label,
        "status": status,
        **({"message": message} if message else {}),
        "settings": take.settings,
        "units_of": take.units,
        "first_picture_at": first and round(first.at, 4),
        "first_picture_clock": first and round(first.clock, 4),
        "finished_at": finished and round(finished.at, 4),
        "finished_clock": finished and round(finished.clock, 4),
        "most_cache_bytes": most,
        "units": units,
    }


def _first(contenders: list[dict[str, Any]], figure: str) -> str | None:
    """The label of the contender with the smallest figure; None if nobody has it."""
    there = [contender for contender in contenders if contender[figure] is not None]
    return min(there, key=lambda contender: contender[figure])["label"] if there else None
