"""Where the time of a training step goes: stages 1 and 2 of a preset, in processor time (on a GPU in wall time).

Weights, codec and text encoder are those of a model folder, so that nothing has to be trained before. Clips are
rendered and encoded beforehand, as stage `data` does it; what that costs is measured beside.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator

from train.data import SHARD, Pool
from train.dmd import SCORERS, SymmetricDMD
from train.flow import FlowTraining, Noise
from train.generator import train
from train.muon import Muon
from train.presets import FlowPreset, Share, get_preset
from train.run import Average, Run
from train.workshop import Workshop
from videoar.checkpoint import Model, load_model
from videoar.codec import TinyCodec
from videoar.decoder import WanCodec
from videoar.text import TextEncoder
from videoar.transformer import VideoARTransformer3DModel

from .machine import machine, write_result

PLAN = "cube:2x2x2"
# What a step does, by the calls that do it. A network's backward pass is its own, and the loss's.
PARTS: dict[str, list[tuple[Any, str]]] = {
    "networks, forward": [(VideoARTransformer3DModel, "__call__"), (VideoARTransformer3DModel, "encode_text")],
    "networks, backward": [(Accelerator, "backward")],
    "text encoder": [(TextEncoder, "__call__")],
    "clips and captions": [(Pool, "batch")],
    "noise": [(Noise, "normal"), (Noise, "uniform")],
    "optimizers": [(torch.optim.AdamW, "step"), (Muon, "step"), (Accelerator, "clip_grad_norm_")],
    "averaged weights": [(Average, "update")],
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench profile", description=__doc__)
    parser.add_argument("--preset", default="builtin-cpu")
    parser.add_argument("--model", help="model folder (default: the built-in model)")
    parser.add_argument("--steps", type=int, default=4, help="steps of each stage, after two to warm up (default: 4)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="default: bench/results/profile.json")
    args = parser.parse_args(argv)
    if args.steps < 2 or args.steps % 2:
        raise ValueError(f"--steps is an even number (the generator learns every second step), not {args.steps}")
    workshop = Workshop(get_preset(args.preset), Path("runs"), threads=args.threads)
    model = load_model(args.model, dtype=torch.float32)
    result = machine() | {"preset": args.preset, "model": model.info.name, "plan": PLAN, "steps": args.steps}
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        pool, rendering = filled(workshop, model, Path(folder) / "data")
        stages = {}
        for stage in ("causal", "dmd"):
            stages[stage] = profile(workshop, model, pool, stage, args.steps, Path(folder) / stage)
            clips = workshop.flow(stage).batch * workshop.flow(stage).accumulate
            if stage == "causal":  # stage 2 learns from prompts alone
                rendering["of_a_step_if_in_the_loop"] = round(clips / rendering["clips_per_s"], 3)
    print(write_result("profile", result | {"stages": stages, "rendering": rendering}, args.out))
    return 0


def filled(w: Workshop, model: Model, folder: Path) -> tuple[Pool, dict[str, Any]]:
    """A pool of one shard, and what rendering and encoding it took."""
    encoder = model.vae if isinstance(model.vae, TinyCodec) else WanCodec(model.vae)
    pool, clock = Pool(folder), Clock(w.device)
    began = clock.now()
    pool.make_shard(0, w.preset, encoder)
    seconds = clock.now() - began
    pool.refresh()
    return pool, {"clips": SHARD, "clips_per_s": round(SHARD / seconds, 2)}


def profile(w: Workshop, model: Model, pool: Pool, stage: str, steps: int, folder: Path) -> dict[str, Any]:
    """Seconds a step, the share of each part, and of the networks together."""
    warm_up = 2
    flow = dataclasses.replace(w.flow(stage), plans=(Share(PLAN, 1.0),), steps=steps + warm_up, patience=0)
    method = make_method(w, model, stage, flow)
    clock = Clock(w.device)

    def progress(row: dict) -> None:
        if row["step"] == warm_up:
            clock.reset()
        clock.lap = clock.now()

    with clock.watching(PARTS):
        train(Run(folder), method, model.text, pool, w.grid(), flow, w.preset.fps, save_every=10**9, progress=progress)
    total = clock.lap - clock.began
    share = {name: round(clock.spent[name] / total, 4) for name in PARTS}
    return {
        "seconds_a_step": round(total / steps, 3),
        "networks": round(sum(v for name, v in share.items() if name.startswith("networks")), 4),
        "share": share | {"the rest": round(1 - sum(share.values()), 4)},
    }


def make_method(w: Workshop, model: Model, stage: str, flow: FlowPreset) -> Any:
    if stage == "causal":
        return FlowTraining(w.learns(copy.deepcopy(model.transformer)), flow, {})  # no coarse levels
    flow = dataclasses.replace(flow, fakes_first=0)  # type: ignore[call-arg]
    names = SCORERS[flow.scorers]  # type: ignore[attr-defined]
    generator, *fakes = (w.learns(copy.deepcopy(model.transformer)) for _ in (0, *names))
    real = copy.deepcopy(model.transformer).eval().requires_grad_(False)
    return SymmetricDMD(generator, real, dict(zip(names, fakes, strict=True)), flow)  # type: ignore[arg-type]


class Clock:
    """Adds up the time of calls, those inside others left out: an outer part has only its own."""

    def __init__(self, device: torch.device):
        self.device = device
        self.lap = 0.0
        self.reset()

    def now(self) -> float:
        if self.device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def reset(self) -> None:
        self.began, self.inner = self.now(), [0.0]
        self.spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def watching(self, parts: dict[str, list[tuple[Any, str]]]) -> Iterator[None]:
        with ExitStack() as stack:
            for name, calls in parts.items():
                for owner, method in calls:
                    stack.enter_context(patch.object(owner, method, self.timed(name, getattr(owner, method))))
            yield

    def timed(self, name: str, function: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = self.now()
            self.inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                took = self.now() - began
                inside = self.inner.pop() if len(self.inner) > 1 else 0.0
                self.spent[name] += took - inside
                self.inner[-1] += took

        return call
