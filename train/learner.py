"""One training step of a method's networks, without ever waiting for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .flow import Draw, Losses
from .optim import make_optimizers, set_learning_rate
from .presets import FlowPreset
from .run import Average, whole

Columns = dict[str, Tensor]  # numbers for the log, still on the device
Guard = Callable[[str, Columns, Tensor], None]  # told a part, its columns and the norm of its gradients


class Method(Protocol):
    """What is trained, and by which losses."""

    parts: dict[str, nn.Module]  # called in `losses`; each has optimizers of its own; "model" is the generator
    trained: dict[str, nn.Module]  # the weights of each part that are trained, saved and resumed
    frozen: list[nn.Module]  # teachers
    uncached: list[nn.Module]  # called with the same few shapes again and again: worth compiling
    rates: dict[str, float]  # each part's learning rate, as a multiple of the preset's
    needs_latents: bool

    def losses(self, draw: Draw) -> Losses:
        """Yield each part that learns in this step with its loss; the part has learnt when the next is asked for."""
        ...


class Learner:
    """The trained networks of a method with their optimizers and the running average of the generator.

    device: accelerate's Accelerator or train.device.OneDevice. The networks are on its device already.
    """

    def __init__(self, method: Method, preset: FlowPreset, device: Any):
        self.method, self.preset, self.device = method, preset, device
        self.optimizers = {
            name: make_optimizers(part, preset.optimizer, preset.weight_decay, preset.betas)
            for name, part in method.trained.items()
        }
        self.average = Average(method.trained["model"], preset.ema)

    @property
    def every_optimizer(self) -> list[torch.optim.Optimizer]:
        return [optimizer for part in self.optimizers.values() for optimizer in part]

    def step(self, step: int, draws: list[Draw], lr: float, guard: Guard) -> Columns:
        """Let every part whose turn it is learn from the draws; return the columns of the log.

        guard: called before a part learns, with its name, the columns so far and the norm of its gradients; it may
        raise, and then nothing was changed.
        """
        turns, columns = [self.method.losses(draw) for draw in draws], Columns()
        while (learnt := self._backward(turns)) is not None:
            name, found = learnt
            columns |= found
            part = self.method.trained[name]
            norm = whole(self.device.clip_grad_norm_(part.parameters(), self.preset.clip))
            guard(name, columns, norm)
            set_learning_rate(self.optimizers[name], lr * self.method.rates[name])
            for optimizer in self.optimizers[name]:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if name == "model":
                self.average.update(part, step)
        return columns

    def _backward(self, turns: list[Losses]) -> tuple[str, Columns] | None:
        """Run the next loss of every draw backwards; return whose it is and its columns, or None at the end."""
        columns, name = Columns(), None
        for turn in turns:
            with self.device.autocast():
                learnt = next(turn, None)
            if learnt is None:
                return None
            name, loss, numbers = learnt
            loss = loss / len(turns)
            for key, value in {"loss": loss, **{k: v / len(turns) for k, v in numbers.items()}}.items():
                columns[key] = columns[key] + value.detach() if key in columns else value.detach()
            self.device.backward(loss)
        return None if name is None else (name, columns)
