"""What follows from a plan alone, made once for each plan and device: a step neither makes it again nor copies it.

Shapes: N tokens of a plan in its order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from videoar.memory import send
from videoar.plan import Plan

KEPT = 64  # plans, and what is asked of them
LARGEST = 2**24  # numbers; masks of long clips are gigabytes, of which there must not be several

_kept: dict[tuple, Tensor] = {}


def remembered(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function with a further argument, the device; nobody may write into what it returns."""

    @functools.wraps(make)
    def find(*given, device: torch.device | str = "cpu") -> Tensor:
        key = (make, *given, torch.device(device))
        if key in _kept:
            return _kept[key]
        with torch.inference_mode(False):  # whoever asks first, others may want gradients
            made = send(make(*given), torch.device(device))
        if made.numel() <= LARGEST:
            if len(_kept) >= KEPT:
                _kept.clear()
            _kept[key] = made
        return made

    return find


@remembered
def unit_ids(plan: Plan) -> Tensor:
    """Long [N]: the unit of each token."""
    return plan.unit_ids()


@remembered
def place_of(plan: Plan, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """Float [N, 3]: (t, y, x) of all tokens; those of a crop lie so many rows and columns further on in their frame."""
    return torch.cat([plan.positions(unit) for unit in plan.units]) + torch.tensor([0.0, *corner])


@remembered
def sites(plan: Plan) -> Tensor:
    """Long [N]: where each token is in the full grids of all levels, one level after the other."""
    grids = [plan.level_grid(level) for level in range(len(plan.scales))]
    sizes = torch.tensor([0, *(grid.T * grid.H * grid.W for grid in grids)]).cumsum(0)
    return torch.cat([sizes[unit.level] + plan.sites(unit) for unit in plan.units])


@remembered
def finest_tokens(plan: Plan) -> Tensor:
    """Long [T*H*W]: the token at each site of the finest level."""
    finest = plan.grid.T * plan.grid.H * plan.grid.W
    return sites(plan).argsort()[-finest:]


@remembered
def tokens_of_level(plan: Plan, level: int) -> Tensor:
    """Long: the tokens of a level, in the plan's order."""
    level_N = torch.cat([torch.full((unit.size(),), unit.level) for unit in plan.units])
    return (level_N == level).nonzero().flatten()


@remembered
def causal_mask(plan: Plan, backward: bool = False) -> Tensor:
    """Bool [N, N], True = may attend: its own unit and the earlier ones, or the later ones."""
    return plan.mask().T if backward else plan.mask()
