"""Crops: a square window of the frame that a step trains on, with clips whose thing lies in it (`Share.crop`).

Most of a picture is scenery, which is learnt long before things are. Positions are those of a whole batch, so that all
crops of a step are cut at one window; what differs from clip to clip is whether there is anything to see in it.

Shapes: B clips, h w latent height and width; 2 things, in the order of the caption.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from videoar.plan import Grid

from .flow import Noise

CANDIDATES = 4  # for every crop: 42% of clips have their thing in a random quarter of the frame, of those chosen 98%


@dataclass(frozen=True)
class Window:
    """The tokens of a frame that a step trains on. corner: their first row and column; part: of the step's plan."""

    corner: tuple[int, int]
    part: Grid
    frame: Grid

    @classmethod
    def drawn(cls, part: Grid, frame: Grid, noise: Noise) -> Window:
        """Return a window anywhere in the frame, the same one in all processes."""
        if (part.H, part.W) == (frame.H, frame.W):
            return cls((0, 0), part, frame)
        return cls((noise.below(frame.H - part.H + 1), noise.below(frame.W - part.W + 1)), part, frame)

    @property
    def is_whole(self) -> bool:
        return (self.part.H, self.part.W) == (self.frame.H, self.frame.W)

    def cut(self, latents: Tensor) -> Tensor:
        """Return the window of latents [..., h, w] of whole frames, as a view."""
        top, left = self.corner
        high, wide = latents.shape[-2] // self.frame.H, latents.shape[-1] // self.frame.W  # latent cells of a token
        rows = slice(top * high, (top + self.part.H) * high)
        columns = slice(left * wide, (left + self.part.W) * wide)
        return latents[..., rows, columns]

    def holds(self, paths_B24: Tensor) -> Tensor:
        """Return [B], true where the centre of the first thing is in the window. paths_B24: of one latent frame."""
        x, y = paths_B24[:, 0, 0], paths_B24[:, 0, 1]
        row, column = (1 - y) * (self.frame.H / 2), (1 + x) * (self.frame.W / 2)
        top, left = self.corner
        vertically = (top <= row) & (row < top + self.part.H)
        return vertically & (left <= column) & (column < left + self.part.W)

    def choose(self, paths_B24: Tensor, size: int) -> Tensor:
        """Return the numbers of `size` candidates: first those whose thing is in the window, in order, then others.

        It waits for no device.
        """
        return self.holds(paths_B24).byte().argsort(descending=True, stable=True)[:size]
