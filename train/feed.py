"""What each training step is given: a plan, clips or excerpts of them, their captions and noise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch

from videoar.plan import Grid, Plan, PlanSpec

from . import places
from .crops import CANDIDATES, Window
from .data import pad
from .flow import Draw, Noise
from .presets import FlowPreset, Share

Embed = Callable[[list[str]], torch.Tensor]


def excerpts(clips: torch.Tensor, dim: int, frames: int, starts: list[int]) -> torch.Tensor:
    """Return a few consecutive latent frames, which are dimension `dim`, of each clip, from a place of its own."""
    return torch.stack([clip.narrow(dim - 1, start, frames) for clip, start in zip(clips, starts, strict=True)])


def excerpt_shift(shift: float, part: float) -> float:
    """Return the shift for a `part` of a clip: fewer tokens tell less of what noise hides (Esser et al., 2024, 5.3.2).

    It is never below 1, which is no shift at all.
    """
    return max(1.0, shift * part**0.5)


def clips_of(batch: int, part: Grid, clip: Grid) -> int:
    """Return how many excerpts or crops of this size stand for a batch of whole clips, so that steps are as large."""
    return batch * (clip.T // part.T) * (clip.H * clip.W // (part.H * part.W))


class Curriculum:
    """Which plan a step trains: drawn at random from the preset's shares that are on at this part of the training."""

    def __init__(self, shares: Sequence[Share], grid: Grid, seed: int | str):
        self.seed = seed
        self.plans = [(PlanSpec.parse(s.plan).build(s.grid(grid)), s) for s in shares]

    def pick(self, step: int, progress: float) -> Plan:
        """Return the plan of a step. progress: of the stage, in [0, 1)."""
        now = [(plan, share.share) for plan, share in self.plans if share.begin <= progress < share.end]
        if not now:
            raise ValueError(
                f"no plan of the preset is on at {progress:.0%} of its stage: see Share.begin and Share.end"
            )
        rng = random.Random(f"plan-{self.seed}-{step}")
        return rng.choices([plan for plan, _ in now], [share for _, share in now])[0]

    def every_plan(self) -> list[Plan]:
        """Return all plans of the stage, each once."""
        return list(dict.fromkeys(plan for plan, _ in self.plans))


def own_part(drawn: list, part: int, parts: int) -> list:
    """Return one process's part of what was drawn for the clips of all processes."""
    size = len(drawn) // parts
    return drawn[part * size : (part + 1) * size]


class PoolFeed:
    """Draws from a pool on disk, the same ones for the same seed and step on any number of processes.

    text: None where the source keeps the embeddings of its captions. fps: of the clips, from which follows where things
    are in each latent frame. part, parts: which of how many equal parts of a step's clips `draw` returns.
    """

    def __init__(
        self,
        source,
        text: Embed | None,
        grid: Grid,
        preset: FlowPreset,
        fps: float,
        seed: int,
        device: torch.device,
        latents: bool = True,
    ):
        self.source, self.text, self.grid, self.preset = source, text, grid, preset
        self.fps, self.seed, self.device, self.latents = fps, seed, device, latents
        self.curriculum = Curriculum(preset.plans, grid, seed)
        kept = source.no_text()
        self.no_text_1LE = (self._embed([""]) if kept is None else kept[None].float()).to(device)

    def draw(self, step: int, part: int = 0, parts: int = 1) -> Draw:
        preset, seed, full = self.preset, self.seed, self.grid.T
        plan = self.curriculum.pick(step, step / preset.steps)
        size = clips_of(preset.batch, plan.grid, self.grid)
        noise = Noise(random.Random(f"noise-{seed}-{step}").getrandbits(62), part, parts, self.device)
        window = Window.drawn(plan.grid, self.grid, noise)
        clips, starts = self._choose(step, size * parts, window)
        batch = self.source.batch(step, size, part, parts, latents=self.latents, clips=clips)
        rng = random.Random(f"drop-{seed}-{step}")
        dropped = own_part([rng.random() < preset.text_drop for _ in range(size * parts)], part, parts)
        if batch.text is not None:
            embeddings = pad(batch.text, self.no_text_1LE.shape[1])
            embeddings[torch.tensor(dropped)] = self.no_text_1LE.cpu()
        else:
            prompts = ["" if drop else prompt for drop, prompt in zip(dropped, batch.prompts, strict=True)]
            embeddings = self._embed(prompts)
        latents, told = batch.latents_BCFHW, None
        if preset.places is not None and batch.worlds is not None:
            told = places.paths(batch.worlds, full, self.fps)
        if latents is not None:
            latents = window.cut(latents)
        if latents is not None and full > plan.grid.T:
            starts = own_part(starts, part, parts)
            latents = excerpts(latents, 2, plan.grid.T, starts)
            told = None if told is None else excerpts(told, 1, plan.grid.T, starts)
        return Draw(
            step=step,
            plan=plan,
            shift=excerpt_shift(preset.shift, math.prod(plan.grid) / math.prod(self.grid)),
            text_BLE=embeddings.to(self.device),
            no_text_1LE=self.no_text_1LE,
            noise=noise,
            latents_BCFHW=None if latents is None else latents.to(self.device),
            paths_BF24=told,
            corner=window.corner,
            frame=self.grid,
        )

    def _choose(self, step: int, count: int, window: Window) -> tuple[list[int] | None, list[int]]:
        """Return the clips of a step, None for those that the source draws, and where their excerpts begin.

        For a crop they are chosen for their things; where no worlds are known they are any clips.
        """
        frames, wanted = window.part.T, count if window.is_whole else count * CANDIDATES
        rng = random.Random(f"excerpt-{self.seed}-{step}")
        starts = [rng.randrange(self.grid.T - frames + 1) for _ in range(wanted)]
        if window.is_whole:
            return None, starts
        clips = [rng.randrange(len(self.source)) for _ in range(wanted)]
        worlds = self.source.worlds_of(clips)
        if worlds is None:
            return clips[:count], starts[:count]
        middles = torch.tensor(starts) + frames // 2
        paths_B24 = places.paths(worlds, self.grid.T, self.fps)[torch.arange(wanted), middles]
        best = window.choose(paths_B24, count).tolist()
        return [clips[i] for i in best], [starts[i] for i in best]

    @torch.no_grad()
    def _embed(self, prompts: list[str]) -> torch.Tensor:
        if self.text is None:
            raise ValueError("the data keep no embeddings of their captions, so that a text encoder is needed")
        return self.text(prompts)
