"""Stages `base` and `causal`: one loop of flow matching over a latent source, resumable to the bit on a CPU."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable

import torch
from accelerate import Accelerator

from videoar.plan import Grid, Plan, PlanSpec
from videoar.text import TextEncoder
from videoar.transformer import VideoARTransformer3DModel

from .flow import FlowMatching
from .optim import learning_rate, make_optimizers, set_learning_rate
from .presets import FlowPreset
from .run import Average, Run, flatten_optimizer, restore_optimizer


def excerpts(latents_BCFHW: torch.Tensor, frames: int, step: int, seed: int) -> torch.Tensor:
    """A few consecutive latent frames of each clip, from a place of its own."""
    rng = random.Random(f"excerpt-{seed}-{step}")
    starts = [rng.randrange(latents_BCFHW.shape[2] - frames + 1) for _ in latents_BCFHW]
    return torch.stack([clip[:, start : start + frames] for clip, start in zip(latents_BCFHW, starts, strict=True)])


def pick_plan(plans: list[tuple[Plan, float]], step: int, seed: int) -> Plan:
    rng = random.Random(f"plan-{seed}-{step}")
    return rng.choices([p for p, _ in plans], [w for _, w in plans])[0]


def train_flow(
    run: Run,
    transformer: VideoARTransformer3DModel,
    text: TextEncoder,
    source,
    grid: Grid,
    preset: FlowPreset,
    scale_std: dict[int, float],
    seed: int = 0,
    save_every: int = 200,
    compiled: bool = False,
    progress: Callable[[dict], None] = lambda row: None,
    on_save: Callable[[int, VideoARTransformer3DModel, dict], None] = lambda step, model, average: None,
) -> dict[str, torch.Tensor]:
    """Train to the preset's number of steps, continuing from the newest checkpoint; return the averaged weights.

    Everything random is a function of (seed, step), so a run that was killed and resumed is the run that was not.
    compiled: fuse the element-wise operations of the blocks (1.4 times as fast on a CPU; needs a C++ compiler).
    Raises FloatingPointError when the loss is not finite; the last checkpoint is then still good.
    """
    low_precision = "no"
    if torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported():
        low_precision = "bf16"
    accelerator = Accelerator(mixed_precision=low_precision, cpu=not torch.cuda.is_available())
    teacher = None
    if preset.teacher_guidance:
        teacher = copy.deepcopy(transformer).eval().requires_grad_(False)
    module = FlowMatching(transformer, preset, scale_std, teacher)
    optimizers = make_optimizers(module, preset.optimizer, preset.weight_decay)
    average = Average(transformer, preset.ema)
    step = 0
    if (saved := run.load()) is not None:
        tensors, info = saved
        step = info["step"]
        transformer.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        average.tensors = {k[4:]: v for k, v in tensors.items() if k.startswith("ema.")}
        for i, optimizer in enumerate(optimizers):
            restore_optimizer(optimizer, tensors, f"opt{i}")
    source.refresh()
    if not len(source):
        raise ValueError("there are no clips to train on; run `python -m train data` first")
    if compiled:
        torch._dynamo.config.recompile_limit = 64  # one graph per plan and length
        for network in (transformer, teacher):
            for block in () if network is None else network.blocks:
                block.compile()
    module = accelerator.prepare(module)
    optimizers = [accelerator.prepare(o) for o in optimizers]
    plans = [(PlanSpec.parse(s.plan).build(Grid(s.frames or grid.T, grid.H, grid.W)), s.share) for s in preset.plans]

    def save() -> None:
        inner = accelerator.unwrap_model(module).transformer
        tensors = {f"model.{k}": v for k, v in inner.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in average.tensors.items()}
        for i, optimizer in enumerate(optimizers):
            tensors |= flatten_optimizer(optimizer.state_dict(), f"opt{i}")
        if accelerator.is_main_process:
            run.save(step, tensors, {"clips": len(source), "seed": seed})
            on_save(step, inner, average.tensors)
        accelerator.wait_for_everyone()

    began, first = time.monotonic(), step
    while step < preset.steps:
        if step % save_every == 0 and step > first:
            save()
            source.refresh()
        rank_step = step * accelerator.num_processes + accelerator.process_index
        plan = pick_plan(plans, step, seed)
        batch = source.batch(rank_step, preset.batch * (grid.T // plan.grid.T))
        rng = random.Random(f"drop-{seed}-{rank_step}")
        prompts = ["" if rng.random() < preset.text_drop else p for p in batch.prompts]
        with torch.no_grad():
            embeddings = text(prompts).to(accelerator.device)
            no_text = text([""]).to(accelerator.device)
        latents = batch.latents_BCFHW
        if plan.grid.T < grid.T:
            latents = excerpts(latents, plan.grid.T, rank_step, seed)
        with accelerator.autocast():
            noise_seed = random.Random(f"noise-{seed}-{rank_step}").getrandbits(62)
            loss = module(latents.to(accelerator.device), embeddings, plan, noise_seed, no_text)
        value = loss.item()
        if value != value or value == float("inf"):
            raise FloatingPointError(f"the loss is {value} at step {step}; the last good checkpoint is in {run.folder}")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(module.parameters(), preset.clip)
        lr = learning_rate(step, preset.steps, preset.lr, preset.warmup, preset.decay)
        set_learning_rate(optimizers, lr)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average.update(accelerator.unwrap_model(module).transformer, step)
        step += 1
        if accelerator.is_main_process:
            speed = (step - first) * preset.batch * accelerator.num_processes / (time.monotonic() - began)
            row = {
                "step": step,
                "steps": preset.steps,
                "loss": value,
                "plan": str(plan.spec),
                "frames": latents.shape[2],
                "lr": lr,
                "clips_per_s": speed,
            }
            run.log(**row)
            progress(row)
    save()
    return average.tensors
