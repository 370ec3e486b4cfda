"""What a network is told of places: rotary position embedding at any, also fractional, coordinates of tokens; waves.

Shapes: B batch, N tokens, H heads, D head dimension, E width; positions [N, 3] are (t, y, x).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from .memory import send

THETA = 10000.0


@functools.lru_cache(maxsize=8)
def _inverse_frequencies(head_dim: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    # Wan's split of the head dimension: a third each for y and x (rounded down to even), the rest for time.
    spatial = 2 * (head_dim // 6)
    dims = (head_dim - 2 * spatial, spatial, spatial)
    return tuple(send(THETA ** -(torch.arange(0, d, 2, dtype=torch.float64) / d), device) for d in dims)


def rope_table(positions_N3: torch.Tensor, head_dim: int, device: torch.device | None = None) -> torch.Tensor:
    """Float32 [N, D/2, 2], (cos, sin) of every pair's angle, for coordinates in token units; Wan's tables at integers.

    Angles are formed in float64: a float32 product is off by 6e-5 at position 1000, a table lookup is not. With
    coordinates on the CPU the last few tables are remembered: all steps of a unit want the same one.
    """
    return _made_once(_table, positions_N3, head_dim, device)


def spatial_waves(place_N2: torch.Tensor, width: int, device: torch.device | None = None) -> torch.Tensor:
    """Float32 [N, E], sines and cosines of (y, x) in tokens, at wavelengths of 6 to 600 tokens; remembered as well."""
    return _made_once(_waves, place_N2, width, device)


def _made_once(make: Callable, positions: torch.Tensor, width: int, device: torch.device | None) -> torch.Tensor:
    device = positions.device if device is None else device
    positions = positions.detach()
    if positions.device.type != "cpu" or torch.compiler.is_compiling():
        return send(make(positions, width), device)
    inference = torch.is_inference_mode_enabled()  # such tensors are of no use where gradients are wanted
    return _remembered(make, positions.double().numpy().tobytes(), positions.shape[1], width, device, inference)


@functools.lru_cache(maxsize=32)  # of all units of a plan
def _remembered(
    make: Callable, positions: bytes, columns: int, width: int, device: torch.device, inference: bool
) -> torch.Tensor:
    positions_NC = torch.frombuffer(bytearray(positions), dtype=torch.float64).view(-1, columns)
    return send(make(positions_NC, width), device)


def _table(positions: torch.Tensor, head_dim: int) -> torch.Tensor:
    positions = (positions.cpu() if positions.device.type == "mps" else positions).double()
    bands = enumerate(_inverse_frequencies(head_dim, positions.device))
    angles = torch.cat([positions[:, i : i + 1] * f for i, f in bands], dim=1)
    return torch.stack((angles.cos(), angles.sin()), dim=-1).float()


def _waves(place_N2: torch.Tensor, width: int) -> torch.Tensor:
    frequency = 100.0 ** -(torch.arange(width // 4, dtype=torch.float32, device=place_N2.device) / (width // 4))
    angle = (place_N2.float().unsqueeze(-1) * frequency).flatten(1)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def rotate(x_BNHD: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Rotates neighbouring pairs of the head dimension, in float32; returns the dtype of x."""
    pairs = x_BNHD.float().unflatten(-1, (-1, 2))
    if x_BNHD.device.type == "cpu" and not torch.compiler.is_compiling():
        # One vectorised pass: ten times the speed of real arithmetic on a CPU (complex numbers do not compile well).
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table)[:, None])
        return turned.flatten(-2).to(x_BNHD.dtype)
    cos, sin = table[:, None].unbind(-1)
    even, odd = pairs.unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x_BNHD.dtype)
