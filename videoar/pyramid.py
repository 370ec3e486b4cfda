"""The levels of the scale unit: area-downsampled latents, re-normalised to unit variance.

Shapes: B batch, C latent channels, F latent frames, H/W latent height and width; grids are token grids (T, H, W).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .plan import Grid


def coarsen(latents_BCFHW: torch.Tensor, grid: Grid, patch: tuple[int, int, int], std: float = 1.0) -> torch.Tensor:
    """A level of the pyramid: latents averaged in space to a token grid, divided by that level's std.

    Averaging shrinks the variance of latents; std is what is left of it (ModelInfo.scale_std), 1 for the finest level.
    """
    size = (grid.H * patch[1], grid.W * patch[2])
    return _resize(latents_BCFHW, size, mode="area") / std


def enlarge(level_BCFHW: torch.Tensor, height: int, width: int, std: float = 1.0) -> torch.Tensor:
    """The opposite, bilinear: what a coarse level says about the full-size latents (a preview, not an inverse)."""
    return _resize(level_BCFHW * std, (height, width), mode="bilinear")


def _resize(latents_BCFHW: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    frames = latents_BCFHW.transpose(1, 2)
    resized = F.interpolate(frames.flatten(0, 1), size=size, mode=mode)
    return resized.unflatten(0, frames.shape[:2]).transpose(1, 2)
