"""`python -m videoar evaluate --quick`."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..checkpoint import load_model
from .playbench import evaluate, held_out_cases, summarise
from .score import DIMENSIONS

ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns an exit code: 0, 2 for input that cannot be used, 130 after Ctrl-C (finished clips are kept)."""
    parser = argparse.ArgumentParser(
        prog="videoar evaluate", description="Held-out prompts, generated and read back by an analytic detector."
    )
    parser.add_argument("--quick", action="store_true", help="200 prompts, one plan (the only mode so far)")
    parser.add_argument("--model", help="model folder or hub id (default: the built-in model)")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--plan", default="cube")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float, dest="guidance_scale")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "quick.json")
    parser.add_argument("--contact-sheet", type=Path, help="a PNG of the first 24 clips with what was right and wrong")
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
    from tqdm import tqdm

    if not 1 <= arguments.clips <= 100_000:
        raise ValueError(f"--clips is a number from 1 to 100000, not {arguments.clips}")
    model = load_model(arguments.model)
    cases = held_out_cases(arguments.clips)
    request = {name: getattr(arguments, name) for name in ("plan", "steps", "guidance_scale")}
    progress = arguments.out.with_suffix(".clips.jsonl")
    progress.parent.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    results: list[dict[str, Any]] = []
    shown: list[tuple[np.ndarray, dict[str, Any]]] = []
    for result in tqdm(evaluate(model, cases, request, progress), total=len(cases), unit="clip"):
        video = result.pop("video", None)
        if video is not None and len(shown) < 24:
            shown.append((video, result))
        results.append(result)
    table = summarise(results)
    report = {
        **{name: table["model"][name]["share"] for name in ("scene", "color", "subject", "motion")},
        "rows": table,
        "clips": len(results),
        "settings": {
            "model": model.info.name,
            "plan": arguments.plan,
            "steps": arguments.steps or model.info.steps,
            "guidance_scale": model.info.guidance_scale
            if arguments.guidance_scale is None
            else arguments.guidance_scale,
            "shift": model.info.shift,
        },
        "seconds": round(time.perf_counter() - begin, 1),
        **_machine(),
    }
    partial = arguments.out.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=2) + "\n")
    partial.rename(arguments.out)
    progress.unlink(missing_ok=True)
    if arguments.contact_sheet and shown:
        _sheet(shown, arguments.contact_sheet)
    print(as_table(table))
    print(arguments.out)
    return 0


def as_table(table: dict[str, Any]) -> str:
    """The summary in Markdown: shares in percent."""
    lines = ["| row | " + " | ".join(DIMENSIONS) + " |", "|---" * (len(DIMENSIONS) + 1) + "|"]
    for row, figures in table.items():
        cells = [f"{100 * figures[name]['share']:.0f}" if name in figures else "-" for name in DIMENSIONS]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _sheet(shown: list[tuple[np.ndarray, dict[str, Any]]], path: Path, columns: int = 2, moments: int = 6) -> None:
    height, width = shown[0][0].shape[1:3]
    picture = Image.new(
        "RGB", (columns * (moments * width + 8), -(-len(shown) // columns) * (height + 30)), (24, 24, 28)
    )
    draw = ImageDraw.Draw(picture)
    for i, (video, result) in enumerate(shown):
        left, top = (i % columns) * (moments * width + 8), (i // columns) * (height + 30)
        draw.text((left + 2, top), result["prompt"][: moments * width // 6], fill=(240, 240, 240))
        said = [(n, v) for n, v in result["model"].items() if v is not None and n != "all"]
        text = "  ".join(f"{name}: {'yes' if right else 'NO'}" for name, right in said)
        draw.text((left + 2, top + 13), text, fill=(150, 190, 255))
        for j, moment in enumerate(np.linspace(0, len(video) - 1, moments).round().astype(int)):
            picture.paste(Image.fromarray(video[moment]), (left + j * width, top + 28))
    picture.save(path)


def _machine() -> dict[str, Any]:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    if torch.cuda.is_available():
        hardware = torch.cuda.get_device_name()
    else:
        about = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        names = [line.split(":", 1)[1].strip() for line in about if line.startswith("model name")]
        hardware = f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"
    return {"commit": commit, "hardware": hardware, "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}
