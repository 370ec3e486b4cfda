"""Loads the model and makes it ready for the first visitor."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from videoar.folders import BUILT_IN, model_name

log = logging.getLogger(__name__)

# Enough work to tell one thread from several, and little enough for any model on any machine.
_STEPS = 2
_MOST_TOKENS_A_SIDE = 8
_MOST_FRAMES = 5
# Several threads must win clearly: the decoder and perhaps the browser want a core as well.
_CLEARLY = 0.8


def named(paths: Sequence[str | None]) -> dict[str, str | None]:
    """Names of the models in these folders or at these hub ids: their own, where no two are the same."""
    names = [model_name(path or BUILT_IN) for path in paths]
    return {name if names.count(name) == 1 else str(path): path for name, path in zip(names, paths, strict=True)}


def load_model(path: str | None = None, device: str | None = None, warm_up: bool = True, **options: Any) -> Any:
    """The model in a folder or at a hub id (None: the built-in one) on a torch device (None: the best there is).

    options: further ones of videoar.checkpoint.load_model.
    """
    from videoar import checkpoint  # imports torch, which must come after `spaces`

    model = checkpoint.load_model(path, device, **options)
    if warm_up:
        try:
            _warm_up(model)
        except Exception:
            log.exception("The model is loaded, but warming it up failed.")
    return model


def _warm_up(model: Any) -> None:
    """Makes a unit, so that the first visitor need not wait for what PyTorch does once; on a CPU also counts threads.

    As many threads as the machine seems to have cores can be thirty times slower than one, if the cores are shared with
    others or are not all there (containers). So it is measured, unless OMP_NUM_THREADS says what is wanted.
    """
    import torch

    _first_unit_seconds(model)
    many = min(8, (os.cpu_count() or 2) - 1)
    if model.device.type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return
    seconds = {}
    for threads in (many, 1) if many > 1 else (1,):
        torch.set_num_threads(threads)
        seconds[threads] = _first_unit_seconds(model)
    best = many if seconds.get(many, 0) < _CLEARLY * seconds[1] else 1
    torch.set_num_threads(best)
    log.info("CPU threads: %d (seconds per unit: %s)", best, seconds)


def _first_unit_seconds(model: Any) -> float:
    """How long a small film takes up to its first pictures."""
    from videoar.generate import UnitDecoded, generate
    from videoar.request import Request

    info, (step_y, step_x) = model.info, model.multiples()
    height, width = min(info.height, _MOST_TOKENS_A_SIDE * step_y), min(info.width, _MOST_TOKENS_A_SIDE * step_x)
    frames = min(info.frames, _MOST_FRAMES)
    request = Request("warm up", "frame", _STEPS, seed=0, height=height, width=width, frames=frames)
    began = time.perf_counter()
    next(event for event in generate(model, request) if isinstance(event, UnitDecoded))
    return time.perf_counter() - began
