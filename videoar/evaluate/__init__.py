"""Measuring without a learned judge: the detector that reads clips of Playworld, and PlayBench on top of it."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m videoar evaluate`; imported when it is called, because it loads the whole library."""
    from .command import main as command

    return command(argv)
