"""Muon in few kernels: the momentum of all matrices at once, and all matrices of one shape orthogonalised together.

The same update as torch.optim.Muon's, with the same state and hyper-parameters, so that state dicts of either load into
the other. That one takes the matrices in turn, which a GPU spends waiting for its launches, and always in bfloat16,
which a CPU without the instructions emulates.

Shapes: K matrices of one shape, R rows <= C columns.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .device import computes_in_bfloat16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, steepest at zero (Jordan et al., 2024)


def newton_schulz(x_KRC: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Matrices [K, R, C] with the singular vectors of x and singular values near 1."""
    a, b, c = coefficients
    x = x_KRC / torch.linalg.vector_norm(x_KRC, dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram_KRR = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram_KRR, gram_KRR, gram_KRR, beta=b, alpha=c), x, beta=a)
    return x


def adjusted_rate(lr: float, how: str | None, rows: int, columns: int) -> float:
    """The learning rate for a matrix, by torch's names: "original" (or None) and "match_rms_adamw"."""
    if how == "match_rms_adamw":
        return lr * 0.2 * math.sqrt(max(rows, columns))
    return lr * math.sqrt(max(1, rows / columns))


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al., 2024), with decoupled weight decay; for matrices only.

    Nothing waits for the device. Orthogonalises in bfloat16 on devices that compute in it, else in float32.
    """

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ):
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"adjust_lr_fn is 'original' or 'match_rms_adamw', not {adjust_lr_fn!r}")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.ndim != 2:
                raise ValueError(f"Muon trains matrices, not a parameter of shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            matrices = [p for p in group["params"] if p.grad is not None]
            if matrices:
                self._update(matrices, group)
        return loss

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        gradients = [p.grad for p in matrices if p.grad is not None]
        for p in matrices:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in matrices]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, buffers, momentum) if group["nesterov"] else buffers
        torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])

        alike: defaultdict[tuple, defaultdict[tuple[int, int], list[int]]] = defaultdict(lambda: defaultdict(list))
        for i, p in enumerate(matrices):
            rows, columns = p.shape
            alike[min(rows, columns), max(rows, columns), p.device, p.dtype][rows, columns].append(i)
        for (*_, device, dtype), shapes in alike.items():
            precision = torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
            stacks = [torch.stack([updates[i] for i in numbers]).to(precision) for numbers in shapes.values()]
            wide = torch.cat([_turned(x, shape) for x, shape in zip(stacks, shapes, strict=True)])
            wide = newton_schulz(wide, group["ns_coefficients"], group["ns_steps"], group["eps"])
            parts = wide.split([len(numbers) for numbers in shapes.values()])
            for (shape, numbers), part in zip(shapes.items(), parts, strict=True):
                # Laid out like the parameters, without which the sums would not run as one kernel.
                part = _turned(part, shape).contiguous().to(dtype)
                rate = adjusted_rate(lr, group["adjust_lr_fn"], *shape)
                torch._foreach_add_([matrices[i] for i in numbers], part.unbind(), alpha=-rate)


def _turned(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """Tall matrices as wide ones, and back."""
    return x.mT if shape[0] > shape[1] else x
