"""Recognises subjects: cut-outs brought to the standard position are compared with the views of all of them.

Shapes: T frames, S = side of a view, K kinds of views (subjects and facings), A angles.
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage

from .backgrounds import Ground
from .segment import Blobs
from .templates import REACH, SIDE, Views, views

LOOK = 1.0  # weight of the colours inside against the outline
PRIZE = 0.03  # for every pixel that is explained, as a squared difference; without it, views of little area would win


def compare(blobs: Blobs, look_THW3: np.ndarray, hidden: np.ndarray, frames: np.ndarray, color: str, ground: Ground):
    """Mean squared differences [len(frames), K, A] between the cut-outs and the views; 0 is a perfect match.

    look_THW3: Lab / 100 of the clip at half size; hidden [T, H, W]: what counts neither for nor against.
    """
    mask, inside_weight, bank_mask, bank_look, bank_norm, shape = _bank(views(color, ground))
    size = blobs.mask.shape[-1]
    reach = REACH * np.sqrt(np.maximum(blobs.area[frames], 1.0))  # pixels
    steps = (np.arange(SIDE) + 0.5) * (2 / SIDE) - 1
    column = (blobs.x[frames] + 1) * size / 2 - 0.5
    row = (1 - blobs.y[frames]) * size / 2 - 0.5
    columns = column[:, None] + reach[:, None] * steps
    rows = row[:, None] + reach[:, None] * steps
    at = np.broadcast_arrays(frames[:, None, None].astype(float), rows[:, :, None], columns[:, None, :])
    sizes = (len(frames), -1)
    valid = (columns[:, None, :] > -0.5) & (columns[:, None, :] < size - 0.5)
    valid = valid & (rows[:, :, None] > -0.5) & (rows[:, :, None] < size - 0.5)
    valid = valid * (1 - _sample(hidden, at))
    seen = _sample(blobs.mask, at)
    colors = [_sample(look_THW3[..., i], at) for i in range(3)]
    v = valid.reshape(sizes)
    cost = (v * seen.reshape(sizes) ** 2).sum(1)[:, None] - 2 * (valid * seen).reshape(sizes) @ mask + v @ bank_mask
    norm = sum(c * c for c in colors)
    cost += LOOK * ((valid * norm).reshape(sizes) @ inside_weight + v @ bank_norm)
    for i in range(3):
        cost -= LOOK * 2 * (valid * colors[i]).reshape(sizes) @ bank_look[i]
    return (cost / np.maximum(v.sum(1), 1)[:, None]).reshape(len(frames), *shape)


def _sample(maps: np.ndarray, at) -> np.ndarray:
    return ndimage.map_coordinates(maps, at, np.float32, order=1, mode="nearest")


@lru_cache(maxsize=64)
def _bank(kinds: tuple[Views, ...]):
    """The views as columns of matrices, so that a comparison is a few products."""
    mask = np.stack([k.mask for k in kinds])
    inside = np.stack([k.inside for k in kinds])
    look = np.stack([k.look for k in kinds])

    def columns(v):
        return np.ascontiguousarray(v.reshape(-1, SIDE * SIDE).T.astype(np.float32))

    weighted = [columns(inside * look[..., i]) for i in range(3)]
    norm = columns(inside * ((look * look).sum(-1) - PRIZE))
    return columns(mask), columns(inside), columns(mask * mask), weighted, norm, mask.shape[:2]
