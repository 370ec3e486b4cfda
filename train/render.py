"""Clips of Playworld for a sprint, rendered and encoded by worker processes into a growing pool of files.

A shard holds, for every clip, its latents, where its things are and the tokens of some captions, so that whoever trains
on it has no Python to run for a clip. Shard i depends on the seed and i alone, and appears under its name when whole.

Shapes: B clips of a shard, C latent channels, F latent frames, h w latent height and width, K captions, L text tokens.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videoar.checkpoint import Model, load_model
from videoar.codec import TinyCodec
from videoar.decoder import WanCodec
from videoar.plan import latent_count
from videoar.playworld import caption, render

from . import places
from .data import sample_worlds, to_model_range
from .presets import Preset, get_preset

SHARD = 128
CAPTIONS = 4  # of each clip; a step draws one of them
AT_ONCE = 16  # clips rendered at once
PATIENCE = 5.0  # seconds in which a worker that was asked to end does so


@dataclass(frozen=True)
class Shard:
    """latents_BCFhw: float16. paths_BF24: see places.py. tokens_BKL: token numbers, padded with 0."""

    latents_BCFhw: Tensor
    paths_BF24: Tensor
    tokens_BKL: Tensor


def shard_path(pool: Path, index: int) -> Path:
    return pool / f"shard-{index:05d}.safetensors"


def kind_of(preset: Preset, parts: Model, seed: int) -> str:
    """Return a name for what the clips of a pool depend on: clips of two kinds do not mix."""
    codec = hashlib.sha256()
    for name, tensor in sorted(parts.vae.state_dict().items()):
        codec.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    what = [preset.size, preset.width, preset.frames, preset.fps, seed, parts.info.text_length, codec.hexdigest()]
    if getattr(parts.vae.config, "lapped", False):  # a part of the codec that none of its tensors tells
        what.append("lapped")
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


@torch.inference_mode()
def make_shard(index: int, preset: Preset, parts: Model, seed: int, clips: int = SHARD) -> Shard:
    """Render and encode a shard. The worlds are those of `data`'s pool with the same seed, held-out ones left out."""
    worlds = sample_worlds(clips, f"pool-{seed}-{index}")
    encode = parts.vae.encode if isinstance(parts.vae, TinyCodec) else WanCodec(parts.vae).encode
    latents = []
    for i in range(0, clips, AT_ONCE):
        video = render(worlds[i : i + AT_ONCE], frames=preset.frames, size=preset.size, fps=preset.fps)
        # Clip by clip: twice as fast, because what it allocates stays in the processor's cache.
        latents += [encode(to_model_range(clip[None])).half() for clip in video]
    rng = random.Random(f"captions-{seed}-{index}")
    captions = [caption(world, rng) for world in worlds for _ in range(CAPTIONS)]
    length = parts.text.max_length
    tokens = parts.text.tokenizer(
        captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    paths = places.paths(worlds, latent_count(preset.frames), preset.fps)
    return Shard(torch.cat(latents), paths, tokens.view(clips, CAPTIONS, length).to(torch.int32))


def write_shard(pool: Path, index: int, shard: Shard, kind: str) -> None:
    """Put a whole shard under its name, or none. Raises OSError (disk full, say)."""
    partial = shard_path(pool, index).with_suffix(f".partial-{os.getpid()}")
    try:
        save_file({k: v.contiguous() for k, v in vars(shard).items()}, partial, {"kind": kind})
        partial.rename(shard_path(pool, index))
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"could not write {shard_path(pool, index)}: {error}") from error


def read_shard(pool: Path, index: int, kind: str) -> Shard | None:
    """Return a shard, or None where it is not there yet. Raises ValueError for one of another kind or a damaged one."""
    path = shard_path(pool, index)
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("kind") != kind:
                raise ValueError(f"{path} holds clips of another size, codec or seed; choose another --pool")
            return Shard(*(file.get_tensor(name) for name in Shard.__dataclass_fields__))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, and it is rendered again") from error


class Workers:
    """Processes that fill a pool while something else trains on it; they end with the `with` block."""

    def __init__(self, count: int, options: Sequence[str], pool: Path):
        self.pool, self.count, self.options = pool, count, list(options)
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> Workers:
        self.pool.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        for i in range(self.count):
            command = [
                sys.executable,
                "-m",
                "train",
                "render",
                *self.options,
                "--worker",
                str(i),
                "--of",
                str(self.count),
                "--parent",
                str(os.getpid()),
            ]
            try:
                with open(self.pool / f"worker-{i}.log", "w") as log:
                    self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            except BaseException:  # interrupted, or one process too many
                self.__exit__()
                raise
        return self

    def __exit__(self, *error: Any) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def failed(self) -> str | None:
        """Return the last line of a worker that ended with an error, if there is one."""
        for i, process in enumerate(self.processes):
            if process.poll():
                lines = (self.pool / f"worker-{i}.log").read_text(errors="replace").strip().splitlines()
                return f"worker {i} ended with {process.returncode}: {lines[-1] if lines else 'it said nothing'}"
        return None

    def running(self) -> bool:
        return any(process.poll() is None for process in self.processes)


def _locked(lock: IO) -> bool:
    """Lock a file; return False where another process has. Where the file system knows no locks, all go ahead."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def main(argv: Sequence[str]) -> int:
    """Run one worker: every `--of`-th shard, beginning with number `--worker`, that is not there yet."""
    parser = argparse.ArgumentParser(prog="python -m train render", description=__doc__)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--parts", type=Path)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--clips", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--parent", type=int, help="process that wants the clips: the worker ends with it")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    # Asked for here it could be too late: whoever wanted the clips may have been killed while this process started.
    parent = args.parent or os.getppid()
    args.pool.mkdir(parents=True, exist_ok=True)
    with open(args.pool / f"worker-{args.worker}-of-{args.of}.lock", "w") as lock:
        preset, parts = get_preset(args.preset), load_model(args.parts, device="cpu", dtype=torch.float32)
        kind = kind_of(preset, parts, args.seed)
        # The same worker of another command may still be at it: one that was killed ends after its shard, and leaves
        # the rest to this one.
        while os.getppid() == parent and not _locked(lock):
            time.sleep(0.2)
        for index in range(args.worker, -(-args.clips // SHARD), args.of):
            if os.getppid() != parent:  # whoever wanted the clips was killed
                break
            if not shard_path(args.pool, index).exists():
                count = min(SHARD, args.clips - index * SHARD)
                write_shard(args.pool, index, make_shard(index, preset, parts, args.seed, count), kind)
    return 0
