"""The eight backgrounds, built from rows, columns and products of the two so that a full plane costs very little.

Shapes: n clips, F frames (1 where nothing moves), H rows, W columns, K soft spots. A background is an image
[n, 3, F, H, W]; an alpha is [n, F, H, W]; rows are [n, F, H, 1] and columns [n, F, 1, W]. World coordinates are in
halves of the picture at zoom 1, y up; the world repeats sideways after `CIRCUMFERENCE`, so frequencies in x are whole
multiples of 2 pi / CIRCUMFERENCE and spots repeat after half of it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .motion import CIRCUMFERENCE

TAU = 2 * math.pi
WAVE = TAU / CIRCUMFERENCE


@dataclass(frozen=True)
class View:
    """What the camera sees: x [n,F,1,W], y [n,F,H,1] world coordinates, soft [n,F,1,1] width of an edge in the world,

    seconds [F] (float64), random_nK: the clip's own random numbers in 0..1, wall_n3: RGB of the wall.
    """

    x: Tensor
    y: Tensor
    soft: Tensor
    seconds: Tensor
    random_nK: Tensor
    wall_n3: Tensor

    def random(self, k: int) -> Tensor:
        return self.random_nK[:, k, None, None, None]

    def randoms(self, first: int, count: int) -> Tensor:
        """[n, 1, K]"""
        return self.random_nK[:, None, first : first + count]

    def turns(self, per_second: float) -> Tensor:
        """float32 [1, F, 1, 1] phase in 0..1 of something periodic; reduced in float64, so it never grows coarse."""
        turns = torch.remainder(self.seconds * per_second, 1.0)
        return turns.to(torch.float32).to(self.x.device)[None, :, None, None]


def background(scene: str, view: View) -> Tensor:
    """The RGB picture [n, 3, F or 1, H, W] of a scene, 0..1."""
    return _SCENES[scene](view)


def wall_rgb(rgb: tuple[float, float, float]) -> tuple[float, ...]:
    """Walls are paler than the palette, so that a subject stands out from a wall of another colour."""
    return tuple(0.42 * c + 0.58 * 0.78 for c in rgb)


def _rgb(color, like: Tensor) -> Tensor:
    return torch.tensor(color, dtype=torch.float32, device=like.device).view(1, 3, 1, 1, 1)


def _blend(low, high, amount: Tensor) -> Tensor:
    """Colours mixed by rows or columns -> [n, 3, F, ., .]."""
    return torch.lerp(_rgb(low, amount), _rgb(high, amount), amount[:, None])


def _smooth(a: float, b: float, v: Tensor) -> Tensor:
    t = ((v - a) / (b - a)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _paint(image: Tensor, color, alpha: Tensor) -> Tensor:
    """Lay a colour (RGB, or an image that broadcasts) over the picture; in place where it fits."""
    color = color if isinstance(color, Tensor) else _rgb(color, image)
    alpha = alpha[:, None]
    shape = torch.broadcast_shapes(image.shape, color.shape, alpha.shape)
    return image.lerp_(color, alpha) if image.shape == shape else torch.lerp(image, color, alpha)


def _whole(view: View, rows: Tensor) -> Tensor:
    """A picture made of rows [n,3,F,H,1], spread over the columns."""
    return rows.expand(-1, -1, -1, -1, view.x.shape[-1]).clone()


def _under(view: View, height: Tensor) -> Tensor:
    return ((height - view.y) / view.soft).add_(0.5).clamp_(0, 1)


def _wave(view: View, count: int, phase: Tensor) -> Tensor:
    """A sine along x with `count` periods around the world."""
    return torch.sin(view.x * (WAVE * count) + TAU * phase)


def _sideways(view: View, x: Tensor, period: float = CIRCUMFERENCE / 2) -> Tensor:
    """Signed way from x to every column, the short way round."""
    return torch.remainder(view.x - x + period / 2, period) - period / 2


def _disc(view: View, x: Tensor, y: Tensor | float, r: float) -> Tensor:
    dx, dy = _sideways(view, x), view.y - y
    return ((r * r - dx * dx) - dy * dy).div_(2 * r * view.soft).add_(0.5).clamp_(0, 1)


def _spots(view: View, x: Tensor, y: Tensor, rx, ry, strength: Tensor | float = 1.0) -> Tensor:
    """The sum of K soft spots; x, y, rx, ry, strength broadcast to [n, F, K]. One matrix product for all of them."""
    columns = _sideways(view, x[..., None]) / _column(rx)
    rows = (view.y - y[:, :, None, :]) / _row(ry)
    columns = torch.exp(-columns * columns) * _column(strength)
    return torch.exp(-rows * rows) @ columns


def _column(v):
    return v[..., None] if isinstance(v, Tensor) else v


def _row(v):
    return v[:, :, None, :] if isinstance(v, Tensor) else v


def _spread(view: View, first: int, count: int) -> Tensor:
    """K places around half the world, one in every slot so that none crowd: [n, 1, K]."""
    slot = torch.arange(count, device=view.x.device, dtype=torch.float32)
    return (slot + 0.8 * view.randoms(first, count)) * (CIRCUMFERENCE / 2 / count)


def _night(v: View) -> Tensor:
    image = _whole(v, _blend((0.13, 0.12, 0.30), (0.035, 0.04, 0.15), _smooth(-0.8, 0.9, v.y)))
    moon_x, moon_y = 0.5 + 1.2 * v.random(0), 0.58
    image = _paint(image, (0.93, 0.90, 0.76), _disc(v, moon_x, moon_y, 0.17))
    hills = _under(v, -0.74 + 0.09 * _wave(v, 3, v.random(1)) + 0.04 * _wave(v, 7, v.random(2)))
    k = 16
    y = -0.45 + 1.75 * torch.remainder(v.randoms(20, k) + 0.618 * torch.arange(k, device=v.x.device), 1.0)
    twinkle = 0.75 + 0.35 * torch.sin(TAU * (v.turns(0.4)[:, :, 0] + v.randoms(40, k)))
    stars = _spots(v, _spread(v, 3, k), y, 0.045, 0.045, twinkle).clamp_(max=1)
    image = _paint(image, (0.98, 0.96, 0.84), stars)
    return _paint(image, (0.05, 0.075, 0.13), hills)


def _sunset(v: View) -> Tensor:
    image = _whole(v, _blend((0.96, 0.66, 0.42), (0.46, 0.30, 0.50), _smooth(-0.25, 1.0, v.y)))
    sun = 0.6 * v.random(0) - 0.3
    x, y = sun[..., 0], torch.full_like(sun[..., 0], -0.12)
    image = _paint(image, (1.0, 0.86, 0.58), _spots(v, x, y, 0.55, 0.5, 0.6))
    image = _paint(image, (1.0, 0.94, 0.72), _disc(v, sun, -0.12, 0.27))
    k = 4
    height = 0.15 + 0.75 * v.randoms(10, k)
    clouds = _spots(v, _spread(v, 20, k), height, 0.42, 0.07, 0.75).clamp_(max=1)
    image = _paint(image, (0.80, 0.50, 0.50), clouds)
    sea = _under(v, torch.full_like(v.x, -0.32))
    waves = torch.sin(11 * v.y + TAU * v.turns(0.4)) * 0.5 + 0.5
    way = _sideways(v, sun)
    light = (waves * waves) * torch.exp(-((way / 0.5) ** 2))
    water = torch.lerp(_rgb((0.30, 0.20, 0.40), light), _rgb((0.96, 0.66, 0.44), light), light.mul_(0.8)[:, None])
    return _paint(image, water, sea)


def _ocean(v: View) -> Tensor:
    image = _whole(v, _blend((0.03, 0.13, 0.30), (0.11, 0.42, 0.55), _smooth(-1.0, 1.0, v.y)))
    bottom = -0.80 + 0.06 * _wave(v, 4, v.random(0))
    rays = torch.zeros_like(v.x)
    for count, rate, k in ((5, 0.10, 1), (9, -0.14, 2)):  # slanting light: sin(a + b) is two products of row and column
        a = v.x * (WAVE * count) + TAU * (v.turns(rate) + v.random(k))
        b = v.y * (WAVE * count * 0.5)
        rays = rays + torch.sin(a) * torch.cos(b) + torch.cos(a) * torch.sin(b)
    image = _paint(image, (0.62, 0.88, 0.92), rays.add_(1.2).clamp_(min=0) * (0.10 * _smooth(-0.9, 1.0, v.y)))
    # Weeds: one every world unit, of different heights, swaying together.
    slot = torch.floor(v.x + v.random(3))
    height = torch.remainder(torch.sin(slot * 12.9898 + 6 * v.random(4)) * 43.758, 1.0)
    sway = 0.07 * torch.sin(3.2 * v.y + TAU * v.turns(0.35)) * _smooth(-0.9, -0.2, v.y)
    from_stem = (torch.remainder(v.x + v.random(3), 1.0) - 0.5) - sway
    room = ((0.05 - 0.5 * height) - v.y).clamp(0, 0.4) * 0.18  # pointed at the top
    weeds = (room - from_stem.abs_()).div_(1.6 * v.soft).add_(0.5).clamp_(0, 1) * (room > 0)
    image = _paint(image, (0.08, 0.33, 0.33), weeds)
    k = 8
    rise = torch.remainder(v.randoms(10, k) + v.turns(0.11)[:, :, 0], 1.0) * 3.0 - 1.5
    drift = 0.05 * torch.sin(TAU * (v.turns(0.5)[:, :, 0] + v.randoms(20, k)))
    size = 0.05 + 0.03 * v.randoms(30, k)
    bubbles = _spots(v, _spread(v, 40, k) + drift, rise, size, size, 1.2).clamp_(max=0.8)
    image = _paint(image, (0.62, 0.86, 0.92), bubbles)
    return _paint(image, (0.56, 0.52, 0.40), _under(v, bottom))


def _meadow(v: View) -> Tensor:
    image = _whole(v, _blend((0.80, 0.90, 0.96), (0.50, 0.70, 0.90), _smooth(-0.3, 1.0, v.y)))
    far = _under(v, -0.38 + 0.11 * _wave(v, 2, v.random(0)) + 0.03 * _wave(v, 5, v.random(1)))
    near = _under(v, -0.66 + 0.08 * _wave(v, 3, v.random(2)))
    k, puffs = 3, 3
    x = _spread(v, 10, k) + 4 * v.turns(0.012)[:, :, 0]
    y = 0.42 + 0.42 * v.randoms(15, k)
    side = torch.arange(puffs, device=v.x.device, dtype=torch.float32) - 1
    lift = 0.07 * (1 - side.abs())
    x = (x[..., None] + 0.19 * side).flatten(2)
    y = (y[..., None] + lift).flatten(2)
    clouds = _spots(v, x, y, 0.18, 0.12, 1.3).sub_(0.35).mul_(2.2).clamp_(0, 0.9)
    image = _paint(image, (0.98, 0.98, 0.99), clouds)
    image = _paint(image, (0.50, 0.63, 0.40), far)
    image = _paint(image, (0.36, 0.50, 0.28), near)
    k = 9
    flowers = _spots(v, _spread(v, 20, k), -0.80 - 0.14 * v.randoms(30, k), 0.05, 0.05, 1.4).clamp_(max=0.9)
    return _paint(image, (0.94, 0.90, 0.72), flowers)


def _snow(v: View) -> Tensor:
    image = _whole(v, _blend((0.66, 0.73, 0.82), (0.42, 0.50, 0.64), _smooth(-0.6, 1.0, v.y)))
    ground = -0.66 + 0.06 * _wave(v, 3, v.random(0))
    tree = _sideways(v, 4 * v.random(1), 2.0).abs_()
    for top, foot, wide in ((0.05, -0.45, 0.30), (-0.15, -0.75, 0.40)):
        cone = (wide * (top - v.y) / (top - foot) - tree).div_(1.2 * v.soft).add_(0.5).clamp_(0, 1)
        image = _paint(image, (0.24, 0.36, 0.38), cone * ((v.y > foot) & (v.y < top + 0.05)))
    image = _paint(image, (0.84, 0.88, 0.93), _under(v, ground))
    for k, size, rate, alpha, first in ((10, 0.06, 0.14, 0.95, 10), (12, 0.042, 0.10, 0.8, 35)):
        fall = 1.5 - 3.0 * torch.remainder(v.randoms(first, k) + v.turns(rate)[:, :, 0], 1.0)
        drift = 0.07 * torch.sin(TAU * (v.turns(0.25)[:, :, 0] + v.randoms(first + 1, k)))
        flakes = _spots(v, _spread(v, first + 12, k) + drift, fall, size, size, 1.3).clamp_(max=1).mul_(alpha)
        image = _paint(image, (0.96, 0.97, 1.0), flakes)
    return image


def _desert(v: View) -> Tensor:
    image = _whole(v, _blend((0.97, 0.88, 0.70), (0.66, 0.80, 0.88), _smooth(-0.3, 1.0, v.y)))
    image = _paint(image, (1.0, 0.97, 0.84), _disc(v, 1.2 * v.random(0) - 0.6, 0.62, 0.17))
    far = _under(v, -0.40 + 0.11 * _wave(v, 2, v.random(1)))
    near = _under(v, -0.68 + 0.08 * _wave(v, 3, v.random(2)))
    image = _paint(image, (0.87, 0.72, 0.50), far)
    # Cacti: a trunk and two bent arms out of soft boxes, which are products of a row and a column.
    x = 4 * v.random(3)
    stems = []
    for cx, cy, w, h in ((0, -0.55, 0.055, 0.40), (0.1, -0.42, 0.1, 0.04), (0.17, -0.32, 0.04, 0.14),
                         (-0.1, -0.54, 0.1, 0.04), (-0.17, -0.44, 0.04, 0.14)):  # fmt: skip
        column = (w - (_sideways(v, x, 2.0) - cx).abs_()).div_(v.soft).add_(0.5).clamp_(0, 1)
        row = (h - (v.y - cy).abs_()).div_(v.soft).add_(0.5).clamp_(0, 1)
        stems.append((row, column))
    rows, columns = torch.cat([r for r, _ in stems], 3), torch.cat([c for _, c in stems], 2)
    image = _paint(image, (0.35, 0.47, 0.34), (rows @ columns).clamp_(max=1))
    return _paint(image, (0.77, 0.59, 0.39), near)


def _city(v: View) -> Tensor:
    image = _whole(v, _blend((0.30, 0.20, 0.38), (0.07, 0.07, 0.19), _smooth(-0.7, 0.9, v.y)))
    for wide, low, high, color, k in (
        (0.4, -0.25, 0.25, (0.17, 0.15, 0.28), 0),
        (0.5, -0.65, 0.0, (0.09, 0.09, 0.17), 1),
    ):
        houses = round(CIRCUMFERENCE / wide)
        house = torch.remainder(torch.floor(v.x / wide), houses)
        tall = torch.remainder(torch.sin(house * 12.9898 + 6 * v.random(k)) * 43.758, 1.0)
        top = low + (high - low) * tall
        from_middle = (torch.remainder(v.x / wide, 1.0) - 0.5).abs_() * wide
        inside = ((0.47 * wide - from_middle) / v.soft + 0.5).clamp_(0, 1)
        image = _paint(image, color, _under(v, top) * inside)
    # Windows: rows of them times which of the columns are lit in that row, as one matrix product.
    levels = torch.arange(7, device=v.x.device, dtype=torch.float32).view(1, 1, 1, 7)
    heights = -1.28 + 0.21 * levels
    rows = (0.06 - (v.y - heights).abs_()).div_(v.soft).add_(0.5).clamp_(0, 1)  # [n, F, H, 7]
    pane = torch.floor(v.x / 0.25)
    panes = (0.065 - (torch.remainder(v.x / 0.25, 1.0) - 0.5).abs_() * 0.25).div_(v.soft).add_(0.5).clamp_(0, 1)
    pane = torch.remainder(pane, CIRCUMFERENCE / 0.25)
    levels = levels.transpose(2, 3)
    chance = torch.remainder(torch.sin(pane * 12.9898 + levels * 78.233 + 9 * v.random(2)) * 43.758, 1.0)
    flicker = 0.85 + 0.15 * torch.sin(TAU * (v.turns(0.25) + 5 * chance))
    lit = panes * (chance > 0.5) * (heights.transpose(2, 3) < top - 0.1) * flicker
    return _paint(image, (0.96, 0.80, 0.46), rows @ lit)


def _wall(v: View) -> Tensor:
    stripes = torch.tanh(2.5 * torch.sin(v.x * (WAVE * 16) + TAU * v.random(0))) * 0.035
    light = 1.0 + stripes - 0.07 * _sideways(v, TAU * v.random(1)) ** 2 * 0.3 + 0.06 * v.y
    image = v.wall_n3[:, :, None, None, None] * light[:, None]
    board = _under(v, torch.full_like(v.x, -0.74))
    image = _paint(image, v.wall_n3[:, :, None, None, None] * 0.80, board)
    rail = (0.035 - (v.y + 0.74).abs_()).div_(v.soft).add_(0.5).clamp_(0, 1).expand_as(board)
    return _paint(image, v.wall_n3[:, :, None, None, None] * 0.4 + 0.58, rail)


_SCENES = {
    "night": _night,
    "sunset": _sunset,
    "ocean": _ocean,
    "meadow": _meadow,
    "snow": _snow,
    "desert": _desert,
    "city": _city,
    "wall": _wall,
}
