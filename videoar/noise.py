"""Noise that belongs to a seed and a place, so that films under different plans are comparable.

Shapes: C latent channels, h/w latent height and width of a level, H/W its token grid, N tokens, D token values.
"""

from __future__ import annotations

import hashlib

import torch

from .plan import Plan, Unit
from .transformer import patchify


class NoiseField:
    """One field of Gaussian noise per (seed, level, step, latent frame), drawn when first needed, indexed by site.

    Whatever the order of the units, a site gets the same noise; a longer film begins like a shorter one. Drawn on the
    CPU in float32: the same on every device.
    """

    def __init__(self, seed: int, plan: Plan, channels: int, patch: tuple[int, int, int]) -> None:
        self.seed, self.plan, self.channels, self.patch = seed, plan, channels, patch
        self._drawn: dict[tuple[int, int, int], torch.Tensor] = {}

    def tokens(self, unit: Unit, step: int) -> torch.Tensor:
        """[1, N, D] for a unit; step 0 is the initial noise, step i what is added after step i."""
        rows, cols = slice(*unit.rows), slice(*unit.cols)
        # Counted from the finest level, whose noise must not depend on how many coarser ones precede it.
        depth = len(self.plan.scales) - 1 - unit.level
        frames = [self._frame(depth, unit.level, step, frame)[rows, cols].flatten(0, 1) for frame in unit.frames]
        return torch.cat(frames)[None]

    def forget(self, before: int) -> None:
        """Frees the noise of latent frames that are finished."""
        for key in [key for key in self._drawn if key[2] < before]:
            del self._drawn[key]

    def _frame(self, depth: int, level: int, step: int, frame: int) -> torch.Tensor:
        key = (depth, step, frame)
        if key not in self._drawn:
            size = self.plan.level_grid(level)
            # torch's CPU generator reads 32 bits of its seed: hash, or seeds that differ above them would coincide.
            digest = hashlib.blake2b(f"{self.seed}/{depth}/{step}/{frame}".encode(), digest_size=4).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
            shape = (1, self.channels, 1, size.H * self.patch[1], size.W * self.patch[2])
            field = patchify(torch.randn(shape, generator=generator), self.patch)
            self._drawn[key] = field.view(size.H, size.W, -1)
        return self._drawn[key]
