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
from .drift import drift, summarise_drift
from .playbench import (
    NOT_VBENCH,
    SUMS,
    Case,
    codec_psnr,
    evaluate,
    fingerprint,
    held_out_cases,
    make,
    render_of,
    seams_of,
    summarise,
    through_codec,
)
from .report import drawing, markdown, rows_of, tables
from .score import DIMENSIONS

CLIPS, SEEDS, LONG_FILMS = 200, 3, 8
FEWEST_CLIPS = 2  # the control holds every clip against another prompt
_SHOWN = 24
_HEADLINES = ("scene", "color", "subject", "motion", *SUMS)
_COLUMNS = 4  # prompts on the sheet of everything


def main(argv: Sequence[str] | None = None) -> int:
    """Returns an exit code: 0, 2 for input that cannot be used, 130 after Ctrl-C (finished clips are kept)."""
    parser = argparse.ArgumentParser(
        prog="videoar evaluate",
        description="Held-out prompts, generated and read back by an analytic detector: every plan of the model, three "
        "films of each prompt, controls, long films, and beside the JSON a page, a drawing and a contact sheet.",
    )
    parser.add_argument("--quick", action="store_true", help="the model's best plan only, one film of each prompt")
    parser.add_argument("--plan", help="this plan only")
    parser.add_argument("--clips", type=whole, default=CLIPS, metavar="N", help="prompts (default: %(default)s)")
    parser.add_argument("--steps", type=whole, metavar="N", help="denoising steps per unit")
    parser.add_argument("--guidance", type=number, dest="guidance_scale", metavar="G", help="guidance scale, 1 is off")
    parser.add_argument("--base", metavar="DIR", help="model folder of the base, for a row of it: all at once")
    parser.add_argument(
        "--drift",
        type=whole,
        default=4,
        metavar="N",
        help="long films of N clips' length, 0 for none (default: %(default)s)",
    )
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
    if not 0 <= arguments.drift <= 100:
        raise ValueError(f"--drift is a number from 0 to 100, not {arguments.drift}")
    if arguments.quick and arguments.base:
        raise ValueError("--base is for the whole evaluation; leave out --quick")
    out.parent.mkdir(parents=True, exist_ok=True)

    model = load(arguments)
    base = load(argparse.Namespace(**{**vars(arguments), "model": arguments.base})) if arguments.base else None
    plans = [request.plan] if request.plan else list(model.info.plans[: 1 if arguments.quick else None])
    requests = [dataclasses.replace(request, plan=plan) for plan in plans]
    base_request = Request("-", "full")
    for one in requests:
        resolve(model, one)
    if base is not None:
        resolve(base, base_request)
    seeds = 1 if arguments.quick else SEEDS
    cases = held_out_cases(arguments.clips, seeds)
    begin = time.perf_counter()
    progress = out.with_suffix(".clips.jsonl")
    results, shown = _measure(model, cases, requests, progress, controls=not arguments.quick)
    summaries = {plan: summarise(results[plan]) for plan in results}
    first = results[str(requests[0].plan)]
    table = summaries[str(requests[0].plan)]
    settings = resolve(model, requests[0])
    report = {
        **{name: table["model"][name]["share"] for name in _HEADLINES if name in table["model"]},
        "note": NOT_VBENCH,
        "rows": table,
        "plans": {
            plan: {**{row: rows[row] for row in ("model", "shuffled")}, "seams": seams_of(results[plan])}
            for plan, rows in summaries.items()
        },
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
    }
    if base is not None:
        made, _ = _measure(base, cases, [base_request], progress, references=False)
        how = resolve(base, base_request)
        said = f"all at once, {len(how.sigmas)} steps, guidance {how.guidance_scale:g}"
        report["base"] = {**summarise(made["full"]), "settings": said, "weights": fingerprint(base)}
    if not arguments.quick and arguments.drift:
        long = list(drift(model, cases[:LONG_FILMS], requests[0], arguments.drift, progress))
        pieces = summarise_drift(long, model.info.frames / model.info.fps)
        report["drift"] = {"films": len(long), "plan": requests[0].plan, "pieces": pieces}
    report |= {"seconds": round(time.perf_counter() - begin, 1), **machine()}
    write_result(out, report)
    written = [out]
    if not arguments.quick:
        page, picture, sheet = (out.with_suffix(suffix) for suffix in (".md", ".svg", ".png"))
        picture.write_text(drawing(report), encoding="utf-8")
        columns = min(_COLUMNS, arguments.clips)
        contact_sheet(*_everything(model, base, base_request, cases[:columns], requests), sheet, columns, shown=4)
        page.write_text(markdown(report, picture.name, sheet.name), encoding="utf-8")
        written += [page, picture, sheet]
    progress.unlink(missing_ok=True)
    if arguments.contact_sheet and shown:
        contact_sheet([video for video, _ in shown], [_verdict(result) for _, result in shown], arguments.contact_sheet)
    print(tables(rows_of(report)))
    print(f"\ncodec: {report['codec_psnr_db']} dB, 5th percentile {report['codec_psnr_db_p5']} dB")
    print("\n".join(map(str, written)))
    return 0


def _everything(
    model: Model, base: Model | None, base_request: Request, cases: list[Case], requests: list[Request]
) -> tuple[list[np.ndarray], list[str]]:
    """The clips of the contact sheet and their captions: a column for each of these prompts; a row for the renders,
    what the codec makes of them, the base, and each plan.
    """
    clips, captions = [], []
    real = {case.index: render_of(model, case) for case in cases}
    for case in cases:
        clips.append(real[case.index].numpy())
        captions.append(case.prompt)
    for case in cases:
        clips.append(through_codec(model, real[case.index]))
        captions.append("through the codec")
    for network, request in [*([(base, base_request)] if base else []), *((model, request) for request in requests)]:
        for case in cases:
            clips.append(make(network, case, request))
            captions.append("base" if network is base else str(request.plan))
    return clips, captions


def _measure(
    model: Model,
    cases: list[Case],
    requests: list[Request],
    progress: Path,
    references: bool = True,
    controls: bool = False,
) -> tuple[dict[str, list[dict[str, Any]]], list[tuple[np.ndarray, dict[str, Any]]]]:
    """The results of each plan, and the first clips that were made now rather than found in `progress`."""
    from tqdm import tqdm

    results: dict[str, list[dict[str, Any]]] = {}
    shown: list[tuple[np.ndarray, dict[str, Any]]] = []
    with tqdm(total=len(cases) * len(requests), unit="clip") as bar:
        for request in requests:
            rows = results[str(request.plan)] = []
            # The renders are the same for every plan: they are read once.
            read = references and request is requests[0]
            for result in evaluate(model, cases, request, progress, read, controls and read):
                video = result.pop("video", None)
                if video is not None and len(shown) < _SHOWN:
                    shown.append((video, result))
                rows.append(result)
                bar.update()
    return results, shown


def _verdict(result: dict[str, Any]) -> str:
    said = [(name.replace("_", " "), result["model"][name]) for name in DIMENSIONS if name != "all"]
    told = (f"{name}: {'yes' if right else 'NO'}" for name, right in said if right is not None)
    return f"{result['prompt']}\n" + "  ".join(told)
