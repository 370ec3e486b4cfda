"""`python -m videoar evaluate`, and with `--quick` a smaller one."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Model
from ..cli import add_model_options, load, number, whole
from ..provenance import RESULTS, machine, write_result
from ..request import Request, resolve
from ..sheet import contact_sheet
from .playbench import Case, codec_psnr, evaluate, fingerprint, held_out_cases, summarise
from .score import DIMENSIONS

CLIPS, SEEDS = 200, 3
FEWEST_CLIPS = 2  # the control holds every clip against another prompt
_SHOWN = 24


def main(argv: Sequence[str] | None = None) -> int:
    """Returns an exit code: 0, 2 for input that cannot be used, 130 after Ctrl-C (finished clips are kept)."""
    parser = argparse.ArgumentParser(
        prog="videoar evaluate",
        description="Held-out prompts, generated and read back by an analytic detector: every plan of the model, three "
        "films of each prompt.",
    )
    parser.add_argument("--quick", action="store_true", help="the model's best plan only, one film of each prompt")
    parser.add_argument("--plan", help="this plan only")
    parser.add_argument("--clips", type=whole, default=CLIPS, metavar="N", help="prompts (default: %(default)s)")
    parser.add_argument("--steps", type=whole, metavar="N", help="denoising steps per unit")
    parser.add_argument("--guidance", type=number, dest="guidance_scale", metavar="G", help="guidance scale, 1 is off")
    parser.add_argument("--out", type=Path, help="default: quick.json or evaluation.json in bench/results")
    parser.add_argument("--contact-sheet", type=Path, help="a PNG of the first 24 clips with what was right and wrong")
    add_model_options(parser)
    arguments = parser.parse_args(argv)
    try:
        return _run(arguments)
    except (ValueError, OSError) as error:
        print(f"videoar evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on after the last finished clip", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    # Checked before the model is loaded, which takes a while.
    if not FEWEST_CLIPS <= arguments.clips <= 100_000:
        raise ValueError(f"--clips is a number from {FEWEST_CLIPS} to 100000, not {arguments.clips}")
    request = Request("-", arguments.plan, arguments.steps, guidance_scale=arguments.guidance_scale)
    out = arguments.out or RESULTS / ("quick.json" if arguments.quick else "evaluation.json")
    for file in (out, arguments.contact_sheet):
        if file is not None and (not file.name or file.is_dir()):
            raise ValueError(f"{str(file)!r} is not the name of a file to write")
    out.parent.mkdir(parents=True, exist_ok=True)

    model = load(arguments)
    plans = [request.plan] if request.plan else list(model.info.plans[: 1 if arguments.quick else None])
    requests = [dataclasses.replace(request, plan=plan) for plan in plans]
    for one in requests:
        resolve(model, one)
    seeds = 1 if arguments.quick else SEEDS
    cases = held_out_cases(arguments.clips, seeds)
    begin = time.perf_counter()
    progress = out.with_suffix(".clips.jsonl")
    results, shown = _measure(model, cases, requests, progress)
    tables = {plan: summarise(results[plan]) for plan in results}
    first = results[str(requests[0].plan)]
    table = tables[str(requests[0].plan)]
    settings = resolve(model, requests[0])
    report = {
        **{name: table["model"][name]["share"] for name in ("scene", "color", "subject", "motion")},
        "rows": table,
        "plans": {plan: {row: rows[row] for row in ("model", "shuffled")} for plan, rows in tables.items()},
        **codec_psnr(first),
        "clips": arguments.clips,
        "seeds": seeds,
        "settings": {
            "model": model.info.name,
            "weights": fingerprint(model),
            "plan": requests[0].plan,
            "steps": len(settings.sigmas),
            "guidance_scale": settings.guidance_scale,
            "shift": model.info.shift,
        },
        "seconds": round(time.perf_counter() - begin, 1),
        **machine(),
    }
    write_result(out, report)
    progress.unlink(missing_ok=True)
    if arguments.contact_sheet and shown:
        contact_sheet([video for video, _ in shown], [_verdict(result) for _, result in shown], arguments.contact_sheet)
    for plan, rows in tables.items():
        print(f"{plan}\n{as_table(rows)}\n")
    print(f"codec: {report['codec_psnr_db']} dB, 5th percentile {report['codec_psnr_db_p5']} dB\n{out}")
    return 0


def _measure(
    model: Model, cases: list[Case], requests: list[Request], progress: Path
) -> tuple[dict[str, list[dict[str, Any]]], list[tuple[np.ndarray, dict[str, Any]]]]:
    """The results of each plan, and the first clips that were made now rather than found in `progress`."""
    from tqdm import tqdm

    results: dict[str, list[dict[str, Any]]] = {}
    shown: list[tuple[np.ndarray, dict[str, Any]]] = []
    with tqdm(total=len(cases) * len(requests), unit="clip") as bar:
        for request in requests:
            rows = results[str(request.plan)] = []
            # The renders are the same for every plan: they are read once.
            for result in evaluate(model, cases, request, progress, references=request is requests[0]):
                video = result.pop("video", None)
                if video is not None and len(shown) < _SHOWN:
                    shown.append((video, result))
                rows.append(result)
                bar.update()
    return results, shown


def as_table(table: dict[str, Any]) -> str:
    """The summary in Markdown: shares in percent."""
    lines = ["| row | " + " | ".join(DIMENSIONS) + " |", "|---" * (len(DIMENSIONS) + 1) + "|"]
    for row, figures in table.items():
        cells = [f"{100 * figures[name]['share']:.0f}" if name in figures else "-" for name in DIMENSIONS]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _verdict(result: dict[str, Any]) -> str:
    said = [(name, right) for name, right in result["model"].items() if right is not None and name != "all"]
    return f"{result['prompt']}\n" + "  ".join(f"{name}: {'yes' if right else 'NO'}" for name, right in said)
