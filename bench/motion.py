"""How much the films of a model move, beside renders of the same worlds: no detector, only latents.

The mean absolute step between neighbouring latent frames, in the first and in the second half of a clip: a model that
forgets to move does so more and more. Flicker counts as motion. Worlds are held-out ones; a film is made with the
settings of the model folder. How far worlds move differs a lot, so that films are compared with their own worlds alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.judge import latent_steps, motion_by_half
from train.presets import ServePreset
from train.sample import clip_noise, sample_latents
from videoar.checkpoint import Model, load_model
from videoar.decoder import StreamDecoder
from videoar.evaluate.playbench import Case, held_out_cases
from videoar.plan import Plan, PlanSpec
from videoar.playworld import render

from .machine import machine, write_result

SEED, BATCH, RESAMPLES = 5, 8, 2000
HALVES = ("first", "second")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench motion", description=__doc__)
    parser.add_argument("model", nargs="?", metavar="FOLDER", help="model folder (default: the built-in model)")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--plan", help="unit type (default: the model's best)")
    parser.add_argument("--out", type=Path, help="default: bench/results/motion.json")
    args = parser.parse_args(argv)
    model = load_model(args.model, dtype="float32")
    info = model.info
    if info.height != info.width or info.frames < 9:
        raise ValueError(
            "Playworld is drawn in square pictures, and halves of a clip want 9 frames or more: "
            f"{info.name} makes {info.frames} frames of {info.width}x{info.height}"
        )
    plan = PlanSpec.parse(args.plan or info.plans[0]).build(model.grid(info))
    cases = held_out_cases(args.prompts, seed=SEED)
    films, real = films_of(model, cases, plan), renders_of(model, cases)
    result = machine() | {
        "model": info.name,
        "weights": dict(info.provenance),
        "plan": str(plan.spec),
        "prompts": args.prompts,
        "steps": info.steps,
        "guidance_scale": info.guidance_scale,
        "films": summary(films),
        "real": summary(real),
        "films_over_real": compare(films, real),
    }
    for name in ("films", "real", "films_over_real"):
        print(f"{name}: {result[name]}")
    print(write_result("motion", result, args.out))
    return 0


def summary(latents_BCFHW: Tensor) -> dict[str, Any]:
    motion = zip(HALVES, motion_by_half(latents_BCFHW), strict=True)
    steps = latent_steps(latents_BCFHW).tolist()
    return {half: round(step, 4) for half, step in motion} | {"by_frame": [round(step, 4) for step in steps]}


def compare(films_BCFHW: Tensor, real_BCFHW: Tensor) -> dict[str, dict[str, float]]:
    """For each half the motion of the films over that of real clips, with its 95% bootstrap interval over prompts."""
    films_B2, real_B2 = (np.array([motion_by_half(clip[None]) for clip in z]) for z in (films_BCFHW, real_BCFHW))
    picks = np.random.default_rng(SEED).integers(len(films_B2), size=(RESAMPLES, len(films_B2)))
    drawn = films_B2[picks].mean(1) / real_B2[picks].mean(1)
    rows = np.stack([films_B2.mean(0) / real_B2.mean(0), *np.percentile(drawn, (2.5, 97.5), axis=0)])
    names = ("ratio", "low", "high")
    return {half: dict(zip(names, rows[:, i].round(3).tolist(), strict=True)) for i, half in enumerate(HALVES)}


@torch.inference_mode()
def films_of(model: Model, cases: list[Case], plan: Plan) -> Tensor:
    """Latents of a film of each prompt, whose noise is that of its number."""
    info, parts = model.info, []
    if info.sampler == "unipc":
        raise ValueError(f"{info.name} is sampled by UniPC; motion is measured of films by Euler's method or few steps")
    scale, interval = info.guidance_scale, info.guidance_interval
    serve = ServePreset(info.sampler, info.steps, info.timesteps, info.shift, scale, interval)
    tokens = (len(plan.unit_ids()), model.transformer.config.in_channels * model.patch[1] * model.patch[2])
    draws = info.steps if info.sampler == "few_step" else 1
    for first in range(0, len(cases), BATCH):
        part = cases[first : first + BATCH]
        noise = torch.stack([clip_noise(f"motion-{case.index}", (draws, *tokens)) for case in part], dim=1).to(
            model.device
        )
        text, nothing = model.text([case.prompt for case in part]), model.text([""])
        parts.append(sample_latents(model.transformer, text, nothing, plan, serve, noise).cpu())
    return torch.cat(parts)


@torch.inference_mode()
def renders_of(model: Model, cases: list[Case]) -> Tensor:
    """Latents of the same worlds as they are drawn."""
    info, codec = model.info, StreamDecoder(model.vae)
    worlds = [[case.world] for case in cases]
    clips = (render(world, info.frames, info.height, info.fps, model.device) for world in worlds)
    return torch.cat([codec.encode(clip).float().cpu() for clip in clips])
