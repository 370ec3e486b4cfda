"""`python -m train sprint`: base, causal, guidance and dmd in one process, each within a budget of seconds.

For a GPU that is rented by the minute. Worker processes render clips into a growing pool, which lies in the device's
memory; the learning rate falls with the clock; weights alone are written, every minute, in pieces that can be carried
home. Text encoder and codec are those of --parts. `--check` runs some steps of every stage at full size; `--join` puts
the pieces together into a model folder.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videoar.checkpoint import Model
from videoar.memory import check_room
from videoar.plan import latent_count
from videoar.transformer import VideoARTransformer3DModel

from .device import OneDevice
from .dmd import SCORERS, SymmetricDMD
from .flow import FlowTraining
from .learner import Columns, Learner, Method
from .optim import rate_at
from .pieces import Pieces
from .presets import DMDPreset, FlowPreset, Preset
from .render import Workers, read_shard
from .resident import ResidentClips, ResidentFeed
from .workshop import Workshop

STAGES = ("base", "causal", "guidance", "dmd")
KEPT = ("causal",)  # carried home beside the newest weights: what can be trained on
ROW_EVERY, SAVE_EVERY = 5.0, 60.0  # seconds
RESTARTS = 3  # of a stage, from the last good weights
WORN = 100  # draws of every clip, on average, after which a pool is called too small for its training

Weights = dict[str, Tensor]


class Sprint:
    """What a sprint is made with and where it stands.

    parts: the model whose text encoder and codec are used. kind: that of the pool's clips (render.kind_of). weights:
    the last good weights of the stages so far, on the CPU, the newest last.
    Raises ValueError, with the numbers, where the device has no room for the pool.
    """

    def __init__(
        self,
        preset: Preset,
        parts: Model,
        device: torch.device,
        pool: Path,
        kind: str,
        pieces: Pieces,
        workers: Workers | None = None,
        seed: int = 0,
        fused: bool = True,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = print,
    ):
        self.preset, self.device, self.pool, self.kind, self.pieces = preset, device, pool, kind, pieces
        self.workers, self.seed, self.fused, self.clock, self.say = workers, seed, fused, clock, say
        self.workshop = Workshop(preset, Path(tempfile.gettempdir()), seed)
        self.weights: dict[str, Weights] = {}
        self.rows: list[dict[str, Any]] = []
        side = parts.vae.config.scale_factor_spatial
        height, width = preset.size // side, (preset.width or preset.size) // side
        shape = (parts.vae.config.z_dim, latent_count(preset.frames), height, width)
        check_room(
            {"the pool": ResidentClips.bytes_for(preset.pool_clips, shape, parts.text)}, device, "use fewer --clips"
        )
        parts.text.encoder.to(device)
        self.clips = ResidentClips(preset.pool_clips, shape, parts.text, device)
        self.scale_std = dict(zip((4, 2), parts.info.level_std(3), strict=False))
        self._shards = 0
        self._failed: str | None = None
        self.unwritten: str | None = None  # why the newest weights could not be written

    def take_in(self, most: int = 1) -> None:
        """Copy the pool's next shards to the device, as many as are there, but not more than `most`.

        Raises ValueError or OSError for the first shard, if it cannot be used; a later one is said and left out.
        """
        while most and self.clips.count < self.clips.capacity:
            try:
                if (shard := read_shard(self.pool, self._shards, self.kind)) is None:
                    return
                self.clips.add(shard)
            except (ValueError, OSError) as error:
                if not self.clips.count:
                    raise
                self.say(f"{error}; its clips are left out")
            self._shards += 1
            most -= 1

    def wait_for_clips(self, enough: int, patience: float = float("inf"), most: float = float("inf")) -> None:
        """Wait until there are so many clips, or all of them; after `patience` seconds any number will do.

        Raises ValueError where there are none and none comes within `most` seconds.
        """
        began, waited = self.clock(), 0.0
        while self.clips.count < min(enough, self.clips.capacity):
            busy = self.workers is not None and self.workers.running()  # asked first: a worker's last shard counts
            self.take_in(most=self.clips.capacity)
            waited = self.clock() - began
            if not busy or waited >= (patience if self.clips.count else most):
                break
            time.sleep(0.1)
        self._say_if_failed()
        if not self.clips.count:
            reason = self.workers and self.workers.failed()
            late = "none came in time" if waited >= most else "let --workers render some"
            raise ValueError(f"there are no clips in {self.pool}: {reason or late}")

    def network(self, weights: Weights | None = None) -> VideoARTransformer3DModel:
        """Return a new network, with these weights if there are any, on the device and ready to be trained."""
        network = self.workshop.new_transformer()
        if weights is not None:
            network.load_state_dict(weights)
        network = self.workshop.learns(network.to(self.device))
        if self.fused:
            network.fuse_elementwise()
        return network

    def method(self, stage: str) -> Method:
        """Return a stage's method, which starts from the newest weights.

        A teacher or real scorer is never a network that has its guidance distilled, nor one that the stage has begun.
        """
        preset: FlowPreset = getattr(self.preset, stage)
        newest = next(reversed(self.weights.values()), None)
        before = [weights for name, weights in self.weights.items() if name != stage]
        if not isinstance(preset, DMDPreset):
            teacher = self.network(before[-1]) if preset.teacher_guidance and before else None
            return FlowTraining(self.network(newest), preset, self.scale_std, teacher)
        if newest is None:
            raise ValueError("dmd distils a network: give seconds to a stage before it, or start from one with --init")
        real = self.network(
            next(self.weights[name] for name in ("base", "causal", "init", *self.weights) if name in self.weights)
        )
        real.eval().requires_grad_(False)
        generator, *fakes = (self.network(newest) for _ in (0, *SCORERS[preset.scorers]))
        return SymmetricDMD(generator, real, dict(zip(SCORERS[preset.scorers], fakes, strict=True)), preset)

    def feed(self, stage: str, learner: Learner) -> ResidentFeed:
        """Return a stage's draws, which are no other stage's."""
        preset, seed = getattr(self.preset, stage), f"{self.seed}-{stage}"
        return ResidentFeed(self.clips, self.workshop.grid(), preset, seed, learner.method.needs_latents)

    def run(self, stage: str, seconds: float) -> None:
        """Train a stage for so many seconds, and write its weights.

        A loss or gradient that is not finite is found before anything is saved, and takes the stage back to the last
        good weights, from which it goes on in the time that is left.
        """
        assert self.clips.count, "wait_for_clips comes first"
        began = self.clock()
        for _ in range(1 + RESTARTS):
            try:
                return self._train(stage, lambda: (self.clock() - began) / seconds)
            except FloatingPointError as error:
                self.say(f"{stage}: {error}; back to the last good weights")
        return self.say(f"{stage}: given up; the next stage starts from the last good weights")

    def _train(self, stage: str, part_done: Callable[[], float]) -> None:
        preset: FlowPreset = getattr(self.preset, stage)
        learner = Learner(self.method(stage), preset, OneDevice(self.device))
        feed = self.feed(stage, learner)
        watch, columns = Watch(self.device), Columns()
        step, row, saved = 0, (0, self.clock()), self.clock()
        while (progress := part_done() if step else 0.0) < 1:  # one step at least, however long the networks took
            lr = rate_at(progress, step, preset.lr, preset.warmup, preset.decay)
            columns |= learner.step(step, [feed.draw(step, progress)], lr, watch)
            step += 1
            self.take_in()
            now = self.clock()
            if now - row[1] >= ROW_EVERY:
                self._say_if_failed()
                watch.check(step)
                speed = preset.batch * (step - row[0]) / (now - row[1])
                self._log({"stage": stage, "step": step, "done": progress, "lr": lr, "clips_per_s": speed}, columns)
                row, columns = (step, now), Columns()
            if now - saved >= SAVE_EVERY:
                self.save(stage, learner, watch, step)
                saved = self.clock()
        self.save(stage, learner, watch, step)
        self._say_if_worn(stage, step * preset.batch / self.clips.count)

    def _log(self, row: dict[str, Any], columns: Columns) -> None:
        numbers = torch.stack([value.float() for value in columns.values()]).tolist()  # the loop waits here alone
        row |= {"pool": self.clips.count, **dict(zip(columns, numbers, strict=True))}
        row = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}
        self.rows.append(row)
        self.say(", ".join(f"{name} {value}" for name, value in row.items()))

    def save(self, stage: str, learner: Learner, watch: Watch, step: int) -> None:
        """Keep the averaged weights and write them as pieces. A full disk is said, and the training goes on."""
        watch.check(step)
        average = {name: value.detach().to("cpu", copy=True) for name, value in learner.average.tensors.items()}
        if not all(value.isfinite().all() for value in average.values()):
            raise FloatingPointError(f"weights are not finite at step {step}")
        self.weights.pop(stage, None)
        self.weights[stage] = average
        try:
            self.pieces.write(stage, average, KEPT, step=step, rows=list(self.rows))
            self.unwritten = None
        except OSError as error:
            self.unwritten = f"{stage}: {error}"
            self.say(self.unwritten)

    def _say_if_failed(self) -> None:
        """Say it once, as soon as a worker has failed: a full disk can be mended while the others go on."""
        if self._failed is None and self.workers is not None and (reason := self.workers.failed()) is not None:
            self._failed = reason
            self.say(f"fewer clips are rendered from now on: {reason}")

    def _say_if_worn(self, stage: str, draws: float) -> None:
        if draws > WORN and self.clips.count < self.clips.capacity:
            reason = self.workers and self.workers.failed()
            self.say(
                f"{stage}: the pool has {self.clips.count:,} of {self.clips.capacity:,} clips, each of which was drawn "
                f"about {draws:.0f} times: rendering is slower than training{f' ({reason})' if reason else ''}"
            )


class Watch:
    """Notes on the device what is not finite, so that no step waits to hear of it."""

    def __init__(self, device: torch.device):
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def __call__(self, name: str, columns: Columns, norm: Tensor) -> None:
        self.finite &= norm.isfinite() & columns["loss"].isfinite()

    def check(self, step: int) -> None:
        """Wait for the device. Raises FloatingPointError if there was anything since the beginning."""
        if not self.finite.item():
            raise FloatingPointError(f"a loss or gradient is not finite by step {step}")


def budgets(asked: dict[str, float], left: float) -> dict[str, float]:
    """Return the seconds of each stage: what was asked for, all of it shortened alike where less time is left."""
    total = sum(asked.values())
    share = min(1.0, max(0.0, left) / total) if total else 0.0
    return {stage: seconds * share for stage, seconds in asked.items()}


@dataclasses.dataclass(frozen=True)
class Measured:
    """How a stage went in a check: milliseconds of each plan's first step and of a later one, bytes at the most."""

    first_ms: dict[str, float]
    later_ms: dict[str, float]
    peak_bytes: int | None


def check_stage(sprint: Sprint, stage: str, steps: int, seconds: float) -> Measured:
    """Run some steps of a stage at full size, plan after plan, each waited for, and keep its weights.

    seconds: after so many no further step begins. Raises FloatingPointError for what is not finite.
    """
    preset: FlowPreset = getattr(sprint.preset, stage)
    sprint.wait_for_clips(preset.batch, seconds / 2, seconds)
    if sprint.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(sprint.device)
    learner = Learner(sprint.method(stage), preset, OneDevice(sprint.device))
    feed = sprint.feed(stage, learner)
    watch, times = Watch(sprint.device), dict[str, list[float]]()
    plans, until = feed.curriculum.every_plan(), sprint.clock() + seconds
    for step in range(steps):
        began = sprint.clock()
        if step and began >= until:
            break
        draw = feed.draw(step, 0.0, plans[step % len(plans)])
        learner.step(step, [draw], preset.lr * 1e-3, watch)
        watch.check(step)  # waits for the device
        plan = f"{draw.plan.spec} of {'x'.join(map(str, draw.plan.grid))} tokens"
        times.setdefault(plan, []).append(1000 * (sprint.clock() - began))
    sprint.save(stage, learner, watch, step + 1)
    return Measured(
        first_ms={plan: taken[0] for plan, taken in times.items()},
        later_ms={plan: min(taken[1:]) for plan, taken in times.items() if len(taken) > 1},
        peak_bytes=torch.cuda.max_memory_allocated(sprint.device) if sprint.device.type == "cuda" else None,
    )
