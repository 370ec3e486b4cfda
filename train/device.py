"""What the training computes on, and in which precision."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator


def computes_in_bfloat16() -> bool:
    """Whether the hardware has instructions for it."""
    return torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()


def new_accelerator() -> Accelerator:
    """bfloat16 where the hardware computes in it, unless ACCELERATE_MIXED_PRECISION says otherwise."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "bf16" if computes_in_bfloat16() else "no")
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
