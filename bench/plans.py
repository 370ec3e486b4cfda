"""One generator for frames and cubes, or one for each?

Three networks start from a preset's base stage and train for the same number of steps: one sees both plans in turn,
one cubes alone, one frames alone; then the loss of each plan is measured on the same clips. The mixed network spends
half of the compute of the two separate ones together.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import statistics
import tempfile
from pathlib import Path

import torch

from train.device import computes_in_bfloat16
from train.flow import FlowTraining
from train.generator import train
from train.judge import flow_loss
from train.presets import Share, get_preset
from train.run import Run
from train.workshop import Workshop
from videoar.transformer import VideoARTransformer3DModel

from .machine import machine, write_result

CUBE, FRAME = "cube:2x2x2", "frame"
MIXES = {
    "mixed": (Share(CUBE, 0.5), Share(FRAME, 0.5)),
    "cube": (Share(CUBE, 1.0),),
    "frame": (Share(FRAME, 1.0),),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench plans", description=__doc__)
    parser.add_argument("--preset", default="builtin-cpu")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batches", type=int, default=16, help="batches of 16 clips for the loss")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="default: bench/results/plans.json")
    args = parser.parse_args(argv)
    workshop = Workshop(get_preset(args.preset), args.runs, threads=args.threads)
    base = workshop.need("base", workshop.folder("base") / "transformer")
    text, source, grid, std = workshop.text(), workshop.source(), workshop.grid(), workshop.scale_std()
    # The error is what is compared, so it is all that is trained.
    stage = dataclasses.replace(workshop.preset.causal, places=None)
    flow = dataclasses.replace(stage, steps=args.steps, decay=0.0, warmup=20, lr=5e-4)
    losses: dict[str, dict[str, list[float]]] = {}
    for name, plans in MIXES.items():
        preset = dataclasses.replace(flow, plans=plans)
        transformer = VideoARTransformer3DModel.from_pretrained(base, torch_dtype=torch.float32).train()
        folder = Path(tempfile.mkdtemp(prefix="plans-"))
        try:
            method = FlowTraining(transformer, preset, std)
            train(Run(folder), method, text, source, grid, preset, workshop.preset.fps, seed=11, save_every=10**9)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        losses[name] = {
            plan: evaluate(transformer.eval(), preset, std, text, source, plan, args.batches) for plan in (CUBE, FRAME)
        }
    result = machine() | {
        "steps": args.steps,
        "loss": {n: {p: round(statistics.mean(v), 4) for p, v in by_plan.items()} for n, by_plan in losses.items()},
        "mixed_minus_separate": {
            plan: paired([a - b for a, b in zip(losses["mixed"][plan], losses[name][plan], strict=True)])
            for plan, name in ((CUBE, "cube"), (FRAME, "frame"))
        },
    }
    print(write_result("plans", result, args.out))
    return 0


def evaluate(transformer, preset, std, text, source, plan: str, batches: int) -> list[float]:
    """Losses of other draws of clips, captions and noise than training's, the same ones for every network."""
    losses = []
    for i in range(batches):
        batch = source.batch(10**9 + i, 16)
        with torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bfloat16()):
            losses.append(flow_loss(transformer, preset, std, batch, text(batch.prompts), plan, seed=i))
    return losses


def paired(differences: list[float]) -> dict[str, float]:
    """Mean and standard error of paired differences."""
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return {"mean": round(statistics.mean(differences), 4), "standard_error": round(error, 4)}
