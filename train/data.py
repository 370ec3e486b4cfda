"""Captioned latents to train on: a pool rendered and encoded beforehand (CPU), or rendered in the loop (GPU)."""

from __future__ import annotations

import dataclasses
import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from videoar.playworld import Thing, World, caption, render, sample_world

from .presets import Preset

SHARD = 128


@dataclass(frozen=True)
class Batch:
    latents_BCFHW: Tensor | None
    prompts: list[str]


def to_model_range(video_BTHWC: Tensor) -> Tensor:
    """uint8 [B, T, H, W, 3] to float [B, 3, T, H, W] in [-1, 1]."""
    return video_BTHWC.permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)


def sample_worlds(count: int, seed: str) -> list[World]:
    """Training worlds: held-out combinations never occur among them."""
    rng = random.Random(seed)
    return [sample_world(rng, held_out=False) for _ in range(count)]


def sample_video(preset: Preset, count: int, seed: str, frames: int | None = None, device="cpu") -> Tensor:
    """Rendered training clips [B, 3, T, H, W] in [-1, 1]."""
    worlds = sample_worlds(count, seed)
    video = render(worlds, frames=frames or preset.frames, size=preset.size, fps=preset.fps, device=device)
    return to_model_range(video)


def world_to_json(world: World) -> dict:
    return dataclasses.asdict(world)


def world_from_json(value: dict) -> World:
    things = tuple(Thing(**thing) for thing in value.pop("things"))
    return World(things=things, **value)


class Pool:
    """A folder of shards of encoded clips. Shard i depends on the seed and i alone, so making it can stop and go on
    anywhere.
    """

    def __init__(self, folder: Path, seed: int = 0):
        self.folder, self.seed = Path(folder), seed
        self.folder.mkdir(parents=True, exist_ok=True)
        self.latents: list[Tensor] = []
        self.worlds: list[list[World]] = []

    def __len__(self) -> int:
        return SHARD * len(self.latents)

    def path(self, index: int) -> Path:
        return self.folder / f"clips-{index:05d}.safetensors"

    @torch.inference_mode()
    def make_shard(self, index: int, preset: Preset, codec) -> None:
        worlds = sample_worlds(SHARD, f"pool-{self.seed}-{index}")
        parts = []
        for i in range(0, SHARD, 16):
            video = render(worlds[i : i + 16], frames=preset.frames, size=preset.size, fps=preset.fps)
            # Clip by clip: twice as fast, because what it allocates stays in the processor's cache.
            parts += [codec.encode(to_model_range(clip[None])).half() for clip in video]
        partial = self.path(index).with_suffix(".partial")
        metadata = {"worlds": json.dumps([world_to_json(w) for w in worlds])}
        save_file({"latents": torch.cat(parts).contiguous()}, partial, metadata)
        partial.rename(self.path(index))

    def refresh(self, most: int | None = None) -> None:
        """Map the shards that follow those already known, at most up to `most` clips in all."""
        while self.path(len(self.latents)).exists() and (most is None or len(self) < most):
            with safe_open(self.path(len(self.latents)), "pt") as f:
                worlds = [world_from_json(w) for w in json.loads(f.metadata()["worlds"])]
                self.latents.append(f.get_tensor("latents"))
                self.worlds.append(worlds)

    def batch(self, step: int, size: int, part: int = 0, parts: int = 1, latents: bool = True) -> Batch:
        """The clips of a step: a function of the step and of the size of the pool, nothing else.

        A step has size * parts clips, of which this returns one part; without `latents` only the prompts.
        """
        rng = random.Random(f"batch-{self.seed}-{step}")
        picks = [divmod(rng.randrange(len(self)), SHARD) for _ in range(size * parts)]
        prompts = [caption(self.worlds[shard][clip], rng) for shard, clip in picks][part * size : (part + 1) * size]
        if not latents:
            return Batch(None, prompts)
        own = picks[part * size : (part + 1) * size]
        return Batch(torch.stack([self.latents[shard][clip] for shard, clip in own]).float(), prompts)


class Stream:
    """Clips rendered and encoded in the training loop, for a GPU; the interface of `Pool`."""

    def __init__(self, preset: Preset, codec, device, seed: int = 0):
        self.preset, self.codec, self.device, self.seed = preset, codec, device, seed

    def __len__(self) -> int:
        return self.preset.pool_clips

    def refresh(self, most: int | None = None) -> None:
        """Nothing to refresh: every step has clips of its own."""

    @torch.no_grad()
    def batch(self, step: int, size: int, part: int = 0, parts: int = 1, latents: bool = True) -> Batch:
        rng = random.Random(f"stream-{self.seed}-{step}")
        worlds = sample_worlds(size * parts, f"stream-{self.seed}-{step}")
        prompts = [caption(w, rng) for w in worlds][part * size : (part + 1) * size]
        if not latents:
            return Batch(None, prompts)
        p, own, encoded = self.preset, worlds[part * size : (part + 1) * size], []
        for i in range(0, size, 64):
            video = render(own[i : i + 64], frames=p.frames, size=p.size, fps=p.fps, device=self.device)
            encoded.append(self.codec.encode(to_model_range(video)))
        return Batch(torch.cat(encoded), prompts)
