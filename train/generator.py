"""The loop of the stages that train the transformer (base, causal, guidance, dmd), resumable to the bit on a CPU."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from videoar.plan import Grid, Plan, PlanSpec
from videoar.text import TextEncoder
from videoar.transformer import VideoARTransformer3DModel

from . import places
from .data import pad
from .device import new_accelerator
from .flow import Draw, Losses, Noise
from .optim import learning_rate, make_optimizers, set_learning_rate
from .presets import FlowPreset
from .run import Average, Run, flatten_optimizer, placed_like, restore_optimizer, whole

Row = dict[str, Any]


class Method(Protocol):
    """What is trained, and by which losses."""

    parts: dict[str, nn.Module]  # called in `losses`; each has optimizers of its own; "model" is the generator
    trained: dict[str, nn.Module]  # the weights of each part that are trained, saved and resumed
    frozen: list[nn.Module]  # teachers
    uncached: list[nn.Module]  # called with the same few shapes again and again: worth compiling
    rates: dict[str, float]  # each part's learning rate, as a multiple of the preset's
    needs_latents: bool

    def losses(self, draw: Draw) -> Losses:
        """Yields each part that learns in this step with its loss; the part has learnt when the next is asked for."""
        ...


def excerpts(clips: torch.Tensor, dim: int, frames: int, starts: list[int]) -> torch.Tensor:
    """A few consecutive latent frames, which are dimension `dim`, of each clip, from a place of its own."""
    return torch.stack([clip.narrow(dim - 1, start, frames) for clip, start in zip(clips, starts, strict=True)])


def excerpt_shift(shift: float, part: float) -> float:
    """The shift for a `part` of a clip: fewer tokens tell less of what noise hides (Esser et al., 2024, section 5.3.2).

    Never below 1, which is no shift at all.
    """
    return max(1.0, shift * part**0.5)


def pick_plan(plans: list[tuple[Plan, float]], step: int, seed: int) -> Plan:
    rng = random.Random(f"plan-{seed}-{step}")
    return rng.choices([p for p, _ in plans], [w for _, w in plans])[0]


def own_part(drawn: list, part: int, parts: int) -> list:
    """Of what was drawn for the clips of all processes, that of one."""
    size = len(drawn) // parts
    return drawn[part * size : (part + 1) * size]


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
    Raises FloatingPointError when the loss is not finite; the last checkpoint is then still good.
    """
    save_every = save_every or preset.save_every
    accelerator = new_accelerator(tracker, run.folder)
    if tracker:
        accelerator.init_trackers("videoar", {"stage": run.folder.name, "seed": seed, "steps": preset.steps})
    device = accelerator.device
    model = method.trained["model"]
    saved = run.load()
    tensors, info = saved or ({}, {"step": 0})
    step = info["step"]
    if saved:
        for name, part in method.trained.items():
            load_weights(part, tensors, name, run)
    source.refresh()
    if not len(source):
        raise ValueError("there are no clips to train on; run `python -m train data` first")
    if compiled:
        for network in method.uncached:
            compile_transformers(network, device)
    for network in [*method.parts.values(), *method.frozen]:
        network.to(device)
        if fsdp:
            shard(network, preset)
    optimizers = {
        name: make_optimizers(part, preset.optimizer, preset.weight_decay, preset.betas)
        for name, part in method.trained.items()
    }
    average = Average(model, preset.ema)
    every_optimizer = [o for part in optimizers.values() for o in part]
    if saved:
        average.tensors = {k: placed_like(tensors[f"ema.{k}"], v) for k, v in average.tensors.items()}
        for i, optimizer in enumerate(every_optimizer):
            restore_optimizer(optimizer, tensors, f"opt{i}")
    if not fsdp:
        method.parts = {name: accelerator.prepare(part) for name, part in method.parts.items()}
    plans = [(PlanSpec.parse(s.plan).build(Grid(s.frames or grid.T, grid.H, grid.W)), s.share) for s in preset.plans]

    def embed(prompts: list[str]) -> torch.Tensor:
        if text is None:
            raise ValueError("the data keep no embeddings of their captions, so that a text encoder is needed")
        with torch.no_grad():
            return text(prompts)

    kept = source.no_text()
    no_text = (embed([""]) if kept is None else kept[None].float()).to(device)

    def draw(micro: int) -> Draw:
        part = accelerator.process_index * preset.accumulate + micro
        parts = accelerator.num_processes * preset.accumulate
        plan = pick_plan(plans, step, seed)
        size = preset.batch * (grid.T // plan.grid.T)
        batch = source.batch(step, size, part, parts, latents=method.needs_latents)
        rng = random.Random(f"drop-{seed}-{step}")
        dropped = own_part([rng.random() < preset.text_drop for _ in range(size * parts)], part, parts)
        if batch.text is not None:
            embeddings = pad(batch.text, no_text.shape[1])
            embeddings[torch.tensor(dropped)] = no_text.cpu()
        else:
            prompts = ["" if drop else prompt for drop, prompt in zip(dropped, batch.prompts, strict=True)]
            embeddings = embed(prompts)
        latents, told = batch.latents_BCFHW, None
        if preset.places is not None and batch.worlds is not None:
            told = places.paths(batch.worlds, grid.T, fps)
        if latents is not None and plan.grid.T < grid.T:
            rng = random.Random(f"excerpt-{seed}-{step}")
            starts = own_part([rng.randrange(grid.T - plan.grid.T + 1) for _ in range(size * parts)], part, parts)
            latents = excerpts(latents, 2, plan.grid.T, starts)
            told = None if told is None else excerpts(told, 1, plan.grid.T, starts)
        noise = Noise(random.Random(f"noise-{seed}-{step}").getrandbits(62), part, parts, device)
        latents = None if latents is None else latents.to(device)
        shift = excerpt_shift(preset.shift, plan.grid.T / grid.T)
        return Draw(step, plan, shift, embeddings.to(device), no_text, noise, latents, told)

    def save() -> bool:
        """Whether to stop."""
        tensors = {f"{name}.{k}": v for name, part in method.trained.items() for k, v in part.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in average.tensors.items()}
        for i, optimizer in enumerate(every_optimizer):
            tensors |= flatten_optimizer(optimizer.state_dict(), f"opt{i}")
        tensors = {k: whole(v) for k, v in tensors.items()}  # every process has its shard to give
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
        lr = learning_rate(step, preset.steps, preset.lr, preset.warmup, preset.decay)
        draws = [draw(micro) for micro in range(preset.accumulate)]
        turns = [method.losses(d) for d in draws]
        row: Row = {"step": step + 1, "steps": preset.steps}
        while True:
            value, learnt, columns = torch.zeros((), device=device), None, dict[str, float]()
            for turn in turns:
                with accelerator.autocast():
                    learnt = next(turn, None)
                if learnt is None:
                    break
                loss = learnt[1] / preset.accumulate
                value += loss.detach()
                for name, number in learnt[2].items():
                    columns[name] = columns.get(name, 0.0) + number / preset.accumulate
                accelerator.backward(loss)
            if learnt is None:
                break
            name = learnt[0]
            numbers = torch.tensor([value.item(), *columns.values()], device=device)
            row |= dict(zip(("loss", *columns), accelerator.reduce(numbers, "mean").tolist(), strict=True))
            if not abs(row["loss"]) < float("inf"):
                raise FloatingPointError(
                    f"the loss of the {name} is {row['loss']} at step {step}; "
                    f"the last good checkpoint is in {run.folder}"
                )
            accelerator.clip_grad_norm_(method.trained[name].parameters(), preset.clip)
            set_learning_rate(optimizers[name], lr * method.rates[name])
            for optimizer in optimizers[name]:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if name == "model":
                average.update(model, step)
        step += 1
        if accelerator.is_main_process:
            clips = (step - first) * preset.batch * preset.accumulate * accelerator.num_processes
            plan = draws[0].plan
            row |= {
                "plan": str(plan.spec),
                "frames": plan.grid.T,
                "lr": lr,
                "clips_per_s": clips / (time.monotonic() - began),
            }
            run.log(**row)
            if tracker:
                accelerator.log({k: v for k, v in row.items() if isinstance(v, (int, float))}, step=step)
            progress(row)
    else:
        save()
    if tracker:
        accelerator.end_training()
    return {k: whole(v) for k, v in average.tensors.items()}


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
