"""Captioned latents to train on: a pool encoded beforehand (rendered on a CPU, from videos, or sampled from the base),
or rendered in the loop (GPU).
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from videoar.plan import latent_count
from videoar.playworld import Thing, World, caption, render, sample_world

from .presets import Preset
from .videos import Captioned, read_clip

SHARD = 128
NO_TEXT = "no_text.safetensors"


@dataclass(frozen=True)
class Batch:
    latents_BCFHW: Tensor | None
    prompts: list[str]
    text: list[Tensor] | None = None  # embeddings [L, E] without their padding, where they are kept
    worlds: list[World] | None = None  # what was drawn, where it is known


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
    """A folder of shards of encoded clips, with what their captions are made of: worlds, or captions and their
    embeddings. Shard i depends on the seed and i alone, so making it can stop and go on anywhere.

    file: what the shards' names begin with; `samples` of the base lie beside the clips that it was trained on.
    """

    def __init__(self, folder: Path, seed: int = 0, file: str = "clips"):
        self.folder, self.seed, self.file = Path(folder), seed, file
        self.folder.mkdir(parents=True, exist_ok=True)
        self.latents: list = []  # slices of the files, read when asked for
        self.worlds: list[list[World]] = []
        self.captions: list[list[str]] = []
        self.ends: list[int] = []  # clips up to the end of each shard

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def path(self, index: int) -> Path:
        return self.folder / f"{self.file}-{index:05d}.safetensors"

    @torch.inference_mode()
    def make_shard(self, index: int, preset: Preset, codec) -> None:
        """Render and encode a shard of Playworld."""
        worlds = sample_worlds(SHARD, f"pool-{self.seed}-{index}")
        parts = []
        for i in range(0, SHARD, 16):
            video = render(worlds[i : i + 16], frames=preset.frames, size=preset.size, fps=preset.fps)
            # Clip by clip: twice as fast, because what it allocates stays in the processor's cache.
            parts += [codec.encode(to_model_range(clip[None])).half() for clip in video]
        self.write(index, torch.cat(parts), worlds=[world_to_json(w) for w in worlds])

    def write(self, index: int, latents_BCFHW: Tensor, text: list[Tensor] | None = None, **metadata) -> None:
        """A whole shard under its name, or none. text: embeddings [L, E] of each caption, without their padding."""
        tensors = {"latents": latents_BCFHW.contiguous()}
        tensors |= {f"text.{i}": t.contiguous() for i, t in enumerate(text or ())}
        partial = self.path(index).with_suffix(f".partial-{os.getpid()}")
        try:
            save_file(tensors, partial, {k: json.dumps(v) for k, v in metadata.items()})
            partial.rename(self.path(index))
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise OSError(f"could not write {self.path(index)}: {error}; the shards before it are untouched") from error

    def refresh(self, most: int | None = None) -> None:
        """Map the shards that follow those already known, at most up to `most` clips in all."""
        while self.path(len(self.latents)).exists() and (most is None or len(self) < most):
            path = self.path(len(self.latents))
            try:
                file = safe_open(path, "pt")
                metadata, latents = file.metadata() or {}, file.get_slice("latents")
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged ({error}); remove it and run the stage that made it") from error
            self.worlds.append([world_from_json(w) for w in json.loads(metadata.get("worlds", "[]"))])
            self.captions.append(json.loads(metadata.get("captions", "[]")))
            self.latents.append(latents)
            self.ends.append(len(self) + latents.get_shape()[0])

    def batch(
        self,
        step: int,
        size: int,
        part: int = 0,
        parts: int = 1,
        latents: bool = True,
        clips: list[int] | None = None,
    ) -> Batch:
        """The clips of a step: a function of the step and of the size of the pool, nothing else.

        A step has size * parts clips, of which this returns one part; without `latents` only the prompts. clips: the
        numbers of all of them, where they are not to be drawn.
        """
        rng = random.Random(f"batch-{self.seed}-{step}")
        picks = [self._place(i) for i in clips or (rng.randrange(len(self)) for _ in range(size * parts))]
        prompts = [self._caption(shard, clip, rng) for shard, clip in picks][part * size : (part + 1) * size]
        own = picks[part * size : (part + 1) * size]
        text = [self._text(shard, clip) for shard, clip in own] if self.captions[own[0][0]] else None
        worlds = [self.worlds[shard][clip] for shard, clip in own] if text is None else None
        if not latents:
            return Batch(None, prompts, text, worlds)
        drawn = torch.cat([self.latents[shard][clip : clip + 1] for shard, clip in own]).float()
        return Batch(drawn, prompts, text, worlds)

    def worlds_of(self, clips: list[int]) -> list[World] | None:
        """What was drawn in these clips, or None where that is not known of all of them."""
        found = [self._place(i) for i in clips]
        return [self.worlds[s][i] for s, i in found] if all(self.worlds[s] for s, _ in found) else None

    def no_text(self) -> Tensor | None:
        """The embedding [L, E] of the empty prompt, where embeddings are kept."""
        path = self.folder / NO_TEXT
        return load_file(path)["text"] if path.exists() else None

    def _place(self, clip: int) -> tuple[int, int]:
        shard = bisect.bisect_right(self.ends, clip)
        return shard, clip - (self.ends[shard - 1] if shard else 0)

    def _caption(self, shard: int, clip: int, rng: random.Random) -> str:
        return self.captions[shard][clip] if self.captions[shard] else caption(self.worlds[shard][clip], rng)

    def _text(self, shard: int, clip: int) -> Tensor:
        with safe_open(self.path(shard), "pt") as f:
            return f.get_tensor(f"text.{clip}")


def make_video_shard(
    pool: Pool, index: int, videos: list[Captioned], preset: Preset, encode: Callable[[Tensor], Tensor], text
) -> list[str]:
    """Decode, encode and embed a shard of videos; returns a sentence about each that had to be skipped."""
    latents, captions, skipped = [], [], []
    for video in videos:
        try:
            clip = read_clip(video.path, preset.frames, preset.fps, preset.size, preset.width or preset.size)
        except ValueError as error:
            skipped.append(str(error))
            continue
        latents.append(encode(to_model_range(clip[None])).half().cpu())
        captions.append(video.caption)
    # A shard of nothing is written too: those after it are read only where none is missing.
    side = (preset.size // 8, (preset.width or preset.size) // 8)
    nothing = torch.empty(0, preset.codec.z_dim, latent_count(preset.frames), *side).half()
    embeddings = [trim(text([c])[0]) for c in captions]
    pool.write(index, torch.cat([nothing, *latents]), embeddings, captions=captions)
    return skipped


def trim(text_LE: Tensor) -> Tensor:
    """An embedding without its padding of zeros, in half precision's range of bfloat16."""
    filled = text_LE.abs().amax(1).nonzero()
    return text_LE[: int(filled.max()) + 1 if len(filled) else 0].to(torch.bfloat16).cpu()


def pad(texts: list[Tensor], length: int) -> Tensor:
    """Embeddings [B, length, E] with their padding back."""
    return torch.stack([F.pad(t.float(), (0, 0, 0, length - len(t))) for t in texts])


class Stream:
    """Clips rendered and encoded when first drawn, then kept in the device's memory; the interface of `Pool`."""

    def __init__(self, preset: Preset, codec, device, seed: int = 0):
        self.preset, self.codec, self.device, self.seed = preset, codec, device, seed
        self.kept: dict[int, Tensor] = {}
        self.worlds: dict[int, World] = {}  # known so far: those of crops are looked at four times as often as taken

    def __len__(self) -> int:
        return self.preset.pool_clips

    def refresh(self, most: int | None = None) -> None:
        """Nothing to refresh: clip i depends on the seed and i alone."""

    def no_text(self) -> None:
        """No embeddings are kept: captions are written anew for every step."""

    def worlds_of(self, clips: list[int]) -> list[World]:
        return [self.world(i) for i in clips]

    def world(self, index: int) -> World:
        if index not in self.worlds:
            self.worlds[index] = sample_worlds(1, f"stream-{self.seed}-{index}")[0]
        return self.worlds[index]

    @torch.no_grad()
    def batch(
        self,
        step: int,
        size: int,
        part: int = 0,
        parts: int = 1,
        latents: bool = True,
        clips: list[int] | None = None,
    ) -> Batch:
        rng = random.Random(f"stream-{self.seed}-{step}")
        picks = clips or [rng.randrange(len(self)) for _ in range(size * parts)]
        worlds = self.worlds_of(picks)
        own = slice(part * size, (part + 1) * size)
        prompts = [caption(w, rng) for w in worlds][own]
        if not latents:
            return Batch(None, prompts, worlds=worlds[own])
        p = self.preset
        missing = {i: w for i, w in zip(picks[own], worlds[own], strict=True) if i not in self.kept}
        for first in range(0, len(missing), 64):
            indices = list(missing)[first : first + 64]
            drawn = [missing[i] for i in indices]
            video = render(drawn, frames=p.frames, size=p.size, fps=p.fps, device=self.device)
            # Clones: a view would keep the whole chunk alive.
            latents_of = self.codec.encode(to_model_range(video)).half().unbind(0)
            self.kept.update((i, z.clone()) for i, z in zip(indices, latents_of, strict=True))
        return Batch(torch.stack([self.kept[i] for i in picks[own]]).float(), prompts, worlds=worlds[own])
