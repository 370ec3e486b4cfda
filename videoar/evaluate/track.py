"""Follows a thing: where its centre is in every frame, how big it is there and how well every angle fits.

Where the thing is whole the moments of its patch say so. Where the picture's edge or another thing cuts it off, its
view is slid over the picture to where it agrees best with what can be seen (correlation by Fourier transform).
Shapes: T frames, H = W half the picture, K kinds of views, A angles.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from ..playworld import SIZES
from .backgrounds import Ground
from .segment import Blobs
from .shape import compare
from .templates import ANGLES, BLURS, body_mask, views

_PROBES = 12  # whole frames that decide about the subject
_CUT_PROBES = 5  # cut-off frames that do so where no frame is whole
_LEAST_VISIBLE = 0.15  # of a mask, to say where the thing is


@dataclass(frozen=True)
class Track:
    """subject, facing; x, y, radius [T] in halves of the picture; sure [T]: 0..1 weight of the place;

    whole [T]: the radius is measured and misfit [T, A] tells how badly every angle fits.
    """

    subject: str
    facing: int
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    sure: np.ndarray
    whole: np.ndarray
    misfit: np.ndarray


def follow(blobs: Blobs, look: np.ndarray, hidden: np.ndarray, color: str, ground: Ground, zoom: np.ndarray) -> Track:
    """Recognise and follow the thing of this colour.

    look [T, H, W, 3]: Lab / 100; hidden [T, H, W]: bool, where another thing is; zoom [T]: of things, by the camera.
    """
    whole = np.flatnonzero(blobs.whole)
    if len(whole) < 2:
        return _follow_cut(blobs, hidden, color, ground, zoom)
    kinds = views(color, ground)
    misfit = compare(blobs, look, hidden.astype(np.float32), whole, color, ground)
    for i, kind in enumerate(kinds):
        if kind.facing < 0:  # what travels left does not turn
            misfit[:, i, 1:] = np.inf
    probes = np.unique(np.linspace(0, len(whole) - 1, _PROBES).astype(int))
    chosen = int(misfit[probes].min(2).mean(0).argmin())
    kind = kinds[chosen]
    angle = misfit[:, chosen].argmin(1) * (2 * np.pi / ANGLES)
    frames = len(blobs.area)
    x, y, radius, sure = (np.zeros(frames) for _ in range(4))
    radius[whole] = np.sqrt(blobs.area[whole] / kind.area) * 2 / blobs.mask.shape[-1]
    dx, dy = kind.offset
    x[whole] = blobs.x[whole] - radius[whole] * (np.cos(angle) * dx - np.sin(angle) * dy)
    y[whole] = blobs.y[whole] - radius[whole] * (np.sin(angle) * dx + np.cos(angle) * dy)
    sure[whole] = 1
    typical = float(np.median(radius[whole] / zoom[whole]))
    cut = np.flatnonzero(blobs.seen & ~blobs.whole)
    if len(cut):
        seen = _Sight(blobs.mask[cut], ~hidden[cut])
        view = _view(kind.subject, kind.facing, color, ground, typical * float(zoom[cut].mean()), blobs.mask.shape[-1])
        x[cut], y[cut], sure[cut], _ = seen.place(view)
        radius[cut] = typical * zoom[cut]
    is_whole = np.zeros(frames, dtype=bool)
    is_whole[whole] = True
    fits = np.zeros((frames, ANGLES))
    fits[whole] = misfit[:, chosen] if kind.facing > 0 else misfit[:, chosen, :1]
    return Track(kind.subject, kind.facing, x, y, radius, sure, is_whole, fits)


def _follow_cut(blobs: Blobs, hidden: np.ndarray, color: str, ground: Ground, zoom: np.ndarray) -> Track:
    """Of a thing that is never whole: try every subject in every size, upright."""
    frames = np.flatnonzero(blobs.seen)
    probes = frames[np.argsort(-blobs.area[frames])[:_CUT_PROBES]]
    size, seen = blobs.mask.shape[-1], _Sight(blobs.mask[probes], ~hidden[probes])
    best = (np.inf, "", 1, 0.0)
    for kind in views(color, ground)[: len(views(color, ground)) // len(BLURS)]:
        for radius in SIZES.values():
            view = _view(kind.subject, kind.facing, color, ground, radius * float(zoom[probes].mean()), size)
            best = min(best, (float(seen.place(view)[3].sum()), kind.subject, kind.facing, radius))
    _, subject, facing, radius = best
    view = _view(subject, facing, color, ground, radius * float(zoom[frames].mean()), size)
    count = len(blobs.area)
    x, y, sure = np.zeros(count), np.zeros(count), np.zeros(count)
    x[frames], y[frames], sure[frames], _ = _Sight(blobs.mask[frames], ~hidden[frames]).place(view)
    return Track(subject, facing, x, y, radius * zoom, sure, np.zeros(count, dtype=bool), np.zeros((count, ANGLES)))


def _view(subject: str, facing: int, color: str, ground: Ground, radius: float, size: int) -> np.ndarray:
    """The mask [2 size, 2 size] of an upright subject in the middle of twice the picture."""
    return body_mask(subject, facing, color, ground, radius / 2, 2 * size)


class _Sight:
    """Masks [T, H, W] of which only a part can be seen; `visible` is False where something else is in front."""

    def __init__(self, mask: np.ndarray, visible: np.ndarray) -> None:
        self.size = mask.shape[-1]
        self.shape = (2 * self.size, 2 * self.size)
        self.mask = fft.rfft2((mask * visible).astype(np.float32), self.shape)
        self.visible = fft.rfft2(visible.astype(np.float32), self.shape)
        self.total = (mask * mask * visible).sum((1, 2))

    def place(self, view: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Centre x, y [T] where the view differs least from the masks, its visible share there and the difference."""
        kernel = np.conj(fft.rfft2(view.astype(np.float32), self.shape))
        common = fft.irfft2(self.mask * kernel, self.shape)
        shown = fft.irfft2(self.visible * kernel, self.shape)
        cost = (shown - 2 * common).reshape(len(self.total), -1)
        best = cost.argmin(1)
        rows, columns = np.unravel_index(best, self.shape)
        # A shift of s rows puts the view's middle, row `size`, at row size + s; shifts go round.
        x, y = ((v + self.size) % self.shape[0] for v in (columns, rows))
        each = np.arange(len(best))
        share = shown.reshape(len(best), -1)[each, best] / max(float(view.sum()), 1.0)
        sure = np.where(share > _LEAST_VISIBLE, np.clip(share, 0, 1), 0)
        return x * 2 / self.size - 1, 1 - y * 2 / self.size, sure, cost[each, best] + self.total
