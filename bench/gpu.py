"""The speed of a generator of Wan2.1-1.3B's shape, plan by plan, beside 50 guided steps over the whole clip at once.

Weights are random, which no figure here depends on; prompts are random embeddings, so the text encoder is not part of
it. On a CPU everything runs at a small shape, to show that it runs; those figures say nothing about a GPU. The result
is written after every row, so that a run that is killed leaves all the rows it has finished.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from videoar.generate import Request

from . import BEGAN
from .budget import Budget, OutOfTime
from .films import FULL_STEPS, Rig
from .machine import machine, write_result
from .wan import SMALL, Shape, build

Case = tuple[str, int | None]  # a plan and its window in latent frames; None: all of the clip

# The most telling first.
CASES: tuple[Case, ...] = (
    ("cube:2x2x2", None),
    ("frame:3", 12),
    ("cube:2x2x2", 12),
    ("frame:3", None),
    ("frame", 12),
    ("key_detail:4", None),
    ("scale:3", None),
)
PAPER_RATIO = 21.0  # what the paper says of cubes beside Wan2.1-1.3B
_LONGEST_ERROR = 300  # characters


def main(argv: Sequence[str] | None = None, clock: Callable[[], float] | None = None) -> int:
    """Measure, show and write. clock: seconds since the start, by default since `python -m bench` was typed."""
    args = _arguments(argv)
    budget = Budget(args.budget, clock or (lambda: time.monotonic() - BEGAN))
    device = torch.device(args.device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    shape = SMALL if args.small or device.type == "cpu" else Shape()
    cases = [case for case in CASES if not args.plan or case[0] in args.plan]
    if not cases:
        raise ValueError(f"--plan is one of {', '.join(sorted({plan for plan, _ in CASES}))}")
    model, tiny = build(shape, device, getattr(torch, args.dtype), args.compile)
    head = {
        "shape": shape.name,
        "weights": "random",
        "device": str(device),
        "dtype": args.dtype,
        "attention": model.attention,
        "compiled": args.compile,
        "steps": model.info.steps,
        "runs": args.runs,
        "budget_s": args.budget,
    }
    report = Report("gpu-small" if shape == SMALL else "gpu", args.out, head, budget)
    full_steps = args.full_steps or (FULL_STEPS if args.budget is None else 10)
    measure_all(Rig(model, tiny, budget), report, cases, args.runs, full_steps)
    return report.finish()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench gpu", description=__doc__)
    parser.add_argument("--device", help="default: the accelerator, without one the CPU")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--small", action="store_true", help="the small shape, which is what a CPU gets")
    parser.add_argument("--plan", action="append", help="only this plan (may be repeated)")
    parser.add_argument("--runs", type=int, default=3, help="measured films of each case, at most (default: 3)")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="end within so many seconds from the start: with fewer films of a case, and without the last cases if "
        "need be (default: no end)",
    )
    parser.add_argument(
        "--full-steps",
        type=int,
        metavar="N",
        help=f"guided steps of the whole clip that are measured, then scaled to {FULL_STEPS} (default: {FULL_STEPS}, "
        "with a budget 10)",
    )
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    parser.add_argument("--out", type=Path, help="default: bench/results/gpu.json, at the small shape gpu-small.json")
    args = parser.parse_args(argv)
    if args.runs < 1 or (args.full_steps is not None and args.full_steps < 1):
        raise ValueError("--runs and --full-steps are at least 1")
    if args.budget is not None and not args.budget > 0:
        raise ValueError("--budget is a number of seconds above 0")
    return args


class Report:
    """What is known so far, on the screen and in the file. A write that fails is told, and the next one tried."""

    def __init__(self, name: str, path: Path | None, head: dict[str, Any], budget: Budget) -> None:
        self._name, self._path, self._budget = name, path, budget
        self._full: dict[str, Any] = {}  # before rounding, as the ratios want it
        self.result: dict[str, Any] = {
            **machine(),
            **head,
            "complete": False,
            "elapsed_s": 0.0,
            "full": None,
            "plans": [],
            "left_out": [],
            "paper_ratio": PAPER_RATIO,
        }
        print(f"{head['shape']}, {head['device']}, {head['dtype']}, attention {head['attention']}, random weights")
        print(_HEADER, flush=True)
        self.write()

    def add(self, plan: str, window: int | None, figures: dict[str, Any]) -> None:
        """Add a row: what was measured, or the `error` that came instead."""
        if plan == "full":
            self._full = figures
            self.result["full"] = _rounded({"plan": plan, **figures})
        else:
            if "error" not in figures and "diffusion_s" in self._full:
                figures["ratio_to_full"] = self._full["diffusion_s"] / figures["diffusion_s"]
                if "end_to_end_s" in figures:
                    figures["ratio_to_full_end_to_end"] = self._full["end_to_end_s"] / figures["end_to_end_s"]
            self.result["plans"].append(_rounded({"plan": plan, "window": window, **figures}))
        print(_row(_label(plan, window), figures), flush=True)
        self.write()

    def leave_out(self, plan: str, window: int | None, expected_s: float, left_s: float) -> None:
        """Name a row that has no figures for want of time. left_s: when it began, or would have begun."""
        left_s = max(0.0, left_s)
        figures = {"expected_s": expected_s, "left_s": left_s, "begun": expected_s < left_s}
        self.result["left_out"].append(_rounded({"plan": plan, "window": window, **figures}))
        why = "stopped, slower than expected" if figures["begun"] else "left out"
        print(f"{_label(plan, window):26}  {why}: {expected_s:.1f} s expected, {left_s:.1f} s left", flush=True)
        self.write()

    def finish(self) -> int:
        """Write that this is all, and return the exit code: 1 if that failed."""
        self.result["complete"] = True
        path = self.write()
        if path is not None:
            print(path)
        return int(path is None)

    def write(self) -> Path | None:
        """Write all there is; return where, or None if that failed."""
        self.result["elapsed_s"] = round(self._budget.clock(), 1)
        try:
            return write_result(self._name, self.result, self._path)
        except OSError as error:
            print(f"bench gpu: the result could not be written: {error}", file=sys.stderr, flush=True)
            return None


def measure_all(rig: Rig, report: Report, cases: Sequence[Case], runs: int, full_steps: int) -> None:
    """Measure the whole clip and then the cases; report of each its figures, why it failed, or that it is left out.

    A case gets a second run only if all the later ones are expected to get their first.
    """
    requests = [Request("benchmark", plan=plan, window=window, seed=1) for plan, window in cases]
    for index, (plan, window) in enumerate([("full", None), *cases]):
        left_s, later = rig.budget.left(), requests[index:]
        expected_s = 0.0 if plan == "full" else rig.expect(requests[index - 1])
        try:
            if expected_s >= left_s:
                raise OutOfTime
            full = plan == "full"
            figures = rig.measure_full(full_steps) if full else rig.measure(requests[index - 1], runs, later)
        except OutOfTime:
            report.leave_out(plan, window, expected_s, left_s)
            continue
        except Exception as error:  # whatever it is, the next plan may do without
            figures = {"error": _told(error)}
        if "error" in figures:
            _free_memory()  # not before: the exception held the tensors of the film that failed
        report.add(plan, window, figures)


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])[:_LONGEST_ERROR]


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):  # after some errors the device does nothing any more
            torch.cuda.empty_cache()


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Floats to four digits."""
    return {key: float(f"{v:.4g}") if isinstance(v, float) else v for key, v in figures.items()}


_COLUMNS = (
    ("FPS diffusion", "diffusion_fps"),
    ("FPS end to end", "end_to_end_fps"),
    ("with tiny decoder", "end_to_end_fps_tiny_decoder"),
    ("first frame s", "first_frame_s"),
    ("unit s", "unit_s_median"),
    ("p95", "unit_s_p95"),
    ("GB", "peak_memory_gb"),
    ("TFLOP", "cost_tflop"),
    ("TFLOP/s", "achieved_tflop_per_s"),
)
_HEADER = f"{'plan':26}" + "".join(f"{title:>{max(10, len(title) + 2)}}" for title, _ in _COLUMNS) + "  x full  runs"


def _label(plan: str, window: int | None) -> str:
    return f"full, {FULL_STEPS} guided" if plan == "full" else f"{plan}, window {window or 'all'}"


def _row(label: str, row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{label:26}  failed: {row['error']}"
    cells = "".join(f"{_cell(row, key, '.3g'):>{max(10, len(title) + 2)}}" for title, key in _COLUMNS)
    return f"{label:26}{cells}{_cell(row, 'ratio_to_full', '.1f'):>8}{row['runs']:>6}"


def _cell(row: dict[str, Any], key: str, form: str) -> str:
    return format(row[key], form) if key in row else "-"
