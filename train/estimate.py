"""`python -m train plan`: what the stages of a preset take in memory and time, before anything starts.

Memory is counted: parameters, gradients, optimizer state, averaged weights, caches, masks and the activations that
recomputation keeps. Time is the number of multiplications at an assumed share of the GPU's peak.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from videoar.plan import PlanSpec

from .dmd import SCORERS
from .presets import DMDPreset, FlowPreset, Preset

PEAK_FLOPS = 989e12  # dense bfloat16 of an H100
UTILISATION = 0.35  # assumed share of it
USABLE = 0.92  # of a GPU's memory: the rest is the driver's, and lost between blocks
GIB = 2**30
TRAINED = 4 + 4 + 8  # bytes a parameter: float32 weights, gradients, AdamW's two moments
CAST = 2  # bytes a parameter of the bfloat16 copy that a forward computes with
ACTIVATION = 2  # bytes a value in bfloat16


@dataclass(frozen=True)
class Estimate:
    """Of one stage on one GPU: bytes by what holds them, seconds a step, steps."""

    memory: dict[str, float]
    seconds: float
    steps: int

    @property
    def total(self) -> float:
        return sum(self.memory.values())


def parameters(workshop) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in workshop.new_transformer().parameters())


def forward_flops(preset: Preset, count: int, queries: int, keys: int) -> float:
    """Of one clip: the matrices for every token, and its attention to `keys` tokens."""
    t = preset.transformer
    return 2 * count * queries + 4 * queries * keys * t.width * t.layers


def estimate(workshop, stage: str, gpus: int, sharded: bool) -> Estimate:
    """One training step of a stage (base, causal, guidance or dmd) on `gpus` GPUs, its networks sharded among them or
    whole on each. Clips are those of one backward pass; blocks are recomputed.
    """
    preset, flow, grid = workshop.preset, workshop.flow(stage), workshop.grid()
    assert isinstance(flow, FlowPreset)
    count = parameters(workshop)
    t, parts = preset.transformer, gpus if sharded else 1
    plans = [PlanSpec.parse(s.plan).build(s.grid(grid)) for s in flow.plans]
    tokens = max(len(p.unit_ids()) for p in plans)
    one = max(len(p.units) for p in plans) == 1
    if isinstance(flow, DMDPreset):
        fakes, mask = len(SCORERS[flow.scorers]), tokens**2 if flow.scorers != "full" else 0
        networks = {
            "generator (weights, gradients, AdamW, average)": count * (TRAINED + 4),
            f"{fakes} fake scorers (weights, gradients, AdamW)": count * TRAINED * fakes,
            "real scorer (weights)": count * 4,
        }
        cache = {"keys and values of the rollout": flow.batch * tokens * 2 * t.width * t.layers * ACTIVATION}
        rollout = forward_flops(preset, count, tokens, tokens // 2) * ((flow.rollout_steps + 1) / 2 + 1)
        forward = forward_flops(preset, count, tokens, tokens)
        scoring = forward * ((1 if flow.real_guidance == 1 else 2) + fakes)
        learning = 3 * forward_flops(preset, count, tokens, tokens // 2) + scoring
        flops = rollout + learning / flow.fake_updates + 4 * forward * fakes * flow.fake_repeats
        length, casts = tokens, 2 + fakes
    else:
        length = tokens if one else 2 * tokens  # clean and noisy
        mask = 0 if one else length**2
        networks = {"transformer (weights, gradients, AdamW, average)": count * (TRAINED + 4)}
        flops, cache = 4 * forward_flops(preset, count, length, length), {}
        if flow.teacher_guidance:
            networks["teacher (weights)"] = count * 4
            flops += 2 * forward_flops(preset, count, length, length)
        casts = 1
    activations = flow.batch * length * ACTIVATION * (t.width * t.layers + 3 * t.ffn + 16 * t.width)
    memory = {name: size / parts for name, size in networks.items()}
    memory |= {"bfloat16 copies in use": count * CAST * casts, "activations": activations, **cache}
    if mask:
        memory["mask"] = mask
    return Estimate(memory, flops * flow.batch * flow.accumulate / (PEAK_FLOPS * UTILISATION), flow.steps)


def report(workshop, gpus: int, memory_gib: float) -> str:
    """What `plan` prints. Raises ValueError for numbers that are none of a machine."""
    if gpus < 1 or not memory_gib > 0:
        raise ValueError(f"a machine has at least one GPU and some memory, not {gpus} and {memory_gib:g} GiB")
    p, grid = workshop.preset, workshop.grid()
    lines = [
        f"{p.name}: {parameters(workshop) / 1e9:.2f} billion parameters; clips of {p.frames} frames of "
        f"{p.width or p.size}x{p.size}, {grid.T * grid.H * grid.W:,} tokens",
        f"{gpus} x {memory_gib:g} GiB; time at {UTILISATION:.0%} of {PEAK_FLOPS / 1e12:.0f} TFLOP/s (an assumption)",
    ]
    for stage in ("causal", "dmd"):
        whole, sharded = (estimate(workshop, stage, gpus, s) for s in (False, True))
        fits = [e.total / GIB <= memory_gib * USABLE for e in (whole, sharded)]
        best = whole if fits[0] or gpus == 1 else sharded
        flow = workshop.flow(stage)
        lines.append(
            f"\n{stage}: {flow.steps} steps of {flow.batch * flow.accumulate * gpus} clips, "
            f"{best.seconds:.3g} s each, {best.seconds * best.steps / 3600:.3g} hours in all"
        )
        lines += [f"  {size / GIB:8.2f} GiB  {name}" for name, size in best.memory.items()]
        verdict = "does not fit: take more GPUs, or GPUs with more memory"
        if fits[0]:
            verdict = "fits" if gpus == 1 else "fits, every GPU with whole networks"
        elif fits[1] and gpus > 1:
            verdict = "fits with --fsdp, which shards the networks"
        lines.append(f"  {best.total / GIB:8.2f} GiB  in all on each GPU: {verdict}")
    return "\n".join(lines)
