"""Optimizers and the learning-rate schedule shared by the stages."""

from __future__ import annotations

import torch
from torch import nn

from .muon import Muon


def make_optimizers(
    module: nn.Module, kind: str, weight_decay: float, betas: tuple[float, float] = (0.9, 0.95)
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices inside the blocks and AdamW for the rest.

    Muon (Jordan et al., 2024) orthogonalises the momentum of each matrix; `match_rms_adamw` (Moonshot, 2025) gives
    its update the size of AdamW's, so that one learning rate serves both.
    """
    trained = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    matrices = [p for n, p in trained if kind == "muon" and p.ndim == 2 and ".blocks." in f".{n}"]
    inside = {id(p) for p in matrices}
    rest = [p for _, p in trained if id(p) not in inside]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=1e-3, betas=betas, weight_decay=weight_decay)]
    if matrices:
        optimizers.append(Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def rate_at(progress: float, step: int, peak: float, warmup: int, decay: float) -> float:
    """Return the learning rate: a linear warm-up, constant, and a linear fall to zero over the last `decay` part.

    progress: the part of the training that is done, in [0, 1], by its steps or by the clock.
    """
    falling = (1 - progress) / decay if decay else 1.0
    return peak * min(1.0, (step + 1) / max(1, warmup), falling)


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: float) -> float:
    """Return the learning rate of a training that is measured in steps."""
    return rate_at(step / steps, step, peak, warmup, max(decay, 1 / steps))


def set_learning_rate(optimizers: list[torch.optim.Optimizer], lr: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
