"""The paper's ablations on a small preset: `units` (its table 2), `cubes` (table 3), `scorers` (table 4), and `steps`.

Every arm starts from one base, is finetuned under its own plan (stage 1) and distilled (stage 2, Symmetric DMD) with
each seed; then films of held-out prompts are made and measured, the same prompts and noise for all arms. Arms are
matched in compute: as many clips and updates each, fewer where a plan has more tokens, and a single fake scorer learns
twice as often as each of two. What is done stands in the result and is not done again; a training that was stopped goes
on. Before: `adopt`, `data` and `base` of the preset (see docs/experiments.md).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from train.device import computes_in_bfloat16
from train.dmd import SCORERS, SymmetricDMD
from train.flow import FlowTraining
from train.generator import train
from train.judge import REAL, LatentDistance, films, flow_loss, unseen
from train.presets import DMDPreset, FlowPreset, ServePreset, Share, get_preset
from train.run import Run
from train.workshop import Workshop, load_transformer
from videoar.decoder import StreamDecoder
from videoar.evaluate.detect import glance
from videoar.evaluate.playbench import held_out_cases
from videoar.evaluate.seams import seam_ratio
from videoar.plan import Plan, PlanSpec
from videoar.playworld import render
from videoar.provenance import ROOT

from .experiments_report import report
from .machine import machine, read_result, write_result

CUBE = "cube:2x2x2"
SERVED = 4  # steps
STEPS = (1, 2, 4, 8)

Record = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    plan: str
    scorers: str = "both"
    seed: int = 0


def plans_of(table: str, frames: int) -> list[str]:
    """The plans of a table, for clips of so many latent frames: the more frames, the more of them are details."""
    if table == "units":
        return ["frame", "frame:2", f"key_detail:{max(2, min(4, frames // 2))}", "scale:3", CUBE]
    return ["cube:4x4x4", CUBE, "cube:1x2x2"] if table == "cubes" else [CUBE]


TABLES = ("scorers", "steps", "units", "cubes")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench experiments", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)} (default: all of them)")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=64, help="films of each arm and seed (default: 64)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--report", action="store_true", help="only write the report of what has been measured")
    parser.add_argument("--out", type=Path, help="default: bench/results/experiments.json")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "experiments.md", help="the report")
    args = parser.parse_args(argv)
    if unknown := set(args.tables) - set(TABLES):
        raise ValueError(f"there is no table {', '.join(sorted(unknown))}; choose of: {', '.join(TABLES)}")
    if args.seeds < 1 or args.clips < 20:
        raise ValueError(f"experiments want at least 1 seed and 20 films, not {args.seeds} and {args.clips}")
    if not args.report:
        w = Workshop(get_preset(args.preset), args.runs, threads=args.threads)
        if not w.preset.playworld:
            raise ValueError(f"the films are read by Playworld's detector, which {w.preset.name} knows nothing of")
        Laboratory(w, args.clips, args.out).run(args.tables or list(TABLES), args.seeds)
    result = read_result("experiments", args.out)
    if result is None:
        raise ValueError("nothing has been measured yet")
    args.docs.write_text(report(result), encoding="utf-8")
    print(args.docs)
    return 0


class Laboratory:
    """Trains the arms and measures their films; keeps every record in one result file."""

    def __init__(self, w: Workshop, clips: int, out: Path | None = None):
        self.w, self.out = w, out
        self.base = w.need("base", w.folder("base") / "transformer")
        self.text, self.source, self.grid, self.std = w.text(), w.source(), w.grid(), w.scale_std()
        self.meter = Meter(w, clips)
        weights = (self.base / "diffusion_pytorch_model.safetensors").read_bytes()
        p = w.preset
        recipe = {
            "preset": p.name,
            "base": hashlib.sha256(weights).hexdigest()[:16],
            "clips": clips,
            "clip": f"{p.frames} frames of {p.width or p.size}x{p.size}, {p.fps} a second",
            "bfloat16": computes_in_bfloat16(),
            # Results from before there were convolutions stay those of the same recipe.
            "transformer": {k: v for k, v in dataclasses.asdict(p.transformer).items() if v or k != "conv_width"},
            "base_steps": p.base.steps,
            "causal": _plain(p.causal),
            "dmd": _plain(p.dmd),
        }
        before = read_result("experiments", out)
        if before is not None and before["recipe"] != recipe:
            raise ValueError(
                f"{out or 'bench/results/experiments.json'} holds results of another base, preset or number of clips; "
                "move it away, or name another file with --out"
            )
        self.result: dict[str, Any] = before or {"recipe": recipe, "records": []}

    def run(self, tables: list[str], seeds: int) -> None:
        if "references" not in self.result:
            self.result["references"] = self.references()
            self.write()
        # Seed after seed, so that what is there when somebody stops is whole.
        for seed in range(seeds):
            for table in tables:
                if table == "scorers":
                    for scorers in ("both", *(s for s in SCORERS if s != "both")):
                        self.arm(Arm(CUBE, scorers, seed))
                elif table == "steps":
                    for steps in STEPS:
                        self.arm(Arm(CUBE, seed=seed), steps)
                else:
                    for plan in plans_of(table, self.grid.T):
                        self.arm(Arm(plan, seed=seed))

    def arm(self, arm: Arm, steps: int = SERVED) -> None:
        """Measure an arm before stage 2, with few steps and with guided steps of Euler's method, and after it."""
        shift, guidance = self.w.preset.dmd.shift, self.w.preset.serve_base.guidance_scale
        plain = ServePreset("few_step", steps, shift=shift, guidance_scale=1.0)
        self.record(arm, "causal", plain)
        self.record(arm, "causal", dataclasses.replace(plain, sampler="euler", guidance_scale=guidance))
        self.record(arm, "dmd", plain)

    def record(self, arm: Arm, stage: str, serve: ServePreset) -> None:
        scorers = arm.scorers if stage == "dmd" else None
        key: Record = {"plan": arm.plan, "seed": arm.seed, "stage": stage, "scorers": scorers}
        key |= {"sampler": serve.sampler, "steps": serve.steps, "guidance_scale": serve.guidance_scale}
        if any(key.items() <= r.items() for r in self.result["records"]):
            return
        weights, training = self.causal(arm) if stage == "causal" else self.dmd(arm)
        network = self.network(weights).eval().requires_grad_(False)
        made = films(self.w, network, self.meter.prompts, arm.plan, serve, seed=arm.seed)
        figures = self.meter.measure(made, PlanSpec.parse(arm.plan).build(self.grid))
        if stage == "causal":
            figures["flow_loss"] = self.meter.flow_loss(network, self.w.preset.causal, arm.plan, self.std)
        self.result["records"].append(key | {"figures": figures, "training": training, **machine()})
        self.write()
        print(f"{key}: {figures}", file=sys.stderr, flush=True)

    def references(self) -> dict[str, Any]:
        """What the figures of real clips, of the codec, of the base with many guided steps, and of chance are."""
        m, full = self.meter, PlanSpec("full").build(self.grid)
        network = load_transformer(self.base)
        base = films(self.w, network, m.prompts, "full", self.w.preset.serve_base)
        return {
            "real": m.figures(m.real_video, m.wanted),
            "codec": m.measure(m.real, full),
            "base": m.measure(base, full),
            "base_shuffled": m.figures(m.decode(base), m.others),
            "base_sampling": dataclasses.asdict(self.w.preset.serve_base),
        }

    def matched(self, preset: Any, plan: str) -> Any:
        """The stage under this plan alone, with as many tokens in all as a plan without coarse levels has."""
        g, tokens = self.grid, len(PlanSpec.parse(plan).build(self.grid).unit_ids())
        steps = round(preset.steps * g.T * g.H * g.W / tokens)
        return dataclasses.replace(preset, plans=(Share(plan, 1.0),), steps=steps)

    def causal(self, arm: Arm) -> tuple[dict[str, torch.Tensor], Record]:
        flow = self.matched(self.w.preset.causal, arm.plan)
        network = self.w.learns(load_transformer(self.base))
        return self.train(arm, "causal", FlowTraining(network, flow, self.std), flow)

    def dmd(self, arm: Arm) -> tuple[dict[str, torch.Tensor], Record]:
        weights, _ = self.causal(arm)
        names = SCORERS[arm.scorers]
        repeats = self.w.preset.dmd.fake_repeats * (2 if len(names) == 1 else 1)
        flow = dataclasses.replace(self.matched(self.w.preset.dmd, arm.plan), scorers=arm.scorers, fake_repeats=repeats)
        generator, *fakes = (self.w.learns(self.network(weights)) for _ in (0, *names))
        method = SymmetricDMD(generator, load_transformer(self.base), dict(zip(names, fakes, strict=True)), flow)
        return self.train(arm, f"dmd-{arm.scorers}", method, flow)

    def train(self, arm: Arm, stage: str, method, flow: FlowPreset) -> tuple[dict[str, torch.Tensor], Record]:
        """The averaged weights of a stage of an arm, and how it went; from its folder if it is there."""
        folder = self.w.folder("experiments") / arm.plan.replace(":", "-") / f"seed-{arm.seed}" / stage
        run, final = Run(folder), folder / "final.safetensors"
        if not final.exists():
            began = time.process_time()
            average = train(
                run, method, self.text, self.source, self.grid, flow, self.w.preset.fps, seed=1000 + arm.seed
            )
            _save(average, final)
            print(f"{folder}: {time.process_time() - began:.0f} s", file=sys.stderr, flush=True)
        rows = run.rows()
        gaps = [b["time"] - a["time"] for a, b in itertools.pairwise(rows)]
        training = {"steps": flow.steps, "minutes": round(sum(g for g in gaps if g < 60) / 60, 2)}
        training |= {name: round(float(rows[-1][name]), 4) for name in ("loss", "spread", "motion") if name in rows[-1]}
        return load_file(final), training

    def network(self, weights: dict[str, torch.Tensor]):
        network = self.w.new_transformer()
        network.load_state_dict(weights)
        return network

    def write(self) -> None:
        write_result("experiments", self.result | {"last": machine()}, self.out)


class Meter:
    """Measures films of the held-out prompts, as latents."""

    def __init__(self, w: Workshop, clips: int):
        p = w.preset
        self.w, self.codec, self.cases = w, w.codec(finished=True), held_out_cases(clips)
        self.prompts = [case.prompt for case in self.cases]
        self.wanted, self.others = [case.wanted for case in self.cases], [case.other for case in self.cases]
        video = render([case.world for case in self.cases], frames=p.frames, size=p.size, fps=p.fps)
        self.real_video = video.numpy()
        self.real = torch.cat([StreamDecoder(self.codec).encode(clip[None]) for clip in video]).float()
        self.unseen = unseen(w, REAL)
        assert self.unseen.latents_BCFHW is not None
        self.distance = LatentDistance(self.unseen.latents_BCFHW)
        self.energy = _energy(self.real_video)
        self.token = (8 * p.transformer.patch,) * 2

    def decode(self, latents_BCFHW: torch.Tensor) -> np.ndarray:
        return np.concatenate([StreamDecoder(self.codec).push(z[None]).numpy() for z in latents_BCFHW])

    def measure(self, latents_BCFHW: torch.Tensor, plan: Plan) -> Record:
        """frechet: distance of the latents from real ones; scene, color: share that the detector reads as asked for;
        energy: motion of the pictures beside real ones; seams: `seam_ratio` beside real ones, under the plan.
        """
        video = self.decode(latents_BCFHW)
        return {
            "frechet": round(self.distance(latents_BCFHW), 4),
            **self.figures(video, self.wanted),
            "energy": round(_energy(video) / self.energy, 4),
            "seams": self.seams(video, plan),
        }

    def figures(self, video_BTHWC: np.ndarray, wanted: list) -> Record:
        scene, color = [], []
        for clip, w in zip(video_BTHWC, wanted, strict=True):
            seen = glance(clip, len(w.things))
            scene.append(seen[0] == w.scene)
            color.append({thing.color for thing in w.things} <= set(seen[1]))
        return {"scene": round(float(np.mean(scene)), 4), "color": round(float(np.mean(color)), 4)}

    def seams(self, video_BTHWC: np.ndarray, plan: Plan) -> float | None:
        mean = []
        for clips in (video_BTHWC, self.real_video):
            values = [v for clip in clips if (v := seam_ratio(clip, plan, self.token)) is not None]
            if not values:
                return None
            mean.append(float(np.mean(values)))
        return round(mean[0] / mean[1], 4)

    def flow_loss(self, network, preset: FlowPreset, plan: str, std: dict[int, float]) -> float:
        text = self.w.text()(self.unseen.prompts)
        return round(flow_loss(network, preset, std, self.unseen, text, plan), 5)


def _energy(video_BTHWC: np.ndarray) -> float:
    """Mean step between successive pictures, 0..255."""
    return float(np.abs(np.diff(video_BTHWC.astype(np.int16), axis=1)).mean())


def _plain(preset: FlowPreset | DMDPreset) -> dict[str, Any]:
    """A stage's settings as JSON has them, without what is None (results from before a setting was there stay those of
    the same recipe); its plans are the arms'.
    """
    settings = dataclasses.asdict(preset)
    del settings["plans"]
    return json.loads(json.dumps({k: v for k, v in settings.items() if v is not None}))


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in weights.items()}, partial)
    partial.rename(path)
