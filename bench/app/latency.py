"""From the moment the generator yields a unit to its pixels being on the canvas, and where that time goes."""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.page import chromium
from bench.serving import serving

from .scripted import NUMBERS, ScriptedModel, command

SIZES = ((128, 128), (256, 256), (832, 480))
PANES = 4
WATCH = (Path(__file__).parent / "watch.js").read_text(encoding="utf-8")
_WARM_UP = 3  # units of each pane that do not count
_TIMEOUT_MS = 120_000
# What happens to a unit, one after another, and what the time up to each is spent on.
STAGES = {
    "encode": "JPEG",
    "queue": "from the generator's thread to the log, but for encoding",
    "send": "from the log to the connection",
    "wire": "through the server and the browser's network stack",
    "decode": "JPEG to bitmap, waiting for earlier messages included",
    "paint": "to the canvas on the screen, waiting for the animation frame included",
}

Row = dict[str, float]


def measure(units: int = 40) -> dict[str, Any]:
    """Latencies in milliseconds at each size; empty without a browser. units: of each of the four panes."""
    result: dict[str, Any] = {"panes": PANES, "stages": STAGES}
    with chromium() as browser:
        if browser is None:
            return {}
        for width, height in SIZES:
            result[f"{width}x{height}"] = _measure(browser, width, height, units)
    return result


def _measure(browser: Any, width: int, height: int, units: int) -> dict[str, Any]:
    # As fast as it plays: in the time of four pictures every pane gets four.
    model = ScriptedModel(width, height, 1 + 4 * (units - 1), revise=True)
    model.unit_s = 4 / model.fps / PANES
    with tempfile.TemporaryDirectory(prefix="videoar-bench-") as folder:
        marks = Path(folder) / "marks.jsonl"
        with serving(command(model, marks)) as (url, _):
            context = browser.new_context(viewport={"width": 1360, "height": 900})
            try:
                seen, skew = _watch(context, url)
            finally:
                context.close()
        rows = join([json.loads(line) for line in marks.read_text().splitlines()], seen)
    return summarise(rows, PANES * (units - _WARM_UP)) | {"clock_skew_ms": round(skew, 2)}


def _watch(context: Any, url: str) -> tuple[dict[str, Any], float]:
    """What the browser saw of a comparison, and by how much its clock may be off from the system's."""
    context.add_init_script(WATCH)
    page = context.new_page()
    page.set_default_timeout(_TIMEOUT_MS)
    page.goto(f"{url}/?{urlencode([('prompt', 'a scripted film')] + [('units', 'frame:1')] * PANES)}")
    page.wait_for_function(f"document.querySelectorAll('.va-pane').length === {PANES}")
    page.click("#va-race")
    page.wait_for_selector(".va-verdict:not([hidden])")
    skew = page.evaluate("performance.timeOrigin + performance.now() - Date.now()")  # which counts whole milliseconds
    return page.evaluate("(({ arrived, decoded, shown }) => ({ arrived, decoded, shown }))(window.bench)"), skew


def join(marks: Iterable[dict[str, Any]], seen: dict[str, Any]) -> list[Row]:
    """For each unit that came to the screen the milliseconds of every stage and their `total`.

    marks: of `scripted.note_times`; seen: lists `arrived` of [bytes, time], `decoded` of times and `shown` of
    [pane, unit, time], in milliseconds.
    """
    times: dict[tuple[int, int], dict[str, Any]] = {}
    pictures = 0
    for mark in marks:
        pane, unit = mark["clip"] % PANES if "clip" in mark else mark["pane"], mark["unit"]
        known = times.setdefault((pane, unit), {})
        if mark["what"] == "cost":
            known["encode"] = 1000 * mark["encode_s"]
            continue
        known[mark["what"]] = 1000 * mark["at"]
        if mark["what"] == "sent":
            pictures += mark["pictures"]
            known |= {"bytes": mark["bytes"], "pictures": pictures}
    shown = {(pane, unit): at for pane, unit, at in seen["shown"]}
    rows = []
    for (pane, unit), known in sorted(times.items()):
        if unit < _WARM_UP or not {"yielded", "encoded", "encode", "sent"} <= set(known):
            continue
        # A unit that a later one replaced before the next animation frame was on the canvas with that one.
        on_screen = next(
            (shown[pane, late % NUMBERS] for late in (unit, unit + 1) if (pane, late % NUMBERS) in shown), None
        )
        arrived = next((at for size, at in seen["arrived"] if size >= known["bytes"]), None)
        decoded = seen["decoded"][known["pictures"] - 1] if known["pictures"] <= len(seen["decoded"]) else None
        if on_screen is None or arrived is None or decoded is None:
            continue
        marks_ms = known["yielded"] + known["encode"], known["encoded"], known["sent"], arrived, decoded, on_screen
        spent = [known["encode"], *(late - early for early, late in itertools.pairwise(marks_ms))]
        rows.append(dict(zip(STAGES, spent, strict=True)) | {"total": on_screen - known["yielded"]})
    return rows


def summarise(rows: Sequence[Row], expected: int) -> dict[str, Any]:
    """Median and 95th percentile of the whole, medians of the stages."""
    if len(rows) < 2:
        return {"units": len(rows), "missing": expected - len(rows)}
    return {
        "units": len(rows),
        "missing": expected - len(rows),
        "median_ms": round(statistics.median(row["total"] for row in rows), 1),
        "p95_ms": round(statistics.quantiles([row["total"] for row in rows], n=20)[-1], 1),
        "stages_median_ms": {name: round(statistics.median(row[name] for row in rows), 1) for name in STAGES},
    }
