"""The loop of the stages that train the transformer (base, causal, guidance, dmd), resumable to the bit on a CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from videoar.plan import Grid
from videoar.text import TextEncoder
from videoar.transformer import VideoARTransformer3DModel

from .device import new_accelerator
from .feed import PoolFeed
from .learner import Columns, Learner, Method
from .optim import learning_rate
from .presets import FlowPreset
from .run import Run, flatten_optimizer, placed_like, restore_optimizer, whole

Row = dict[str, Any]


def train(
    run: Run,
    method: Method,
    text: TextEncoder | None,
    source,
    grid: Grid,
    preset: FlowPreset,
    fps: float,
    seed: int = 0,
    save_every: int | None = None,
    compiled: bool = False,
    fsdp: bool = False,
    tracker: str | None = None,
    progress: Callable[[Row], None] = lambda row: None,
    on_save: Callable[[int, dict[str, torch.Tensor]], bool] = lambda step, average: False,
) -> dict[str, torch.Tensor]:
    """Train to the preset's number of steps, continuing from the newest checkpoint; return the averaged weights.

    Everything random is a function of (seed, step), so a run that was killed and resumed is the run that was not. The
    clips of a step are shared among the processes, and those of a process among `preset.accumulate` backward passes.
    compiled: fuse the element-wise operations of the blocks (1.4 times as fast on a CPU; needs a C++ compiler, and on a
    GPU triton).
    fps: of the clips, from which follows where things are in each latent frame.
    text: None where the source keeps the embeddings of its captions.
    tracker: one of accelerate's (tensorboard, wandb, trackio ...) that gets the numbers of the log as well.
    fsdp: shard every network among the processes (torch's fully_shard). Checkpoints hold whole tensors either way, so
    that any number of processes can go on.
    on_save: called at every checkpoint with the averaged weights; true ends the training there.
    Raises FloatingPointError when a loss or a gradient is not finite; the last checkpoint is then still good.
    """
    save_every = save_every or preset.save_every
    accelerator = new_accelerator(tracker, run.folder)
    if tracker:
        accelerator.init_trackers("videoar", {"stage": run.folder.name, "seed": seed, "steps": preset.steps})
    saved = run.load()
    tensors, info = saved or ({}, {"step": 0})
    step = info["step"]
    if saved:
        for name, part in method.trained.items():
            load_weights(part, tensors, name, run)
    source.refresh()
    if not len(source):
        raise ValueError("there are no clips to train on; run `python -m train data` first")
    place(method, accelerator, preset, compiled, fsdp)
    learner = Learner(method, preset, accelerator)
    if saved:
        restore(learner, tensors)
    feed = PoolFeed(source, text, grid, preset, fps, seed, accelerator.device, method.needs_latents)
    every_part = accelerator.num_processes * preset.accumulate

    def save() -> bool:
        """Write a checkpoint; return whether to stop."""
        tensors = {k: whole(v) for k, v in state(learner).items()}  # every process has its shard to give
        stop = [False]
        if accelerator.is_main_process:
            run.save(step, tensors, {"clips": len(source), "seed": seed})
            stop = [on_save(step, {k[4:]: v for k, v in tensors.items() if k.startswith("ema.")})]
        return broadcast_object_list(stop)[0]

    began, first = time.monotonic(), step
    while step < preset.steps:
        if step % save_every == 0 and step > first:
            if save():
                break
            source.refresh()
        row: Row = {"step": step + 1, "steps": preset.steps}

        def check(name: str, columns: Columns, norm: torch.Tensor, row: Row = row, step: int = step) -> None:
            numbers = accelerator.reduce(torch.stack([v.float() for v in columns.values()]), "mean").tolist()
            row |= dict(zip(columns, numbers, strict=True))
            for what, value in (("loss", row["loss"]), ("gradient", norm.item())):
                if not abs(value) < float("inf"):
                    raise FloatingPointError(
                        f"the {what} of the {name} is {value} at step {step}; "
                        f"the last good checkpoint is in {run.folder}"
                    )

        lr = learning_rate(step, preset.steps, preset.lr, preset.warmup, preset.decay)
        own = range(accelerator.process_index * preset.accumulate, (accelerator.process_index + 1) * preset.accumulate)
        draws = [feed.draw(step, part, every_part) for part in own]
        learner.step(step, draws, lr, check)
        step += 1
        if accelerator.is_main_process:
            plan, clips = draws[0].plan, (step - first) * preset.batch * every_part
            speed = clips / (time.monotonic() - began)
            row |= {"plan": str(plan.spec), "frames": plan.grid.T, "tokens": math.prod(plan.grid)}
            row |= {"lr": lr, "clips_per_s": speed}
            run.log(**row)
            if tracker:
                accelerator.log({k: v for k, v in row.items() if isinstance(v, (int, float))}, step=step)
            progress(row)
    else:
        save()
    if tracker:
        accelerator.end_training()
    return {k: whole(v) for k, v in learner.average.tensors.items()}


def place(method: Method, accelerator: Accelerator, preset: FlowPreset, compiled: bool, fsdp: bool) -> None:
    """Bring a method's networks to their device, compiled, sharded or wrapped as asked for."""
    if compiled:
        for network in method.uncached:
            compile_transformers(network, accelerator.device)
    for network in [*method.parts.values(), *method.frozen]:
        network.to(accelerator.device)
        if fsdp:
            shard(network, preset)
    if not fsdp:
        method.parts = {name: accelerator.prepare(part) for name, part in method.parts.items()}


def state(learner: Learner) -> dict[str, torch.Tensor]:
    """Return all that a checkpoint holds: the networks' weights, the average and the optimizers' state."""
    tensors = {f"{name}.{k}": v for name, part in learner.method.trained.items() for k, v in part.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in learner.average.tensors.items()}
    for i, optimizer in enumerate(learner.every_optimizer):
        tensors |= flatten_optimizer(optimizer.state_dict(), f"opt{i}")
    return tensors


def restore(learner: Learner, tensors: dict[str, torch.Tensor]) -> None:
    """Bring the average and the optimizers to where a checkpoint left them."""
    average = learner.average
    average.tensors = {k: placed_like(tensors[f"ema.{k}"], v) for k, v in average.tensors.items()}
    for i, optimizer in enumerate(learner.every_optimizer):
        restore_optimizer(optimizer, tensors, f"opt{i}")


def load_weights(part: nn.Module, tensors: dict[str, torch.Tensor], name: str, run: Run) -> None:
    try:
        part.load_state_dict({k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")})
    except RuntimeError as error:
        raise ValueError(
            f"the checkpoint in {run.folder} is of another network than this preset's; choose the preset that it was "
            f"trained with, or move the folder away ({str(error).splitlines()[-1].strip()[:200]})"
        ) from error


def shard(network: nn.Module, preset: FlowPreset) -> None:
    """Shard every transformer inside among the processes, block by block."""
    if preset.optimizer != "adamw":
        raise ValueError(
            f"--fsdp trains with adamw; the preset's optimizer is {preset.optimizer}, which needs whole matrices"
        )
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(kind, (torch.distributed.get_world_size(),))
    for module in list(network.modules()):
        if isinstance(module, VideoARTransformer3DModel) and not isinstance(module, FSDPModule):
            for block in module.blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(module, mesh=mesh)
            register_fsdp_forward_method(module, "encode_text")


def compile_transformers(network: nn.Module, device: torch.device) -> None:
    """Compile every transformer inside: on a CPU its blocks, on a GPU what is between their matrices."""
    for module in network.modules():
        if isinstance(module, VideoARTransformer3DModel):
            if device.type != "cpu":
                module.fuse_elementwise()  # a few graphs in all; those of blocks would take minutes of a GPU's time
                continue
            torch._dynamo.config.recompile_limit = 64  # one graph per plan and length
            for block in module.blocks:
                block.compile(dynamic=False)  # shapes are few, and kernels for any shape take twice as long
