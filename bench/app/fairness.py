"""Whether contenders get the device in equal shares, and what the sharing itself costs.

The cost is measured in two ways: as the time of a race that is outside of the generators' own work, by the race's own
log, and against the same films made one after another without a race, by the clock on the wall.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from app.device import EngineDevice
from app.model import load_model
from videoar.engine import Engine
from videoar.events import ClipFailed, ClipFinished, Turn, UnitDecoded, UnitStarted
from videoar.generate import Request, generate
from videoar.race import race

PROMPT = "a red rocket rises under a starry night sky"
PLANS = ("cube", "frame", "full")


def measure(path: str | None = None, repetitions: int = 5) -> dict[str, Any]:
    """The worst lead of a contender in units, and overheads in percent with their spread. path: of the model."""
    model = load_model(path)  # as the page loads it, number of threads included
    requests = [Request(PROMPT, plan, seed=1) for plan in PLANS]
    watch = _Watch()
    device = EngineDevice(lambda: model, lambda model: Engine(model, run=watch.generate))
    device.start()
    device.model(60)
    log: list[Turn] = []
    alone, raced, served = [], [], []
    outside: dict[str, list[float]] = {"race": [], "page": []}
    try:
        for _ in range(repetitions):
            alone.append(_seconds(event for request in requests for event in generate(model, request, overlap=False)))
            turns: list[Turn] = []
            raced.append(_seconds(_kept(race(model, requests), turns)))
            outside["race"].append(raced[-1] - sum(_used(turns)))
            log = log or turns
            watch.begin = 0.0
            clocks = {head["pane"]: head["clock"] for head, _ in device.run(requests) if "clock" in head}
            served.append(watch.end - watch.begin)
            outside["page"].append(served[-1] - sum(clocks.values()))
    finally:
        device.close()
    return {
        "model": model.info.name,
        "plans": list(PLANS),
        "repetitions": repetitions,
        **leads(log),
        "films_alone_s": spread(alone),
        "race_s": spread(raced),
        "race_of_page_s": spread(served),
        "outside_percent": spread([100 * out / s for out, s in zip(outside["race"], raced, strict=True)]),
        "outside_percent_of_page": spread([100 * out / s for out, s in zip(outside["page"], served, strict=True)]),
        "against_alone_percent": spread([100 * (s / a - 1) for a, s in zip(alone, raced, strict=True)]),
        "against_alone_percent_of_page": spread([100 * (s / a - 1) for a, s in zip(alone, served, strict=True)]),
    }


def leads(turns: Iterable[Turn]) -> dict[str, Any]:
    """By how much device time somebody was ever ahead of somebody else while both were running, and the longest unit.

    The lead is looked at after every turn, from when all contenders have begun.
    """
    used: dict[int, float] = {}
    began: dict[int, float] = {}
    over: set[int] = set()
    running, worst, longest = 0, 0.0, 0.0
    for turn in turns:
        i, event = turn.contender, turn.event
        before, used[i] = used.get(i, 0.0), turn.device_s
        if isinstance(event, UnitStarted):
            began[i] = before  # what the unit needed before it was announced is its own
        elif isinstance(event, UnitDecoded):
            longest = max(longest, turn.device_s - began[i])
        elif isinstance(event, (ClipFinished, ClipFailed)):
            over.add(i)
        running = max(running, len(used))
        still = [seconds for j, seconds in used.items() if j not in over]
        if len(still) > 1:
            worst = max(worst, max(still) - min(still))
    return {
        "contenders": running,
        "worst_lead_s": round(worst, 4),
        "longest_unit_s": round(longest, 4),
        "worst_lead_units": round(worst / longest, 3) if longest else None,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {name: round(f(values), 3) for name, f in (("median", statistics.median), ("min", min), ("max", max))}


def _seconds(things: Iterable[Any]) -> float:
    begin = time.perf_counter()
    for _ in things:
        pass
    return time.perf_counter() - begin


def _kept(turns: Iterable[Turn], kept: list[Turn]) -> Iterator[Turn]:
    for turn in turns:
        kept.append(turn)
        yield turn


def _used(turns: Iterable[Turn]) -> list[float]:
    return list({turn.contender: turn.device_s for turn in turns}.values())


class _Watch:
    """When the first of a race's generators began and the last one ended, on the device's own thread: what a viewer's
    thread does besides, such as writing files, is not the race."""

    def __init__(self) -> None:
        self.begin = self.end = 0.0

    def generate(self, *args: Any, **options: Any) -> Iterator[Any]:
        self.begin = self.begin or time.perf_counter()
        for event in generate(*args, **options):
            self.end = time.perf_counter()
            yield event
