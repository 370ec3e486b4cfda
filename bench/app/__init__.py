"""The playground under load, in a browser and without: what lies between the generator and its viewers.

Five parts, each of which can be run alone; the result keeps what the others said before:

    latency   from the generator's yield to the pixels on the canvas, four panes, and where the time goes
    endless   an endless film played for minutes: gaps between pictures, memory of page and server
    fairness  how equally contenders share the device, and what sharing costs
    crowd     20 viewers at once, and more than the queue holds
    weight    bytes of the page's own, and what axe-core finds
"""

from __future__ import annotations

import argparse
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.machine import machine, read_result, write_result

from . import crowd, endless, fairness, latency, weight

Part = Callable[[argparse.Namespace], dict[str, Any]]
PARTS: dict[str, Part] = {
    "latency": lambda args: latency.measure(args.units),
    "fairness": lambda args: fairness.measure(args.model, args.repetitions),
    "crowd": lambda args: crowd.measure(args.viewers),
    "weight": lambda args: weight.measure(),
    "endless": lambda args: endless.measure(args.minutes),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench app", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--units", type=int, default=40, help="latency: of each pane (default: 40)")
    parser.add_argument("--minutes", type=float, default=10.0, help="endless: how long it plays (default: 10)")
    parser.add_argument("--repetitions", type=int, default=5, help="fairness: of each kind of run (default: 5)")
    parser.add_argument("--viewers", type=int, default=20, help="crowd: at once (default: 20)")
    parser.add_argument("--model", help="fairness: model folder (default: the built-in model)")
    parser.add_argument("--out", type=Path, help="default: bench/results/app.json")
    args = parser.parse_args(argv)
    for name, least in (("units", 5), ("minutes", 0.2), ("repetitions", 1), ("viewers", 1)):
        if not getattr(args, name) >= least:
            raise ValueError(f"--{name} is at least {least}")
    failed = False
    for name in args.only or PARTS:
        found = run(name, PARTS[name], args)
        failed = failed or "error" in found
        # After every part, so that what is there is kept whatever happens to the next one.
        path = write_result("app", (read_result("app", args.out) or {}) | {name: found}, args.out)
        print("\n".join(lines(name, found)), flush=True)
    print(path)
    return int(failed)


def run(name: str, part: Part, args: argparse.Namespace) -> dict[str, Any]:
    """What a part found, where and under which load; a part that fails says why instead."""
    head = machine() | {"load_average_before": _load()}
    try:
        found = part(args) or {"error": "no browser: install Chromium and the playwright package"}
    except Exception as error:
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}"[:500]}
    return head | {"load_average_after": _load()} | found


def lines(name: str, found: dict[str, Any]) -> list[str]:
    """The figures of a part for the terminal, one a line, lists and long tables left out."""
    busy = found["load_average_before"][0] > 0.3 * found["cores"]
    title = f"{name}: load average before {found['load_average_before'][0]}"
    shown = [title + (" (unless from the part before, these are no figures)" if busy else "")]
    for key, value in found.items():
        if key not in machine() and not key.startswith("load_average") and key not in ("samples", "files", "stages"):
            shown.append(f"  {key:32} {value}")
    return shown


def _load() -> list[float]:
    """Processes that want a core, in the last 1, 5 and 15 minutes: of others, before the first part."""
    return [round(load, 2) for load in os.getloadavg()]
