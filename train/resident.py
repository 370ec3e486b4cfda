"""Clips that lie in the device's memory, and training steps drawn from them without the host.

Shapes: n clips, B clips or excerpts of a step, C latent channels, F latent frames, h w latent height and width, K
captions of a clip, L text tokens, E width of the text.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from videoar.memory import send
from videoar.plan import Grid, Plan
from videoar.text import TextEncoder

from .crops import CANDIDATES, Window
from .feed import Curriculum, clips_of, excerpt_shift
from .flow import Draw, Noise
from .presets import FlowPreset
from .render import CAPTIONS, Shard


class ResidentClips:
    """Room for `capacity` clips on a device, filled shard by shard; `count` of them are there.

    latent_shape: (C, F, h, w). text: embeds the captions once, on this device.
    """

    def __init__(self, capacity: int, latent_shape: tuple[int, int, int, int], text: TextEncoder, device: torch.device):
        C, F, h, w = latent_shape
        self.text, self.device, self.count = text, device, 0
        width = text.encoder.config.d_model
        # Latent frames before channels: a step gathers single frames of many clips.
        self.latents_nFChw = torch.empty(capacity, F, C, h, w, dtype=torch.float16, device=device)
        self.paths_nF24 = torch.empty(capacity, F, 2, 4, device=device)
        self.text_nKLE = torch.empty(capacity, CAPTIONS, text.max_length, width, dtype=torch.bfloat16, device=device)
        self.no_text_1LE = text([""]).float()

    @staticmethod
    def bytes_for(capacity: int, latent_shape: tuple[int, int, int, int], text: TextEncoder) -> int:
        """Return the memory that so many clips take."""
        C, F, h, w = latent_shape
        embedding = CAPTIONS * text.max_length * text.encoder.config.d_model
        return capacity * (2 * C * F * h * w + 4 * F * 8 + 2 * embedding)

    @property
    def capacity(self) -> int:
        return len(self.latents_nFChw)

    @torch.no_grad()
    def add(self, shard: Shard) -> None:
        """Copy a shard to the device, as much of it as there is room for, and embed its captions."""
        size = min(len(shard.latents_BCFhw), self.capacity - self.count)
        here = slice(self.count, self.count + size)
        self.latents_nFChw[here] = send(shard.latents_BCFhw[:size], self.device).transpose(1, 2)
        self.paths_nF24[here] = send(shard.paths_BF24[:size], self.device)
        ids = send(shard.tokens_BKL[:size], self.device).long().flatten(0, 1)
        self.text_nKLE[here] = self.text.embed(ids, (ids != 0).long()).unflatten(0, (size, CAPTIONS))
        self.count += size


class ResidentFeed:
    """What `PoolFeed` gives, drawn on the device: clips by index, noise by its own generator, nothing copied.

    latents: false for a method that needs prompts alone.
    """

    def __init__(self, clips: ResidentClips, grid: Grid, preset: FlowPreset, seed: int | str, latents: bool = True):
        self.clips, self.grid, self.preset, self.seed, self.latents = clips, grid, preset, seed, latents
        self.curriculum = Curriculum(preset.plans, grid, seed)

    def draw(self, step: int, progress: float, plan: Plan | None = None) -> Draw:
        """Return a step's clips. progress: of the stage, in [0, 1), by which the plan is picked if none is given."""
        preset, clips = self.preset, self.clips
        plan = plan or self.curriculum.pick(step, progress)
        size = clips_of(preset.batch, plan.grid, self.grid)
        noise = Noise(random.Random(f"noise-{self.seed}-{step}").getrandbits(62), device=clips.device)
        window = Window.drawn(plan.grid, self.grid, noise)
        picks_B, starts_B = self._choose(size, window, noise)
        captions_B = noise.whole(size, CAPTIONS)
        text_BLE = clips.text_nKLE.flatten(0, 1).index_select(0, picks_B * CAPTIONS + captions_B).float()
        if preset.text_drop:
            dropped_B11 = noise.uniform(size, 1, 1) < preset.text_drop
            text_BLE = torch.where(dropped_B11, clips.no_text_1LE, text_BLE)
        latents, paths = None, None
        if self.latents:
            index_Bf = (picks_B * self.grid.T + starts_B)[:, None] + torch.arange(plan.grid.T, device=clips.device)
            latents = _gather(window.cut(clips.latents_nFChw), index_Bf).float().transpose(1, 2)
            paths = _gather(clips.paths_nF24, index_Bf) if preset.places is not None else None
        return Draw(
            step=step,
            plan=plan,
            shift=excerpt_shift(preset.shift, math.prod(plan.grid) / math.prod(self.grid)),
            text_BLE=text_BLE,
            no_text_1LE=clips.no_text_1LE,
            noise=noise,
            latents_BCFHW=latents,
            paths_BF24=paths,
            corner=window.corner,
            frame=self.grid,
        )

    def _choose(self, size: int, window: Window, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return the clips [size] of a step and the latent frames at which they begin, for a crop by their things."""
        clips, frames, wanted = self.clips, window.part.T, size if window.is_whole else size * CANDIDATES
        picks_B, starts_B = noise.whole(wanted, clips.count), noise.whole(wanted, self.grid.T - frames + 1)
        if window.is_whole:
            return picks_B, starts_B
        middles_B = picks_B * self.grid.T + starts_B + frames // 2
        best = window.choose(clips.paths_nF24.flatten(0, 1).index_select(0, middles_B), size)
        return picks_B.index_select(0, best), starts_B.index_select(0, best)


def _gather(kept_nF: Tensor, index_Bf: Tensor) -> Tensor:
    """Return [B, f, ...]: the frames with these numbers, counted through all clips."""
    return kept_nF.flatten(0, 1).index_select(0, index_Bf.flatten()).unflatten(0, index_Bf.shape)
