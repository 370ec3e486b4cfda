"""A plan cuts a video's token grid into ordered prediction units; everything about order and place follows from it.

Shapes: N tokens of one unit, T/H/W token grid, t/y/x token coordinates. Plans are pure values; the prediction units are
those of the VideoAR paper, section 3.2: frames, key-detail frames, spatiotemporal cubes, scales, and the full clip.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

KINDS = ("frame", "key_detail", "cube", "scale", "full")
_DEFAULT_ARGS = {"frame": (1,), "key_detail": (4,), "cube": (2, 2, 2), "scale": (3,), "full": ()}
PICTURES_PER_LATENT = 4  # but one for a film's first latent frame
_LARGEST_ARG = 1024
_HELP = "use frame, frame:3, key_detail:4, cube:2x2x2, scale:3 or full"


class Grid(NamedTuple):
    """Tokens of the finest level: T latent frames (after temporal patching) of H rows and W columns."""

    T: int
    H: int
    W: int


@dataclass(frozen=True)
class Unit:
    """What is predicted in one autoregressive step: the product frames x rows x cols of one level.

    level: 0 is the coarsest; frames: latent frame numbers, ascending; rows, cols: half-open, in that level's grid.
    Tokens inside are ordered by frame, then row, then column.
    """

    level: int
    frames: tuple[int, ...]
    rows: tuple[int, int]
    cols: tuple[int, int]

    def shape(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the unit, in tokens."""
        return len(self.frames), self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]

    def size(self) -> int:
        """Number of tokens."""
        return math.prod(self.shape())


def picture_range(first_latent: int, end_latent: int) -> tuple[int, int]:
    """Half-open range of pictures that latent frames [first, end) become."""
    first, end = (max(0, PICTURES_PER_LATENT * (f - 1) + 1) for f in (first_latent, end_latent))
    return first, end


def runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as half-open ranges of neighbours: (0, 1, 4) becomes [(0, 2), (4, 5)]."""
    starts = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n - 1]
    stops = [n + 1 for i, n in enumerate(numbers) if i + 1 == len(numbers) or numbers[i + 1] != n + 1]
    return list(zip(starts, stops, strict=True))


def latent_count(pictures: int) -> int:
    """Latent frames of a film of 1 + 4n pictures."""
    return (pictures - 1) // PICTURES_PER_LATENT + 1


def split(length: int, parts: int) -> list[tuple[int, int]]:
    """Half-open ranges that cut `length` into `parts` as evenly as can be, larger parts first (21 in two: 11 + 10)."""
    if not 1 <= parts <= length:
        raise ValueError(f"cannot cut {length} into {parts} parts: choose between 1 and {length} parts")
    base, extra = divmod(length, parts)
    edges = [i * base + min(i, extra) for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


@dataclass(frozen=True)
class PlanSpec:
    """How to cut, independent of the size of the video: a kind, its numbers, and for cubes optionally another order.

    `order` permutes the cubes: the i-th generated cube is cube `order[i]` of the usual order (time, rows, columns).
    """

    kind: str
    args: tuple[int, ...] = ()
    order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown plan {str(self.kind)[:40]!r}: {_HELP}")
        if not self.args:
            object.__setattr__(self, "args", _DEFAULT_ARGS[self.kind])
        wanted = len(_DEFAULT_ARGS[self.kind])
        if len(self.args) != wanted:
            raise ValueError(f"plan {self.kind!r} takes {wanted} numbers, not {len(self.args)}: {_HELP}")
        if not all(type(a) is int and 1 <= a <= _LARGEST_ARG for a in self.args):
            said = "x".join(map(str, self.args))
            raise ValueError(f"the numbers of a plan are whole and from 1 to {_LARGEST_ARG}, not {said[:40]}: {_HELP}")
        if self.kind == "scale" and self.args[0] > 8:
            raise ValueError(f"a scale plan has at most 8 levels, not {self.args[0]}")
        if self.order is not None:
            if self.kind != "cube":
                raise ValueError("only cube plans can be reordered")
            if sorted(self.order) != list(range(math.prod(self.args))):
                raise ValueError(f"the order of a plan must name each of its {math.prod(self.args)} cubes once")

    @classmethod
    def parse(cls, text: str) -> PlanSpec:
        """Reads "frame:3", "key_detail:4", "cube:2x2x2", "cube:1x2x2@3,2,1,0" (an order), "scale:3", "full"."""
        if not isinstance(text, str) or not text.strip() or len(text) > 500:
            raise ValueError(f"a plan is a short text: {_HELP}")
        head, at, order = text.strip().lower().partition("@")
        kind, colon, args = head.partition(":")
        numbers = args.split("x") if colon else []
        places = order.split(",") if at else []
        # int() alone would also read 1_0, +1 and the digits of other scripts.
        if not all(re.fullmatch("[0-9]{1,9}", number.strip()) for number in numbers + places):
            raise ValueError(f"cannot read plan {text[:40]!r}: {_HELP}")
        return cls(
            kind.strip().replace("-", "_"), tuple(map(int, numbers)), tuple(map(int, places)) if places else None
        )

    def __str__(self) -> str:
        text = f"{self.kind}:{'x'.join(map(str, self.args))}" if self.args else self.kind
        return text if self.order is None else f"{text}@{','.join(map(str, self.order))}"

    def build(self, grid: Grid, start: int = 0) -> Plan:
        """The plan for a token grid whose first latent frame is number `start` of its film."""
        grid = Grid(*grid)
        if min(grid) < 1:
            raise ValueError(f"a token grid needs at least one token in every direction, not {tuple(grid)}")
        scales = tuple(2**i for i in reversed(range(self.args[0]))) if self.kind == "scale" else (1,)
        if scales[0] > min(grid.H, grid.W):
            raise ValueError(f"{self} needs {scales[0]} token rows and columns, there are {grid.H} and {grid.W}")
        return Plan(self, grid, scales, tuple(self._units(grid, scales, start, start + grid.T)), start)

    def slabs(self, grid: Grid, slab: int, start: int = 0, endless: bool = False) -> Iterator[Plan]:
        """The plan again and again, a slab of `slab` latent frames after the other: films of any length (section 3.4).

        grid: of the whole film; its T does not matter for an endless one. The last slab is what is left over and may
        get fewer units. Each is built when it is asked for: nothing grows with the film.
        """
        stop = start + grid.T
        while endless or start < stop:
            length = slab if endless else min(slab, stop - start)
            yield self.fitted(length).build(Grid(length, grid.H, grid.W), start)
            start += length

    def fitted(self, length: int) -> PlanSpec:
        """The same plan, with fewer parts in time if there are fewer latent frames than parts."""
        if self.kind not in ("key_detail", "cube") or self.args[0] <= length:
            return self
        return PlanSpec(self.kind, (length, *self.args[1:]))

    def _units(self, grid: Grid, scales: tuple[int, ...], start: int, stop: int) -> list[Unit]:
        length, rows, cols = stop - start, (0, grid.H), (0, grid.W)
        frames = tuple(range(start, stop))
        if self.kind == "full":
            return [Unit(0, frames, rows, cols)]
        if self.kind == "frame":
            chunks = split(length, math.ceil(length / self.args[0]))
            return [Unit(0, frames[a:b], rows, cols) for a, b in chunks]
        if self.kind == "key_detail":
            if self.args[0] > length:
                raise ValueError(f"{self} needs at least {self.args[0]} latent frames, there are {length}")
            return [Unit(0, frames[i :: self.args[0]], rows, cols) for i in range(self.args[0])]
        if self.kind == "scale":
            sizes = [level_grid(grid, s) for s in scales]
            return [Unit(i, frames, (0, size.H), (0, size.W)) for i, size in enumerate(sizes)]
        (nt, nh, nw), have = self.args, (length, grid.H, grid.W)
        if any(n > h for n, h in zip(self.args, have, strict=True)):
            fits = f"cube:{'x'.join(str(min(n, h)) for n, h in zip(self.args, have, strict=True))}"
            size = f"{length} x {grid.H} x {grid.W} tokens"
            raise ValueError(f"{str(self)[:40]} does not fit {size}: use fewer cubes, such as {fits}")
        cuts = [(t, y, x) for t in split(length, nt) for y in split(grid.H, nh) for x in split(grid.W, nw)]
        cuts = cuts if self.order is None else [cuts[i] for i in self.order]
        return [Unit(0, frames[t[0] : t[1]], y, x) for t, y, x in cuts]


def level_grid(grid: Grid, scale: int) -> Grid:
    """Token grid of a level that is `scale` times coarser in space; sizes that do not divide round up."""
    return Grid(grid.T, math.ceil(grid.H / scale), math.ceil(grid.W / scale))


@dataclass(frozen=True)
class Plan:
    """Ordered units that cover every site of every level once.

    scales: downsampling in space per level, finest = 1. start: the number of the grid's first latent frame in its film,
    from which the units' frames count on.
    """

    spec: PlanSpec
    grid: Grid
    scales: tuple[int, ...]
    units: tuple[Unit, ...]
    start: int = 0

    def level_grid(self, level: int) -> Grid:
        """Token grid (T, H, W) of a level."""
        return level_grid(self.grid, self.scales[level])

    def positions(self, unit: Unit) -> torch.Tensor:
        """Float [N, 3]: (t, y, x) of each token, centre-aligned, in finest-level token units.

        A level with factor s puts row y at y*s + (s-1)/2; where s does not divide the grid, the true ratio is used.
        """
        size = self.level_grid(unit.level)
        t = torch.tensor(unit.frames, dtype=torch.float32)
        y = _centres(unit.rows, self.grid.H / size.H)
        x = _centres(unit.cols, self.grid.W / size.W)
        return torch.stack(torch.meshgrid(t, y, x, indexing="ij"), dim=-1).reshape(-1, 3)

    def sites(self, unit: Unit) -> torch.Tensor:
        """Long [N]: flat index of each token into its level's (T, H, W) grid."""
        size = self.level_grid(unit.level)
        t = torch.tensor(unit.frames)[:, None, None] - self.start
        y = torch.arange(*unit.rows)[None, :, None]
        x = torch.arange(*unit.cols)[None, None, :]
        return ((t * size.H + y) * size.W + x).reshape(-1)

    def unit_ids(self) -> torch.Tensor:
        """Long [N_all]: the unit each token belongs to, all tokens concatenated in unit order."""
        sizes = torch.tensor([unit.size() for unit in self.units])
        return torch.arange(len(self.units)).repeat_interleave(sizes)

    def mask(self) -> torch.Tensor:
        """Bool [N_all, N_all], True = may attend: every token sees its own unit and all earlier ones."""
        ids = self.unit_ids()
        return ids[:, None] >= ids[None, :]

    def reverse(self) -> Plan:
        """The same units in the opposite order (the backward score network's plan, section 3.3)."""
        return Plan(self.spec, self.grid, self.scales, self.units[::-1], self.start)

    def complete_frames(self, k: int) -> int:
        """How many leading latent frames of the film have all their finest sites once units 0..k are done."""
        return self._progress[k + 1][0]

    def is_border(self, k: int) -> bool:
        """Whether between unit k - 1 and unit k every latent frame is either complete or not yet begun."""
        complete, begun = self._progress[k]
        return complete == begun

    @cached_property
    def _progress(self) -> list[tuple[int, int]]:
        """(complete, begun): latent frames of the film from its start on, before the first and after every unit."""
        missing = [self.grid.H * self.grid.W] * self.grid.T
        complete, begun, progress = 0, 0, [(self.start, self.start)]
        for unit in self.units:
            begun = max(begun, unit.frames[-1] + 1 - self.start)
            if self.scales[unit.level] == 1:
                _, rows, cols = unit.shape()
                for t in unit.frames:
                    missing[t - self.start] -= rows * cols
            while complete < self.grid.T and not missing[complete]:
                complete += 1
            progress.append((self.start + complete, self.start + begun))
        return progress


def _centres(span: tuple[int, int], ratio: float) -> torch.Tensor:
    return torch.arange(*span, dtype=torch.float32) * ratio + (ratio - 1) / 2
