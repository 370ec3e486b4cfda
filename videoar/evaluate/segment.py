"""Cuts things out of a clip: the largest connected patch of a palette colour in every frame.

All masks are at half size, where a pixel is the share 0..1 of its four that reads as the colour. Shapes: T frames,
H = W = half the picture; positions are in halves of the picture, right and up positive.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

_IN_PLANE = np.zeros((3, 3, 3), dtype=bool)
_IN_PLANE[1] = True
_SMALLEST = 0.006  # of a picture: less is no thing
_TOGETHER = 1.3  # parts closer than this, in roots of their area, are one thing
_CUT = 0.15  # of the root of its area on the picture's edge: then a patch is cut off
_COVERED = 0.25  # of its rim beside another thing: then a patch is not whole
_FEW = 4  # frames
_CRUMB = 0.04  # of the largest part: less is noise


@dataclass(frozen=True)
class Blobs:
    """One colour's patch over time.

    mask [T, H, W] 0..1; area [T] in pixels; x, y [T]: its centroid; seen [T]: there at all; whole [T]: and neither cut
    off by the picture's edge nor much covered by another thing.
    """

    mask: np.ndarray
    area: np.ndarray
    x: np.ndarray
    y: np.ndarray
    seen: np.ndarray
    whole: np.ndarray


def half_mask(labels_THW: np.ndarray, label: int) -> np.ndarray:
    """float32 [T, H/2, W/2]: the share of every 2 x 2 pixels with this label."""
    t, h, w = labels_THW.shape
    return (labels_THW == label).reshape(t, h // 2, 2, w // 2, 2).sum((2, 4), dtype=np.float32) / 4


def find_blobs(mask: np.ndarray) -> Blobs:
    """The largest patch of a mask [T, H, W] in every frame, with the parts of the same thing around it."""
    height, width = mask.shape[1:]
    parts, count = ndimage.label(ndimage.binary_dilation(mask >= 0.5, _IN_PLANE), _IN_PLANE)
    mask = np.where(np.isin(parts, _chosen(parts, mask, count)), mask, 0)
    area = mask.sum((1, 2))
    seen = area > _SMALLEST * height * width
    middle = (np.arange(width) + 0.5) * (2 / width) - 1
    total = np.maximum(area, 1e-6)
    x, y = mask.sum(1) @ middle / total, -(mask.sum(2) @ middle) / total
    edge = mask[:, [0, -1]].sum((1, 2)) + mask[:, :, [0, -1]].sum((1, 2))
    return Blobs(mask, area, x, y, seen, seen & (edge < _CUT * np.sqrt(area)))


def cover(mask: np.ndarray) -> np.ndarray:
    """Where the thing with this mask may hide another: bool [T, H, W], the mask with its holes and its rim."""
    grown = ndimage.binary_dilation(mask >= 0.3, _IN_PLANE, iterations=2)
    return ndimage.binary_erosion(ndimage.binary_dilation(grown, _IN_PLANE, iterations=2), _IN_PLANE, iterations=2)


def behind(blobs: Blobs, hidden: np.ndarray) -> Blobs:
    """The same patch, where frames in which `hidden` takes much of its rim no longer count as whole."""
    if not hidden.any():
        return blobs
    inside = blobs.mask >= 0.5
    rim = ndimage.binary_dilation(inside, _IN_PLANE, iterations=2) & ~inside
    taken = (rim & hidden).sum((1, 2)) / np.maximum(rim.sum((1, 2)), 1)
    whole = blobs.whole & (taken < _COVERED)
    if whole.sum() < _FEW:  # the two always touch
        whole = blobs.whole & (taken < 2 * _COVERED)
    return replace(blobs, whole=whole)


def _chosen(parts: np.ndarray, mask: np.ndarray, count: int) -> list[int]:
    """Of every frame the largest part and what belongs to it: a stripe or an eye may cut a body into pieces."""
    area = np.bincount(parts.ravel(), mask.ravel(), count + 1)
    area[0] = 0
    at = np.indices(parts.shape, dtype=np.float32).reshape(3, -1)
    total = np.maximum(area, 1e-6)
    place = np.stack([np.bincount(parts.ravel(), mask.ravel() * axis, count + 1) / total for axis in at], 1)
    chosen = []
    for frame in range(len(parts)):
        here = np.flatnonzero((np.round(place[:, 0]) == frame) & (area > 0))
        if not len(here):
            continue
        largest = here[area[here].argmax()]
        far = np.linalg.norm(place[here] - place[largest], axis=1) > _TOGETHER * np.sqrt(area[here] + area[largest])
        chosen += list(here[~far & (area[here] > _CRUMB * area[largest])])
    return chosen
