"""Reads the scene: which of the drawn backgrounds has the most similar colours, row by row."""

from functools import lru_cache

import numpy as np

from .backgrounds import GROUNDS, Ground, samples
from .palette import code, lab_table

_BANDS = 32
_LARGEST = 30.0  # ΔE: a row hidden by a subject counts no more than this


def read_scene(half_THW3: np.ndarray) -> Ground:
    """The scene of a clip at half size, uint8 [T, 64, 64, 3], by its nearest neighbour among the drawn ones."""
    rows, references = _rows(half_THW3[None, ::8]), _references()
    difference = np.linalg.norm(references[0] - rows, axis=-1)
    return references[1][int(np.minimum(difference, _LARGEST).mean(1).argmin())]


def _rows(clips: np.ndarray) -> np.ndarray:
    """Lab [clips, bands, 3]: the median colour of every band of rows, over all columns and times."""
    n, frames, height, width, _ = clips.shape
    banded = lab_table()[code(clips)].reshape(n, frames, _BANDS, height // _BANDS, width, 3)
    return np.median(banded.transpose(0, 2, 1, 3, 4, 5).reshape(n, _BANDS, -1, 3), axis=2)


@lru_cache(maxsize=1)
def _references() -> tuple[np.ndarray, list[Ground]]:
    rows = [_rows(samples(ground)) for ground in GROUNDS]
    return np.concatenate(rows), [g for g, r in zip(GROUNDS, rows, strict=True) for _ in r]
