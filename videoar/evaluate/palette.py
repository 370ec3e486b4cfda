"""Says of every pixel which palette colour painted it, or that it belongs to the background of the scene.

Decided by Bayes' rule on densities over CIELAB: a subject's body is its palette colour, a little lighter or darker; a
scene's colours are those of its own renders. Shapes: T frames, H rows, W columns, N colours of any number.
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage

from ..playworld import COLORS
from .backgrounds import Ground, samples

COLOR_NAMES = tuple(COLORS)
BACKGROUND = len(COLOR_NAMES)  # the label of what is no body

_STEP = 2.5  # width of a bin of Lab
_LOW = np.array([0.0, -90.0, -110.0])
_BINS = (41, 78, 86)
_KERNEL = ((0.75, 1.8), (0.25, 5.0))  # share and width (ΔE): most is as drawn, some is off by noise and compression
_SHARE = 0.015  # of a picture that one colour's body is expected to cover
_FLOOR = 2.5e-7  # density of colours that nothing explains; a body must be likelier


def lab(rgb_N3: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of display RGB in 0..1: float32 [..., 3], L 0..100."""
    rgb = np.clip(np.asarray(rgb_N3, dtype=np.float32), 0, 1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=np.float32)
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089], dtype=np.float32)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def code(pixels: np.ndarray) -> np.ndarray:
    """int32 index of uint8 RGB [..., 3] into the tables of 64 x 64 x 64 colours."""
    r, g, b = ((pixels[..., i] >> 2).astype(np.int32) for i in range(3))
    return (r << 12) | (g << 6) | b


@lru_cache(maxsize=1)
def lab_table() -> np.ndarray:
    """float32 [64 ** 3, 3]: the Lab of every code."""
    level = (np.arange(64, dtype=np.float32) * 4 + 1.5) / 255
    return lab(np.stack(np.meshgrid(level, level, level, indexing="ij"), -1).reshape(-1, 3)).astype(np.float32)


@lru_cache(maxsize=32)
def label_table(ground: Ground | None) -> np.ndarray:
    """uint8 [64 ** 3]: for every code the index of the palette colour whose body it is, or BACKGROUND.

    A wall's own colour is never a body in front of it. Without a ground everything near the palette is a body.
    """
    body, rest = _densities(ground)
    label = np.where(body.max(0) > rest, body.argmax(0), BACKGROUND).astype(np.uint8)
    return label[_bin_of_code()]


@lru_cache(maxsize=32)
def known_table(ground: Ground) -> np.ndarray:
    """bool [64 ** 3]: for every code whether something explains it, the scene or a body."""
    body, rest = _densities(ground)
    return (np.maximum(body.max(0), rest) > _FLOOR)[_bin_of_code()]


def _densities(ground: Ground | None) -> tuple[np.ndarray, np.ndarray]:
    """Of all bodies [colours, bins] and of what is no body [bins], not below _FLOOR."""
    body = np.stack([_SHARE * _body_density(name) for name in COLOR_NAMES])
    rest = np.full(body.shape[1], _FLOOR, dtype=np.float32)
    if ground:
        rest = np.maximum(rest, _density(samples(ground).reshape(-1, 3) / 255.0))
        if ground.wall_color:
            body[COLOR_NAMES.index(ground.wall_color)] = 0
    return body, rest


@lru_cache(maxsize=1)
def _bin_of_code() -> np.ndarray:
    return _bins(lab_table())


def _bins(lab_N3: np.ndarray) -> np.ndarray:
    at = np.clip(((lab_N3 - _LOW) / _STEP).astype(np.int64), 0, np.array(_BINS) - 1)
    return np.ravel_multi_index(tuple(at.T), _BINS)


def _density(rgb_N3: np.ndarray) -> np.ndarray:
    """The share of colours in every bin, with some tolerance."""
    count = np.bincount(_bins(lab(rgb_N3)), minlength=int(np.prod(_BINS))).reshape(_BINS)
    share_of_bin = count.astype(np.float32) / len(rgb_N3)
    blurred = (
        share * ndimage.gaussian_filter(share_of_bin, width / _STEP, mode="constant") for share, width in _KERNEL
    )
    return sum(blurred).ravel()


@lru_cache(maxsize=16)
def _body_density(color: str) -> np.ndarray:
    """A body is shaded from above and darker at its rim; fins and the like have 0.72 of its colour."""
    shades = np.concatenate([np.linspace(0.93, 1.07, 120), np.linspace(0.68, 0.95, 80)])
    return _density(shades[:, None] * np.array(COLORS[color]))
