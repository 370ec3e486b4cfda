"""Convolutions over single latent cells, beside a transformer whose tokens are patches of several.

A 3x3 convolution never leaves its unit: each latent frame of a unit is padded with zeros and convolved by itself. So a
unit among others (training) and a unit alone (sampling with a cache) get the same, whatever its frames' distances.

Shapes: B batch, N tokens (unit after unit; in a unit by frame, row, column), D token values = C*P, P latent cells of a
token = pt*ph*pw, E width of the transformer, K latent frames of the whole batch, C channels, H/W height and width of a
unit in cells.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .codec import silence

if TYPE_CHECKING:
    from .transformer import VideoARTransformer3DModel

Shape = tuple[int, int, int]  # frames, rows and columns of a unit, in tokens


def find_shapes(positions_N3: Tensor, token_unit_N: Tensor | None = None) -> tuple[Shape, ...]:
    """Return the shapes of the units in a sequence, found from the tokens' coordinates.

    token_unit_N: the unit of each token, None for a single unit. The last few answers are remembered: all steps of a
    unit, and all of training under one plan, ask the same.
    """
    told = (positions_N3,) if token_unit_N is None else (positions_N3, token_unit_N)
    assert all(t.device.type == "cpu" for t in told), "reading coordinates off a device would wait: pass unit_shapes"
    units = None if token_unit_N is None else token_unit_N.long().numpy().tobytes()
    return _remembered(positions_N3.detach().float().numpy().tobytes(), units)


@functools.lru_cache(maxsize=64)
def _remembered(positions: bytes, units: bytes | None) -> tuple[Shape, ...]:
    place_N3 = torch.frombuffer(bytearray(positions), dtype=torch.float32).view(-1, 3)
    sizes = [len(place_N3)]
    if units is not None:
        unit_N = torch.frombuffer(bytearray(units), dtype=torch.int64)
        sizes = torch.unique_consecutive(unit_N, return_counts=True)[1].tolist()
    shapes = []
    for place in place_N3.split(sizes):
        t, y, x = (place[:, axis].unique() for axis in range(3))
        in_order = len(t) * len(y) * len(x) == len(place) and torch.equal(torch.cartesian_prod(t, y, x), place)
        assert in_order, "these tokens are no unit, ordered by frame, row and column: pass unit_shapes"
        shapes.append((len(t), len(y), len(x)))
    return tuple(shapes)


def convolve(
    layers: Callable[[Tensor], Tensor], tokens_BND: Tensor, shapes: Sequence[Shape], patch: tuple[int, ...]
) -> Tensor:
    """Return what layers make of each latent frame [K, C, H, W] of each unit, as the cells of tokens [B, N, P, C'].

    Frames of equal size go through the layers together, whatever units they are of.
    """
    sizes = [math.prod(shape) for shape in shapes]
    assert sum(sizes) == tokens_BND.shape[1], f"{tokens_BND.shape[1]} tokens are not those of units {shapes}"
    areas = [shape[1:] for shape in shapes]
    if len(set(areas)) == 1:
        return _to_cells(layers(_to_frames(tokens_BND, areas[0], patch)), len(tokens_BND), patch)
    units = tokens_BND.split(sizes, dim=1)
    made = list(units)
    for area in dict.fromkeys(areas):
        mine = [i for i, other in enumerate(areas) if other == area]
        frames = _to_frames(torch.cat([units[i] for i in mine], dim=1), area, patch)
        done = _to_cells(layers(frames), len(tokens_BND), patch).split([sizes[i] for i in mine], dim=1)
        for i, cells in zip(mine, done, strict=True):
            made[i] = cells
    return torch.cat(made, dim=1)


def _to_frames(tokens_BND: Tensor, area: tuple[int, int], patch: tuple[int, ...]) -> Tensor:
    # Channels last: what a CPU convolves fastest, and the shorter way from tokens and back.
    (rows, cols), (pt, ph, pw) = area, patch
    cut = tokens_BND.reshape(len(tokens_BND), -1, rows, cols, tokens_BND.shape[2] // (pt * ph * pw), pt, ph, pw)
    frames_KHWC = cut.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(-1, rows * ph, cols * pw, cut.shape[4])
    return frames_KHWC.permute(0, 3, 1, 2)


def _to_cells(frames_KCHW: Tensor, batch: int, patch: tuple[int, ...]) -> Tensor:
    pt, ph, pw = patch
    _, c, h, w = frames_KCHW.shape
    cut = frames_KCHW.permute(0, 2, 3, 1).reshape(batch, -1, pt, h // ph, ph, w // pw, pw, c)
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, -1, pt * ph * pw, c)


def _conv(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1)


class ConvStem(nn.Module):
    """What is added to the tokens' embedding: two convolutions of the cells, then a linear layer that starts at 0."""

    def __init__(self, channels: int, width: int, out: int, patch: tuple[int, ...]) -> None:
        super().__init__()
        self.patch = tuple(patch)
        self.conv1, self.conv2 = _conv(channels, width), _conv(width, width)
        self.proj = nn.Linear(width * math.prod(patch), out)
        silence(self.proj)

    def forward(self, tokens_BND: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """Return [B, N, E]."""
        tokens_BND = tokens_BND.to(self.conv1.weight.dtype)
        return self.proj(convolve(self._layers, tokens_BND, shapes, self.patch).flatten(2))

    def _layers(self, x_KCHW: Tensor) -> Tensor:
        return self.conv2(F.silu(self.conv1(x_KCHW)))


class ConvHead(nn.Module):
    """What is added to the network's output: convolutions over it and the noisy input; the last one starts at 0."""

    def __init__(self, channels: int, width: int, out: int, patch: tuple[int, ...], depth: int = 3) -> None:
        super().__init__()
        self.patch = tuple(patch)
        self.conv_in, self.conv_out = _conv(channels + out, width), _conv(width, out)
        self.residual = nn.ModuleList(_conv(width, width) for _ in range(depth))
        silence(self.conv_out)

    def forward(self, out_BND: Tensor, noisy_BND: Tensor, shapes: Sequence[Shape]) -> Tensor:
        """Return [B, N, D]."""
        # Channels are the slowest of a token's values, so that this joins the channels of each cell.
        both = torch.cat([part.to(self.conv_in.weight.dtype) for part in (out_BND, noisy_BND)], dim=-1)
        return convolve(self._layers, both, shapes, self.patch).transpose(2, 3).flatten(2)

    def _layers(self, x_KCHW: Tensor) -> Tensor:
        h = self.conv_in(x_KCHW)
        for conv in self.residual:
            h = h + conv(F.silu(h))
        return self.conv_out(F.silu(h))


def new_branches(config, width: int) -> tuple[ConvStem, ConvHead]:
    """Return stem and head for a transformer of this configuration; both change nothing until they are trained."""
    inner = config.num_attention_heads * config.attention_head_dim
    stem = ConvStem(config.in_channels, width, inner, config.patch_size)
    return stem, ConvHead(config.in_channels, width, config.out_channels, config.patch_size)


def add_convolutions(network: VideoARTransformer3DModel, width: int) -> VideoARTransformer3DModel:
    """Give a network without convolutions new ones, in place, and return it: it computes the same until they are
    trained. Raises ValueError for a width that is none, and for a network that has convolutions.
    """
    if width < 1:
        raise ValueError(f"convolutions are at least 1 channel wide, not {width}")
    if network.config.conv_width:
        raise ValueError(f"this network has convolutions already, {network.config.conv_width} channels wide")
    like = network.proj_out.weight
    for name, branch in zip(("conv_stem", "conv_head"), new_branches(network.config, width), strict=True):
        branch.to(like.device, like.dtype).train(network.training).requires_grad_(like.requires_grad)
        network.add_module(name, branch)
    network.register_to_config(conv_width=width)
    return network
