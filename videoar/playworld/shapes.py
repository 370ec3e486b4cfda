"""The twelve subjects as layers of signed distance, in units of the subject's radius (y up, extent within 1.2).

Distances are negative inside. x and y broadcast: an unrotated subject passes a row and a column, and whatever depends
on one of them alone costs next to nothing.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

EXTENT = 1.2
INK = (0.10, 0.09, 0.16)
SHINE = (1.0, 1.0, 1.0)


class Layer(NamedTuple):
    """One painted region. paint: "body" (shaded palette colour), "dark", "accent", or a fixed RGB in 0..1."""

    distance: Tensor
    paint: str | tuple[float, float, float]


def layers(subject: str, x: Tensor, y: Tensor, turn: Tensor) -> list[Layer]:
    """The layers of a subject from back to front.

    x, y: local coordinates that broadcast to [..., S, S]; turn: phase of its small motions (flame, fins), in turns.
    """
    return _SUBJECTS[subject](x, y, 2 * math.pi * turn)


def _length(x, y):
    return (x * x + y * y + 1e-9).sqrt_()


def _circle(x, y, r):
    return _length(x, y).sub_(r)


def _ellipse(x, y, a, b):
    return _length(x / a, y / b).sub_(1).mul_(min(a, b))


def _box(x, y, w, h, r=0.0):
    qx, qy = x.abs() - (w - r), y.abs() - (h - r)
    return _length(qx.clamp(min=0), qy.clamp(min=0)) + torch.maximum(qx, qy).clamp_(max=0) - r


def _convex(x, y, *corners):
    """A convex polygon as the largest distance to its edges; corners counter-clockwise."""
    d = None
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        n = math.hypot(bx - ax, by - ay)
        nx, ny = (by - ay) / n, (ax - bx) / n
        edge = nx * (x - ax) + ny * (y - ay)
        d = edge if d is None else torch.maximum(d, edge, out=d)
    return d


def _eyes(x, y, apart, height, r, look=0.0):
    """Two white eyes with dark pupils; mirrored in x."""
    ax, ay = x.abs() - apart, y - height
    white = _circle(ax, ay, r)
    pupil = white + 0.36 * r if look == 0 else _circle((x - look).abs() - apart, ay, 0.64 * r)
    return [Layer(white, SHINE), Layer(pupil, INK)]


def _smile(x, y, height, w):
    arc = (_length(x, y - height) - w).abs_().sub_(0.055)
    return Layer(torch.maximum(arc, y - height + 0.25 * w), INK)


def _ball(x, y, a):
    body = _circle(x, y, 1.0)
    stripe = torch.maximum(body + 0.03, (y - 0.05).abs() - 0.15)
    return [Layer(body, "body"), Layer(stripe, "accent"), Layer(_ellipse(x + 0.36, y - 0.56, 0.2, 0.12), SHINE)]


def _cube(x, y, a):
    return [Layer(_box(x, y, 0.86, 0.86, 0.16), "body"), *_eyes(x, y, 0.34, 0.2, 0.2), _smile(x, y, -0.1, 0.3)]


def _star(x, y, a):
    cos36, sin36 = math.cos(math.pi / 5), math.sin(math.pi / 5)
    fx, fy = x.abs(), y
    d = 2 * (cos36 * fx - sin36 * fy).clamp(min=0)
    fx, fy = fx - cos36 * d, fy + sin36 * d
    d = 2 * (-cos36 * fx - sin36 * fy).clamp(min=0)
    fx, fy = (fx + cos36 * d).abs_(), fy + sin36 * d - 1.1
    inner = 0.52
    bx, by = inner * sin36, inner * cos36 - 1
    h = ((fx * bx + fy * by) / (bx * bx + by * by)).clamp_(0, 1.1)
    body = _length(fx - bx * h, fy - by * h) * torch.sign(fy * bx - fx * by) - 0.07
    return [Layer(body, "body"), *_eyes(x, y, 0.22, 0.08, 0.15), _smile(x, y, -0.1, 0.2)]


def _heart(x, y, a):
    scale = 1.75
    px, py = x.abs() / scale, y / scale + 0.55
    low = (px + py).clamp(min=0) / 2
    side = torch.minimum(px * px + (py - 1) ** 2, (px - low) ** 2 + (py - low) ** 2)
    inside = (side + 1e-9).sqrt_() * torch.sign(px - py)
    body = torch.where(px + py > 1, _circle(px - 0.25, py - 0.75, math.sqrt(2) / 4), inside) * scale - 0.04
    return [Layer(body, "body"), Layer(_ellipse(x + 0.52, y - 0.5, 0.16, 0.2), "accent")]


def _ring(x, y, a):
    body = (_length(x, y) - 0.76).abs_().sub_(0.28)
    return [Layer(body, "body"), Layer(_circle(x, y - 0.76, 0.17), "accent")]


def _fish(x, y, a):
    wag = y + 0.14 * torch.sin(a) * (0.2 - x).clamp(0, 1.4)
    tail = _convex(x, wag, (-0.45, 0.0), (-1.05, 0.55), (-1.05, -0.55)) - 0.06
    fin = _convex(x, y, (0.35, 0.45), (-0.25, 0.85), (-0.35, 0.4)) - 0.06
    body = _ellipse(x - 0.2, y, 0.92, 0.64)
    stripe = torch.maximum(body + 0.04, (x + 0.08).abs() - 0.11)
    eye = _circle(x - 0.62, y - 0.14, 0.18)
    return [
        Layer(torch.minimum(tail, fin), "dark"),
        Layer(body, "body"),
        Layer(stripe, "accent"),
        Layer(eye, SHINE),
        Layer(eye + 0.08, INK),
    ]


def _jellyfish(x, y, a):
    beat = 1 + 0.06 * torch.sin(a)
    waving = x - 0.11 * torch.sin(4.0 * y + a) * (0.1 - y).clamp(0, 1)
    strand = ((waving.abs() - 0.42).abs() - 0.22).abs() - 0.085
    arms = torch.maximum(strand, (y + 0.45).abs() - 0.65)
    dome = torch.maximum(_ellipse(x / beat, y + 0.05, 1.05, 1.05), -(y - 0.02) - 0.07 * torch.cos(x * 9.0))
    return [Layer(arms, "dark"), Layer(dome, "body"), *_eyes(x, y, 0.3, 0.38, 0.16)]


def _balloon(x, y, a):
    string = torch.maximum((x - 0.07 * torch.sin(5 * y + a)).abs() - 0.05, (y + 0.85).abs() - 0.3)
    knot = _convex(x, y, (0.0, -0.42), (-0.16, -0.68), (0.16, -0.68)) - 0.03
    body = _ellipse(x, y - 0.28, 0.74, 0.86)
    return [
        Layer(string, (0.86, 0.84, 0.82)),
        Layer(knot, "dark"),
        Layer(body, "body"),
        Layer(_ellipse((x + 0.28) * 0.9 + (y - 0.62) * 0.4, (y - 0.62) * 0.9 - (x + 0.28) * 0.4, 0.1, 0.22), SHINE),
    ]


def _rocket(x, y, a):
    flame = _ellipse(x, y + 0.74, 0.24, 0.4) + 0.05 * torch.sin(a * 2)
    fins = _convex(x.abs(), y, (0.2, -0.05), (0.2, -0.65), (0.72, -0.82), (0.66, -0.45)) - 0.04
    body = torch.maximum(_ellipse(x, y + 0.05, 0.52, 1.15), -(y + 0.66))
    port = _circle(x, y - 0.25, 0.25)
    return [
        Layer(flame, (1.0, 0.60, 0.12)),
        Layer(flame + 0.11, (1.0, 0.92, 0.45)),
        Layer(fins, "dark"),
        Layer(body, "body"),
        Layer(port, (0.93, 0.93, 0.95)),
        Layer(port + 0.08, (0.35, 0.62, 0.85)),
    ]


def _flower(x, y, a):
    # Fold the plane onto one of six petals.
    fx, fy = x.abs(), y.abs()
    d = 2 * (0.8660254 * fx - 0.5 * fy).clamp(min=0)
    petals = _circle(fx - 0.8660254 * d, fy + 0.5 * d - 0.7, 0.4)
    body = torch.minimum(petals, _circle(x, y, 0.6))
    heart = _circle(x, y, 0.36)
    eyes = _circle(x.abs() - 0.13, y - 0.06, 0.07)
    return [Layer(body, "body"), Layer(heart, (0.45, 0.27, 0.20)), Layer(heart + 0.07, (1.0, 0.92, 0.68)),
            Layer(eyes, INK)]  # fmt: skip


def _ghost(x, y, a):
    body = torch.minimum(_circle(x, y - 0.25, 0.78), _box(x, y + 0.25, 0.78, 0.6))
    body = torch.maximum(body, -(y + 0.78) - 0.13 * torch.cos(x * 8 + a))
    eyes = _ellipse(x.abs() - 0.28, y - 0.34, 0.13, 0.2)
    return [Layer(body, "body"), Layer(eyes, INK), Layer(_ellipse(x, y + 0.08, 0.13, 0.1), (0.35, 0.12, 0.22))]


def _boat(x, y, a):
    hull = torch.maximum(_ellipse(x, y + 0.2, 1.08, 0.8), y + 0.28)
    main = _convex(x, y, (0.1, 1.0), (0.1, -0.1), (0.82, -0.1)) - 0.04
    jib = _convex(x, y, (-0.1, 0.75), (-0.68, -0.1), (-0.1, -0.1)) - 0.04
    mast = _box(x, y - 0.3, 0.055, 0.7)
    stripe = torch.maximum(hull + 0.05, (y + 0.46).abs() - 0.07)
    return [
        Layer(mast, (0.42, 0.28, 0.20)),
        Layer(main, "body"),
        Layer(jib, "accent"),
        Layer(hull, "body"),
        Layer(stripe, "accent"),
    ]


_SUBJECTS = {
    "ball": _ball,
    "cube": _cube,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "fish": _fish,
    "jellyfish": _jellyfish,
    "balloon": _balloon,
    "rocket": _rocket,
    "flower": _flower,
    "ghost": _ghost,
    "boat": _boat,
}
