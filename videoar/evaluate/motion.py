"""Names the motion of a track: the verb whose path in the renderer comes closest to it.

Shapes: T frames, P paths of the renderer, A angles.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ..playworld import MOTIONS, SIZES, Thing, World
from ..playworld.motion import Camera, camera_path, thing_path
from ..playworld.world import TRAVELLING
from .templates import ANGLES
from .track import Track

DIRECTIONS = {"left": "left", "right": "right", "rises": "up", "falls": "down"}

_PHASES = 20
_SPEEDS = (0.82, 0.90, 0.97, 1.03, 1.10, 1.18)  # the renderer's are 0.9 to 1.1
_PLACE = 0.05  # halves of the picture: a place that is off by this is a unit of cost
_RADIUS = 0.06  # the same for the logarithm of the radius
_MISFIT = 0.012  # and for how badly an angle fits
_LARGEST = 9.0  # units that one frame may cost
_STEP = 0.12  # halves of the picture: how far a travelling thing may be from where its phase says (between two phases)


class Paths(NamedTuple):
    """Paths of things with all motions, phases and speeds.

    x, y, log_radius, angle_bin [P, T]; motion [P]: index into MOTIONS; along_x, along_y [P]: bool, travels that way (a
    thing's resting place may be anywhere, a travelling thing is where its phase says).
    """

    x: np.ndarray
    y: np.ndarray
    log_radius: np.ndarray
    angle_bin: np.ndarray
    motion: np.ndarray
    along_x: np.ndarray
    along_y: np.ndarray


def direction(motion: str) -> str:
    """left, right, up, down, or none for a motion that leads nowhere."""
    return DIRECTIONS.get(motion.split()[-1], "none")


def read_motion(track: Track, camera: str, size: str, seconds: np.ndarray) -> str | None:
    """The verb of a track, one of MOTIONS; None when there is next to nothing to see.

    Every path of the renderer under this camera is laid over the track, at its best resting place; differences in
    place, radius and angle add up, each up to a limit, so that a few bad frames do not decide.
    """
    if track.sure.sum() < 2:
        return None
    paths = _paths(camera, size, tuple(seconds.tolist()))
    zoom = camera_of(camera, seconds).thing_zoom.numpy()
    weight = track.sure
    place = _offset(track.x - paths.x, weight, zoom, paths.along_x) / _PLACE
    height = _offset(track.y - paths.y, weight, zoom, paths.along_y) / _PLACE
    cost = np.minimum(place**2 + height**2, _LARGEST) @ weight
    if track.whole.any():
        whole = track.whole.astype(float)
        log_radius = np.log(np.where(track.whole, track.radius, 1.0))
        swell = _offset(log_radius - paths.log_radius, whole, np.ones_like(zoom), np.zeros(len(paths.x), bool))
        cost += np.minimum((swell / _RADIUS) ** 2, _LARGEST) @ whole
        excess = (track.misfit - track.misfit.min(1, keepdims=True)) / _MISFIT
        cost += np.minimum(excess, _LARGEST)[np.arange(len(seconds)), paths.angle_bin] @ whole
    return MOTIONS[paths.motion[int(cost.argmin())]]


def _offset(error_PT: np.ndarray, weight_T: np.ndarray, zoom_T: np.ndarray, along_P: np.ndarray) -> np.ndarray:
    """Errors after the best resting place is taken out; it swells with the zoom unless the thing travels that way."""
    basis = np.where(along_P[:, None], 1.0, zoom_T)
    rest = (error_PT * basis) @ weight_T / np.maximum((basis * basis) @ weight_T, 1e-6)
    rest = np.where(along_P, np.clip(rest, -_STEP, _STEP), rest)
    return error_PT - rest[:, None] * basis


def camera_of(camera: str, seconds: np.ndarray) -> Camera:
    """The renderer's camera at these times."""
    return camera_path(World("night", camera, (Thing("ball", "red"),)), torch.as_tensor(seconds, dtype=torch.float64))


@lru_cache(maxsize=32)
def _paths(camera: str, size: str, seconds: tuple[float, ...]) -> Paths:
    view = camera_of(camera, np.array(seconds))
    times = torch.tensor(seconds, dtype=torch.float64)
    things = []
    for motion in MOTIONS:
        spread = motion == "orbits" or motion.startswith("zigzags")  # how far they reach depends on where they are
        for place in (0.0, 0.5) if spread else (0.0,):
            for speed in _SPEEDS if motion != "stays still" else (1.0,):
                for phase in range(_PHASES if motion != "stays still" else 1):
                    things.append(Thing("ball", "red", size, motion, place, place, phase / _PHASES, speed))
    paths = [thing_path(o, view, times) for o in things]
    x, y, radius, angle = (np.stack([p[i].numpy() for p in paths]).astype(np.float64) for i in range(4))
    motions = [o.motion for o in things]
    return Paths(
        x,
        y,
        np.log(radius),
        np.round(angle * (ANGLES / (2 * math.pi))).astype(int) % ANGLES,
        np.array([MOTIONS.index(m) for m in motions]),
        np.array([m in TRAVELLING and direction(m) in ("left", "right") for m in motions]),
        np.array([m in TRAVELLING and direction(m) in ("up", "down") for m in motions]),
    )


def read_size(track: Track, zoom: np.ndarray) -> str:
    """The size whose radius is nearest to the measured one."""
    known = track.whole if track.whole.any() else track.sure > 0
    radius = float(np.median((track.radius / zoom)[known])) if known.any() else 0.4
    return min(SIZES, key=lambda s: abs(math.log(SIZES[s] / max(radius, 1e-3))))
