"""Where things and the camera are at a time: every motion is periodic, so a film can go on for ever.

Lengths are halves of the picture (right and up positive), times seconds, angles radians, phases turns.
Times stay float64 until they are reduced to a position, so that hours into a film nothing trembles.
"""

import math
from typing import NamedTuple

import torch

from .world import SIZES, Thing, World

SPEED = 0.40  # of a travelling thing, per second
PERIOD = 2.4  # of the periodic motions
PAN_SPEED = 0.25  # of the background, per second
CIRCUMFERENCE = 8.0  # the background repeats after this way, so a pan can go on
ZOOM_LOG = 0.38
MIDDLE = 1.8  # the camera is half-way in the middle of a 3.6-second clip
EDGE = 1.15  # a wrapping thing turns round when this many radii are past the picture's edge
HEADING_LEFT = ("drifts left", "zigzags left")


class Path(NamedTuple):
    """float32 [F] each: the centre on the screen, the radius there and the turn of one thing."""

    x: torch.Tensor
    y: torch.Tensor
    radius: torch.Tensor
    angle: torch.Tensor


class Camera(NamedTuple):
    """float64 [F] each: way of the background, its zoom, shift and zoom of the things (which follow a little).

    thing_zoom_limit: the largest thing_zoom there ever is.
    """

    pan: torch.Tensor
    zoom: torch.Tensor
    thing_shift: torch.Tensor
    thing_zoom: torch.Tensor
    thing_zoom_limit: float


def times(frames: int, fps: float, t0: float = 0.0) -> torch.Tensor:
    """float64 [F] seconds."""
    return t0 + torch.arange(frames, dtype=torch.float64) / fps


def camera_path(world: World, t_F: torch.Tensor) -> Camera:
    """The camera of a world. Pans never end; zooms and the shift of things level off, so both stay bounded."""
    zero = torch.zeros_like(t_F)
    settle = torch.tanh((t_F - MIDDLE) / 1.5)
    pan_sign = {"pan left": -1.0, "pan right": 1.0}.get(world.camera, 0.0)
    zoom_sign = {"zoom in": 1.0, "zoom out": -1.0}.get(world.camera, 0.0)
    pan = torch.remainder(pan_sign * PAN_SPEED * t_F, CIRCUMFERENCE) if pan_sign else zero
    log_zoom = zoom_sign * ZOOM_LOG * settle
    limit = math.exp(0.4 * ZOOM_LOG * abs(zoom_sign))
    return Camera(pan, torch.exp(log_zoom), -pan_sign * 0.15 * settle, torch.exp(0.4 * log_zoom), limit)


def thing_path(thing: Thing, camera: Camera, t_F: torch.Tensor) -> Path:
    """The path of one thing as the camera sees it."""
    radius = SIZES[thing.size]
    turns = torch.remainder(t_F * thing.speed / PERIOD + thing.phase, 1.0)
    wave = torch.sin(2 * math.pi * turns)
    x = torch.full_like(t_F, thing.x)
    y = torch.full_like(t_F, thing.y)
    size = torch.full_like(t_F, radius)
    angle = torch.zeros_like(t_F)
    motion = thing.motion
    if motion == "bounces":
        hop = torch.remainder(2 * turns, 1.0)
        y = -(0.95 - radius) + 0.80 * 4 * hop * (1 - hop)
    elif motion == "orbits":
        orbit = 0.38 - 0.30 * abs(thing.x)
        x = x + orbit * torch.cos(2 * math.pi * turns)
        y = y + orbit * wave
    elif motion == "spins":
        angle = 2 * math.pi * turns
    elif motion == "pulses":
        size = size * (1 + 0.25 * wave)
    elif motion == "sways":
        x = x + 0.22 * wave
        angle = -0.32 * wave
    elif motion.startswith("zigzags"):
        saw = torch.remainder(t_F * thing.speed / (0.75 * PERIOD) + 2 * thing.phase, 1.0)
        y = 0.8 * y + (0.30 - 0.2 * abs(thing.y)) * (4 * (saw - 0.5).abs() - 1)

    zoom = camera.thing_zoom
    x, y, size = x * zoom + camera.thing_shift, y * zoom, size * zoom
    # Travel wraps on the screen, just beyond its edges, whatever the camera does.
    turn_back = 1 + EDGE * radius * camera.thing_zoom_limit
    way = thing.phase * 2 * turn_back + SPEED * thing.speed * t_F
    if motion.endswith("right"):
        x = _wrap(way + camera.thing_shift, turn_back)
    elif motion.endswith("left"):
        x = _wrap(camera.thing_shift - way, turn_back)
    elif motion == "rises":
        y = _wrap(way, turn_back)
    elif motion == "falls":
        y = _wrap(-way, turn_back)
    return Path(*(v.to(torch.float32) for v in (x, y, size, angle)))


def _wrap(way: torch.Tensor, turn_back: float) -> torch.Tensor:
    """A way of 0 is one edge of the range -turn_back..turn_back; it goes round from the other edge to it."""
    return torch.remainder(way, 2 * turn_back) - turn_back
