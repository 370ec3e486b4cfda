"""Goes on from a picture or a clip: reads as much of its end as the new film can see."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .request import Request, most_given
from .video import read_pictures, read_settings

if TYPE_CHECKING:
    from .checkpoint import Model


def continue_from(model: Model, request: Request, source: str | Path) -> Request:
    """The request with a size and `start`: the last pictures of an image or video file, cut to that size.

    The size is what was asked for, that of the file if the film was made here, or the model's. Raises ValueError for a
    file that is neither image nor video, that is too large, or that has no picture.
    """
    height, width = _size(model, request, source)
    last = deque(read_pictures(source, width, height, model.info.fps), 1 + 4 * (most_given(model, request) - 1))
    return replace(request, start=np.stack(last), height=height, width=width)


def _size(model: Model, request: Request, source: str | Path) -> tuple[int, int]:
    try:
        made = read_settings(source) or {}
    except ValueError:  # a picture, or what the next one to read it will complain about
        made = {}
    sizes = []
    for name in ("height", "width"):
        own = made.get(name)
        sizes.append(getattr(request, name) or (own if isinstance(own, int) and own > 0 else getattr(model.info, name)))
    model.grid(replace(request, height=sizes[0], width=sizes[1]))
    return sizes[0], sizes[1]
