"""Time that is given to a benchmark, and what its rows are expected to take of it."""

from __future__ import annotations

import math
from collections.abc import Callable

RESERVE_S = 5.0  # for the last row on the disk and the end of the process, which takes seconds on a GPU
MARGIN = 1.25  # between what was measured and what is expected


class OutOfTime(Exception):
    """The budget is spent."""


class Budget:
    """Seconds to spend, counted by a clock that stands at 0 when the benchmark starts; None is without end."""

    def __init__(self, seconds: float | None, clock: Callable[[], float]) -> None:
        self.seconds, self.clock = seconds, clock

    def left(self) -> float:
        """Return the seconds left for films; below 0 when they are spent."""
        return math.inf if self.seconds is None else self.seconds - RESERVE_S - self.clock()

    def check(self) -> None:
        """Raise OutOfTime once nothing is left."""
        if self.left() <= 0:
            raise OutOfTime


class Pace:
    """What films have taken so far. Expectations go by the slowest, and are 0 before anything has been measured."""

    def __init__(self) -> None:
        self._s_per_flop = self._decode_s = 0.0

    def learn(self, flop: float, diffusion_s: float, decode_s: float = 0.0) -> None:
        """Take in a film whose transformer did `flop` operations, and what decoding it with every decoder took."""
        self._s_per_flop = max(self._s_per_flop, diffusion_s / flop)
        self._decode_s = max(self._decode_s, decode_s)

    def expect(self, flop: float, decoded: bool = False) -> float:
        """Return the seconds to expect for so many operations, and if `decoded` for every decoder once."""
        return MARGIN * (flop * self._s_per_flop + decoded * self._decode_s)
