"""What the training computes on, and in which precision."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from videoar.weights import cpu_computes_in_bfloat16


def computes_in_bfloat16(device: torch.device | None = None) -> bool:
    """Whether the hardware has instructions for it: that of a device, or of the one that training takes."""
    kind = device.type if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
    return kind == "cuda" or (kind == "cpu" and cpu_computes_in_bfloat16())


def check_tracker(name: str) -> str:
    """Raises ValueError for a tracker that there is not, or whose package is not installed."""
    if name not in LOGGER_TYPE_TO_CLASS:
        raise ValueError(f"there is no tracker {name!r}; choose of: {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}")
    if name not in [str(tracker.value) for tracker in get_available_trackers()]:
        raise ValueError(f"the tracker {name} needs its package: pip install {name.replace('_', '-')}")
    return name


def new_accelerator(tracker: str | None = None, folder: Path | None = None) -> Accelerator:
    """bfloat16 where the hardware computes in it, unless ACCELERATE_MIXED_PRECISION says otherwise.

    tracker: one of accelerate's, which writes to the folder if it writes to any.
    """
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "bf16" if computes_in_bfloat16() else "no")
    return Accelerator(
        mixed_precision=precision, cpu=not torch.cuda.is_available(), log_with=tracker, project_dir=folder
    )


class OneDevice:
    """A single process on a single device, with the few calls of accelerate's Accelerator that a step makes."""

    def __init__(self, device: torch.device):
        self.device = device

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=computes_in_bfloat16())

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters: Iterable[torch.nn.Parameter], most: float) -> torch.Tensor:
        """Scale the gradients to a norm of at most `most`; return the norm that they had."""
        return torch.nn.utils.clip_grad_norm_(parameters, most)
