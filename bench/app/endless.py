"""An endless film played for minutes: the time between pictures on the screen, and the memory of page and server."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import psutil

from bench.page import chromium
from bench.serving import serving

from .latency import WATCH
from .scripted import ScriptedModel, command

LONGEST_GAP_MS = 150
_SAMPLE_S = 5.0
_START_MS = 120_000
_MEMORY = ("server_mb", "renderer_mb", "browser_mb", "heap_mb")


def measure(minutes: float = 10.0) -> dict[str, Any]:
    """Gaps between pictures and growth of memory; empty without a browser."""
    model = ScriptedModel(256, 256, fps=16.0, unit_s=0.1)  # four pictures, a quarter of a second, in 0.1 s
    with chromium("--enable-precise-memory-info") as browser:
        if browser is None:
            return {}
        with serving(command(model)) as (url, server):
            page = browser.new_page(viewport={"width": 1360, "height": 900})
            page.set_default_timeout(_START_MS)
            page.add_init_script(WATCH)
            page.goto(f"{url}/?{urlencode({'prompt': 'a scripted film without an end', 'units': 'frame:1'})}")
            page.check("#va-options input[value=endless]", force=True)
            page.click("#va-go")
            page.wait_for_function("Number(document.querySelector('.va-scrub').value) > 16")
            page.evaluate("void window.bench.watchPlayback()")
            session, process = browser.new_browser_cdp_session(), psutil.Process(server.pid)
            begin, before = time.monotonic(), _cpu(session, process)
            samples = _samples(session, page, process, 60 * minutes)
            used, passed = _cpu(session, process), time.monotonic() - begin
            found = page.evaluate("window.bench.found")
            status = page.text_content(".va-status")
            page.click("#va-stop")
            page.wait_for_selector("#va-film video")
    film = {"width": model.width, "height": model.height, "fps": model.fps, "minutes": minutes}
    cores = {name: round((used[name] - before[name]) / passed, 2) for name in used}
    return film | gaps(found) | {"status": status, "cores_used": cores, "memory": growth(samples), "samples": samples}


def gaps(found: Mapping[str, Any]) -> dict[str, Any]:
    """Sums up what watch.js saw: `gaps` counts milliseconds, `long` lists [when, how long] of those above 150."""
    counted = sorted((int(ms), count) for ms, count in found["gaps"].items())
    every = [ms for ms, count in counted for _ in range(count)]
    if len(every) < 2:
        return {"pictures": found["pictures"]}
    return {
        "pictures": found["pictures"],
        "skipped": found["skipped"],
        "unread": found["unread"],
        "gap_median_ms": statistics.median(every),
        "gap_p99_ms": statistics.quantiles(every, n=100)[-1],
        "gap_longest_ms": every[-1],
        f"gaps_above_{LONGEST_GAP_MS}_ms": found["long"],
    }


def growth(samples: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """For each kind of memory MB after the first minute, in the last one, and the growth in percent.

    In films of less than four minutes it is quarters instead of minutes. Of the heap it is the least of a minute, since
    what has not been collected yet is not in use.
    """
    if not samples:
        return {}
    minute = min(60.0, samples[-1]["at_s"] / 4)
    early = [s for s in samples if minute <= s["at_s"] < 2 * minute]
    late = [s for s in samples if s["at_s"] >= samples[-1]["at_s"] - minute]
    result: dict[str, Any] = {}
    for kind in _MEMORY if early else ():
        of = min if kind == "heap_mb" else statistics.mean
        before, after = of([s[kind] for s in early]), of([s[kind] for s in late])
        percent = round(100 * (after / before - 1), 2) if before else None
        result[kind] = {"before": round(before, 1), "after": round(after, 1), "growth_percent": percent}
    return result


def _samples(session: Any, page: Any, server: psutil.Process, seconds: float) -> list[dict[str, float]]:
    begin, samples = time.monotonic(), []
    while time.monotonic() - begin < seconds:
        page.wait_for_timeout(1000 * _SAMPLE_S)
        resident = [(process["type"], _mb(int(process["id"]))) for process in _processes(session)]
        samples.append(
            {
                "at_s": round(time.monotonic() - begin, 1),
                "server_mb": _mb(server.pid),
                "renderer_mb": round(sum(mb for kind, mb in resident if kind == "renderer"), 1),
                "browser_mb": round(sum(mb for _, mb in resident), 1),
                "heap_mb": round(page.evaluate("performance.memory.usedJSHeapSize") / 2**20, 1),
            }
        )
    return samples


def _processes(session: Any) -> list[dict[str, Any]]:
    return session.send("SystemInfo.getProcessInfo")["processInfo"]


def _cpu(session: Any, server: psutil.Process) -> dict[str, float]:
    """Processor seconds so far; of the browser with all its processes."""
    times = server.cpu_times()
    return {"server": times.user + times.system, "browser": sum(each["cpuTime"] for each in _processes(session))}


def _mb(pid: int) -> float:
    """Resident memory; 0 for a process that has just ended."""
    try:
        return round(psutil.Process(pid).memory_info().rss / 2**20, 1)
    except psutil.NoSuchProcess:
        return 0.0
