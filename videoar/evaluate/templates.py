"""What every subject looks like from every angle, drawn with the renderer's own signed distances.

A view is brought to a standard position by the moments of its mask (the pixels that read as body): the mask's centroid
in the middle, the root of its area as the unit of length. Masks cut out of a clip are brought there as well, so that
one comparison decides subject and angle together. Shapes: S = SIDE, A angles.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage

from ..playworld import SUBJECTS, Thing
from ..playworld.motion import Path
from ..playworld.render import WIGGLE, draw_subject
from .backgrounds import Ground, samples
from .palette import COLOR_NAMES, code, lab_table, label_table

SIDE = 28  # pixels of a standard view
REACH = 1.15  # half its width, in roots of the mask's area
ANGLES = 24
MIRRORED = ("fish", "boat")  # they face left when they travel left
BLURS = (0.0, 0.08, 0.16)  # radii; generated clips are softer than rendered ones

_CANVAS = 80  # pixels of a drawing
_RADIUS = 0.78  # of the subject in it, in halves of the drawing
_WIGGLES = 2  # phases of flames and fins that are averaged


@dataclass(frozen=True, eq=False)
class Views:
    """One subject in one colour, from upright to a full turn, to the left.

    mask [A, S, S] 0..1 reads as body; inside [A, S, S] 0..1 belongs to the subject; look [A, S, S, 3] its Lab / 100;
    area: of the mask, in squares of the radius; offset: from the subject's centre to the mask's centroid, in radii, up
    is positive.
    """

    subject: str
    facing: int
    mask: np.ndarray
    inside: np.ndarray
    look: np.ndarray
    area: float
    offset: tuple[float, float]


def views(color: str, ground: Ground) -> tuple[Views, ...]:
    """The views of all subjects and of those that face left, all of it sharp and then all of it soft."""
    return _all_views(color, _matters(color, ground))


def body_mask(subject: str, facing: int, color: str, ground: Ground, radius: float, size: int) -> np.ndarray:
    """float32 [size, size], 0..1: where an upright subject in the middle of a picture reads as body.

    radius: in halves of the picture.
    """
    rgb, alpha = _draw(subject, facing, color, radius, size)
    return _reads_as_body(_lay(rgb, alpha, _matters(color, ground), 0.5), color, _matters(color, ground)).mean(0)


def _matters(color: str, ground: Ground) -> Ground | None:
    """What is white depends on the scene; the other colours look the same before every ground."""
    return ground if color == "white" else None


@lru_cache(maxsize=64)
def _all_views(color: str, ground: Ground | None) -> tuple[Views, ...]:
    kinds = [(s, 1) for s in SUBJECTS] + [(s, -1) for s in MIRRORED]
    return tuple(_views(subject, facing, color, ground, blur) for blur in BLURS for subject, facing in kinds)


def _views(subject: str, facing: int, color: str, ground: Ground | None, blur: float) -> Views:
    rgb, alpha = _drawing(subject, facing, color)
    radius = _RADIUS * _CANVAS / 2  # pixels
    laid = _lay(rgb, alpha, ground, blur * radius)
    mask = _reads_as_body(laid, color, ground).mean(0)
    middle = (np.arange(_CANVAS) + 0.5 - _CANVAS / 2) / radius
    total = max(float(mask.sum()), 1.0)
    x, y = float(mask.sum(0) @ middle) / total, -float(mask.sum(1) @ middle) / total
    area = total / radius**2
    inside = alpha if not blur else ndimage.gaussian_filter(alpha, (0, blur * radius, blur * radius), truncate=2.5)
    look = lab_table()[code((np.clip(laid, 0, 1) * 255).astype(np.uint8))].mean(0) / 100
    planes = _turned(np.stack([mask, inside.mean(0), *look.transpose(2, 0, 1)]), x, y, math.sqrt(area))
    return Views(subject, facing, planes[:, 0], planes[:, 1], planes[:, 2:].transpose(0, 2, 3, 1), area, (x, y))


def _turned(planes_CHW: np.ndarray, x: float, y: float, root_area: float) -> np.ndarray:
    """[A, C, S, S]: a drawing turned and in unit size, the point x, y (radii from its centre) in the middle."""
    reach = REACH * root_area  # radii
    pixels = reach * _RADIUS * _CANVAS / SIDE  # of the drawing, in one of a view
    soft = ndimage.gaussian_filter(planes_CHW, (0, 0.4 * pixels, 0.4 * pixels), truncate=2.5)
    steps = (np.arange(SIDE) + 0.5) * (2 / SIDE) - 1
    angle = np.arange(ANGLES)[:, None, None] * (2 * math.pi / ANGLES)
    # The middle of a view is the turned point, so turning a view back only needs its own coordinates.
    right, up = reach * steps[None, None, :], -reach * steps[None, :, None]
    local_x = np.cos(angle) * right + np.sin(angle) * up + x
    local_y = np.cos(angle) * up - np.sin(angle) * right + y
    grid = np.stack([local_x * _RADIUS, -local_y * _RADIUS], -1).astype(np.float32)
    source = torch.from_numpy(soft.astype(np.float32))[None].expand(ANGLES, -1, -1, -1)
    return torch.nn.functional.grid_sample(source, torch.from_numpy(grid), align_corners=False).numpy()


def _lay(rgb: np.ndarray, alpha: np.ndarray, ground: Ground | None, blur: float) -> np.ndarray:
    """Drawings [F, H, W, 3] on plain paper of the ground's mean colour, blurred by so many pixels."""
    paper = np.float32(0.5) if ground is None else (samples(ground).mean((0, 1, 2, 3)) / 255).astype(np.float32)
    laid = paper + (rgb - paper) * alpha[..., None]
    return ndimage.gaussian_filter(laid, (0, blur, blur, 0), truncate=2.5) if blur else laid


def _reads_as_body(rgb: np.ndarray, color: str, ground: Ground | None) -> np.ndarray:
    """0 or 1, [...]."""
    label = label_table(ground)[code((np.clip(rgb, 0, 1) * 255).astype(np.uint8))]
    return (label == COLOR_NAMES.index(color)).astype(np.float32)


@lru_cache(maxsize=256)
def _drawing(subject: str, facing: int, color: str) -> tuple[np.ndarray, np.ndarray]:
    return _draw(subject, facing, color, _RADIUS, _CANVAS)


@torch.no_grad()
def _draw(subject: str, facing: int, color: str, radius: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB 0..1 [wiggles, size, size, 3] and alpha [wiggles, size, size] of an upright subject in the middle."""
    zero = torch.zeros(_WIGGLES)
    path = Path(zero, zero, zero + radius, zero)
    pixel = (torch.arange(size, dtype=torch.float32) + 0.5) * (2 / size) - 1
    seconds = torch.arange(_WIGGLES, dtype=torch.float64) * (WIGGLE / _WIGGLES)
    thing = Thing(subject, color, motion="stays still" if facing > 0 else "drifts left")
    images = []
    for paper in (0.0, 1.0):
        image = torch.full((1, 3, _WIGGLES, size, size), paper)
        draw_subject(image, subject, [thing], [path], [0], seconds, pixel)
        images.append(image[0].permute(1, 2, 3, 0).numpy())
    alpha = 1 - (images[1] - images[0]).mean(-1)
    return images[0] / np.maximum(alpha, 1e-3)[..., None], alpha
