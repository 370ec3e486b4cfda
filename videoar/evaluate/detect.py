"""Reads a clip of Playworld back to what it shows, analytically: no learned judge.

scene -> which pixels are which colour -> the camera -> the things: colour, then subject, track and motion of each.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from .backgrounds import Ground
from .camera import read_camera
from .motion import camera_of, direction, read_motion, read_size
from .palette import BACKGROUND, COLOR_NAMES, code, lab_table, label_table
from .scene import read_scene
from .segment import Blobs, behind, cover, find_blobs, half_mask
from .track import Track, follow

SIDE = 128  # pixels; clips of other sizes are brought to this
_LEAST = 100  # pixels of a body, to be one
_SECOND = 0.12  # of the first thing's pixels, to be a second one when the number of things is not known


@dataclass(frozen=True)
class SeenThing:
    """One thing as it was read.

    motion: the verb, None where too little of the thing is seen; direction: left, right, up, down or none; x, y: where
    it usually is, in halves of the picture, right and up positive.
    """

    subject: str
    color: str
    size: str
    motion: str | None
    direction: str | None
    x: float
    y: float


@dataclass(frozen=True)
class Seen:
    """What a clip shows; the things from left to right."""

    things: tuple[SeenThing, ...]
    scene: str
    camera: str
    wall_color: str | None


@dataclass(frozen=True)
class Reading:
    """What a clip shows, and what that was read from.

    video: uint8 [T, SIDE, SIDE, 3]; look [T, SIDE/2, SIDE/2, 3]: its Lab / 100; seconds [T]; blobs, tracks: of each of
    seen.things, in their order.
    """

    seen: Seen
    ground: Ground
    video: np.ndarray
    look: np.ndarray
    seconds: np.ndarray
    blobs: tuple[Blobs, ...]
    tracks: tuple[Track, ...]


def detect(video_THWC: np.ndarray, things: int | None = None, fps: float = 8, t0: float = 0.0) -> Seen:
    """What a clip shows; arguments and errors are those of `read`."""
    return read(video_THWC, things, fps, t0).seen


def read(video_THWC: np.ndarray, things: int | None = None, fps: float = 8, t0: float = 0.0) -> Reading:
    """Read a clip.

    video: uint8 [T, H, W, 3] of any size (the middle square is read); things: how many there should be, at most two,
    None to find out; t0: seconds at which the clip begins. Raises ValueError for what is not a video.
    """
    video = np.asarray(video_THWC)
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or not video.size:
        raise ValueError(f"a clip is uint8 [T, H, W, 3], not {video.dtype} {list(video.shape)}")
    video = _standard(video)
    seconds = t0 + np.arange(len(video)) / fps
    half = _half(video)
    look = lab_table()[code(half)] / 100
    ground = read_scene(half)
    labels = label_table(ground)[code(video)]
    found = _bodies(labels, things)
    covers = [cover(blobs.mask) for _, blobs in found]
    camera = read_camera(look[..., 0], _empty(labels, covers), seconds, ground.scene)
    zoom = camera_of(camera, seconds).thing_zoom.numpy()
    seen = []
    for i, (color, blobs) in enumerate(found):
        hidden = sum(covers[:i] + covers[i + 1 :], np.zeros(blobs.mask.shape, dtype=bool))
        blobs = behind(blobs, hidden)
        track = follow(blobs, look, hidden & (blobs.mask < 0.5), color, ground, zoom)
        size = read_size(track, zoom)
        motion = read_motion(track, camera, size, seconds)
        x, y = (float(np.average(v, weights=track.sure + 1e-9)) for v in (track.x, track.y))
        thing = SeenThing(track.subject, color, size, motion, motion and direction(motion), x, y)
        seen.append((thing, blobs, track))
    seen.sort(key=lambda s: s[0].x)
    told, patches, tracks = zip(*seen, strict=True) if seen else ((), (), ())
    shown = Seen(told, ground.scene, camera, ground.wall_color)
    return Reading(shown, ground, video, look, seconds, patches, tracks)


def glance(video_THWC: np.ndarray, things: int) -> tuple[str, tuple[str, ...]]:
    """The scene of a clip and the colours of so many things, largest first: the quick part of `detect`."""
    video = _standard(np.asarray(video_THWC))
    ground = read_scene(_half(video))
    found = _bodies(label_table(ground)[code(video)], things)
    return ground.scene, tuple(color for color, _ in found)


def _bodies(labels: np.ndarray, things: int | None) -> list[tuple[str, Blobs]]:
    """The colours of the things and their patches, largest first. A colour counts by its largest patch."""
    area = np.bincount(labels.ravel(), minlength=len(COLOR_NAMES) + 1)[: len(COLOR_NAMES)] / len(labels)
    found = []
    for label in np.argsort(-area)[:4]:
        if area[label] < _LEAST / 10:
            break
        blobs = find_blobs(half_mask(labels, label))
        size = np.sort(blobs.area)[-max(1, len(labels) // 3) :].mean() * 4
        if size >= _LEAST and blobs.seen.any():
            found.append((size, COLOR_NAMES[label], blobs))
    found.sort(key=lambda f: -f[0])
    if things is None:
        things = 1 + (len(found) > 1 and found[1][0] > _SECOND * found[0][0])
    return [(color, blobs) for _, color, blobs in found[: min(things, 2)]]


def _empty(labels: np.ndarray, covers: list[np.ndarray]) -> np.ndarray:
    """bool [T, H/2, W/2]: background, with a margin around everything else."""
    empty = labels == BACKGROUND
    empty = empty[:, ::2, ::2] & empty[:, 1::2, 1::2] & ~sum(covers, np.zeros((1, 1, 1), dtype=bool))
    return ndimage.minimum_filter(empty.view(np.uint8), (1, 5, 5), mode="nearest").view(bool)


def _half(video: np.ndarray) -> np.ndarray:
    total = np.full_like(video[:, ::2, ::2], 2, dtype=np.uint16)
    for a in (0, 1):
        for b in (0, 1):
            total += video[:, a::2, b::2]
    return (total >> 2).astype(np.uint8)


def _standard(video: np.ndarray) -> np.ndarray:
    """The middle square of every frame, SIDE pixels wide."""
    height, width = video.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    video = video[:, top : top + side, left : left + side]
    if side == SIDE:
        return video
    return np.stack([np.asarray(Image.fromarray(f).resize((SIDE, SIDE), Image.Resampling.BOX)) for f in video])
