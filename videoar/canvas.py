"""What is known of a clip's latents so far, and a plausible guess at the rest for previews.

Shapes: C latent channels, T/H/W token grid, h/w latent height and width, N tokens, D token values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .memory import send
from .plan import Plan, Unit
from .pyramid import enlarge
from .transformer import unpatchify

# Frames of the slab before that previews still read: one to warm the decoder up, and the one that fills its holes.
_KEPT = 2


class Canvas:
    """The finest level's latents [1, C, T, h, w] of one slab, filled in unit by unit, and the last ones before it.

    before: finished latents that precede the plan's first frame, in the shape of `latents`.
    """

    def __init__(
        self,
        plan: Plan,
        channels: int,
        patch: tuple[int, int, int],
        scale_std: Sequence[float],
        device: torch.device,
        before: torch.Tensor | None = None,
    ) -> None:
        assert patch[0] == 1, "one token frame is one latent frame"
        _, H, W = plan.grid
        self.patch, self.scale_std = patch, scale_std
        none = torch.zeros(1, channels, 0, H * patch[1], W * patch[2], device=device)
        self.latents = none if before is None else before.to(none)
        self.known = torch.ones(self.latents.shape[2], H, W, dtype=torch.bool)  # on the CPU
        self.guessed = [False] * len(self.known)  # frames that a coarser level has filled in
        self.advance(plan)

    def advance(self, plan: Plan) -> None:
        """Moves on to the next slab; of the film so far the last frames stay."""
        kept = min(_KEPT, len(self.known))
        self.plan, self.first = plan, plan.start - kept  # first: the number of the first frame that is held
        T, H, W = plan.grid
        empty = self.latents.new_zeros(*self.latents.shape[:2], T, *self.latents.shape[3:])
        self.latents = torch.cat([self.latents[:, :, len(self.known) - kept :], empty], dim=2)
        self.known = torch.cat([self.known[len(self.known) - kept :], torch.zeros(T, H, W, dtype=torch.bool)])
        self.guessed = self.guessed[len(self.guessed) - kept :] + [False] * T

    def put(self, unit: Unit, tokens_1ND: torch.Tensor) -> None:
        """Writes a generated unit. A coarse level leaves its enlarged picture as a guess for the finer ones."""
        latents = unpatchify(tokens_1ND.float(), unit.shape(), self.patch)
        frames = torch.tensor(unit.frames) - self.first
        if self.plan.scales[unit.level] > 1:
            height, width = self.latents.shape[-2:]
            there = send(frames, self.latents.device)
            self.latents[:, :, there] = enlarge(latents, height, width, self.scale_std[unit.level])
            for frame in unit.frames:
                self.guessed[frame - self.first] = True
            return
        y0, y1, x0, x1 = self.box(unit)
        self.latents[:, :, send(frames, self.latents.device), y0:y1, x0:x1] = latents
        self.known[frames, unit.rows[0] : unit.rows[1], unit.cols[0] : unit.cols[1]] = True

    def box(self, unit: Unit) -> tuple[int, int, int, int]:
        """Rows and columns (y0, y1, x0, x1) of a unit in full-size latent pixels."""
        if self.plan.scales[unit.level] > 1:
            return 0, self.latents.shape[-2], 0, self.latents.shape[-1]
        _, ph, pw = self.patch
        return unit.rows[0] * ph, unit.rows[1] * ph, unit.cols[0] * pw, unit.cols[1] * pw

    def take(self, frames: Sequence[int]) -> torch.Tensor:
        """A copy of these latent frames as they are, [1, C, n, h, w]."""
        return self.latents[:, :, send(torch.tensor(frames) - self.first, self.latents.device)]

    def filled(self, start: int, stop: int) -> torch.Tensor:
        """A copy of latent frames [start, stop) without holes.

        A missing site takes the latest earlier frame that is known there, in a film's first frames the nearest known
        site of the same frame, and if nothing of it is known, the next frame's picture.
        """
        start, stop = start - self.first, stop - self.first
        frames: list[torch.Tensor | None] = []
        held = self.latents[:, :, start - 1] if start and bool(self.known[start - 1].all()) else None
        for t in range(start, stop):
            frame, known = self.latents[:, :, t], self.known[t]
            if self.guessed[t] or bool(known.all()):
                held = frame
            elif held is not None:
                held = torch.where(self._pixels(known), frame, held)
            elif bool(known.any()):
                rows, cols = self._nearest(known)
                held = frame[..., rows, cols]
            frames.append(held)
        # Backwards, for leading frames of which nothing is known yet.
        whole, following = [], self.latents[:, :, start]
        for latest in reversed(frames):
            following = following if latest is None else latest
            whole.append(following)
        return torch.stack(whole[::-1], dim=2)

    def _pixels(self, known_HW: torch.Tensor) -> torch.Tensor:
        grown = known_HW.repeat_interleave(self.patch[1], 0).repeat_interleave(self.patch[2], 1)
        return send(grown, self.latents.device)

    def _nearest(self, known_HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For every latent pixel the row and column of the nearest known one, [h, w] each."""
        _, ph, pw = self.patch
        H, W = known_HW.shape
        sites = torch.cartesian_prod(torch.arange(H), torch.arange(W)).float()
        known = sites[known_HW.flatten()]
        nearest = known[torch.cdist(sites, known).argmin(1)].long().view(H, W, 2)
        nearest = nearest.repeat_interleave(ph, 0).repeat_interleave(pw, 1)
        rows = torch.arange(H * ph)[:, None].expand(-1, W * pw)
        cols = torch.arange(W * pw)[None, :].expand(H * ph, -1)
        rows = torch.minimum(torch.maximum(rows, nearest[..., 0] * ph), nearest[..., 0] * ph + ph - 1)
        cols = torch.minimum(torch.maximum(cols, nearest[..., 1] * pw), nearest[..., 1] * pw + pw - 1)
        return send(rows, self.latents.device), send(cols, self.latents.device)
