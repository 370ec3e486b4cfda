"""How good a clip looks and moves, whatever it shows: VBench's temporal and imaging dimensions, read analytically.

VBench (Huang et al., 2024) compares features of learned networks; here the features are what the detector cut out. Each
dimension is a number 0..1 per clip, higher is better, near 1 for renders. As in VBench a clip that never changes is
perfectly consistent, smooth and free of flicker: dynamic degree is the counterweight, so none of them says much alone.

Shapes: T frames, N cells a side, S pixels a side of a cut-out.
"""

from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage

from ..playworld import Attributes, Thing
from ..playworld.motion import CIRCUMFERENCE, thing_path
from ..playworld.shapes import EXTENT
from .detect import Reading
from .motion import camera_of
from .palette import code, known_table
from .score import match
from .segment import Blobs, cover
from .templates import ANGLES, REACH
from .track import Track

QUALITY = (
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "dynamic_degree",
    "imaging_quality",
)

_CUTOUT = 20  # pixels a side of a thing in standard position
_CELLS = 32  # a side of the picture, for backgrounds
_TURNING = ("spins", "sways")
_CORNERED = ("bounces", "zigzags left", "zigzags right")  # their height has corners that are meant to be there
_ENOUGH = 0.5  # of the movement that a prompt asks for
_LAG = 0.5  # seconds over which it is measured, so that trembling does not pass for it
_AGREED = 0.5  # length of the mean of turns, as unit vectors: angles at random have less
_STEPS = 6  # between neighbouring pixels, in which a sharp edge is over
_EDGES = 0.05  # of the picture: its strongest edges
_SHARP = 0.55  # of an edge's contrast in one step: nine of ten renders have more
_EVERY = 7  # frames: pictures of a clip are equally sharp


def qualities(reading: Reading, wanted: Attributes) -> dict[str, float | None]:
    """QUALITY of a clip, 0..1 each; None where there is nothing to measure.

    wanted: what the prompt asks for. It decides about dynamic degree, what a static prompt is and how many things are
    missing; all else is the clip's own.
    """
    away = _away(reading)
    found = (
        subject_consistency(reading, len(wanted.things)),
        background_consistency(reading, away),
        temporal_flickering(reading, away) if wanted.camera == "none" else None,
        motion_smoothness(reading, len(wanted.things)),
        dynamic_degree(reading, wanted),
        imaging_quality(reading),
    )
    return {name: None if v is None else round(v, 4) for name, v in zip(QUALITY, found, strict=True)}


def subject_consistency(reading: Reading, things: int) -> float | None:
    """The mean of 1/2 (similarity to the previous frame + to the first one), VBench's formula, over things and frames.

    Compared are silhouette and colours of cut-outs in standard position: place, size, and angle if the thing turns.
    Frames in which the picture's edge or another thing cuts it off do not count; those from which it vanishes are 0,
    and so is each of `things` that is not there at all. None where no thing is seen twice.
    """
    scores: list[float | None] = []
    for thing, blobs, track in zip(reading.seen.things, reading.blobs, reading.tracks, strict=True):
        cuts = _cut_out(reading.look, blobs, track, thing.motion in _TURNING)
        likeness = (_similarity(cuts[1:], cuts[:-1]) + _similarity(cuts[1:], cuts[:1])) / 2
        scores.append(_with_lost(likeness, blobs))
    return _mean_of_things(scores, things)


def background_consistency(reading: Reading, away: np.ndarray) -> float | None:
    """The same for the background: colours of cells, each frame laid on the other one along the camera's motion.

    away: bool [T, H, W] at half size, where no thing is. None for a single frame or no background.
    """
    weight = away.reshape(len(away), _CELLS, -1, _CELLS, away.shape[2] // _CELLS).mean((2, 4), dtype=np.float32)
    look = (reading.look - (0.5, 0, 0)) * away[..., None]  # from mid-grey: neither dark nor light is nothing
    look = look.reshape(len(look), _CELLS, -1, _CELLS, away.shape[2] // _CELLS, 3).mean((2, 4), dtype=np.float32)
    camera = camera_of(reading.seen.camera, reading.seconds)
    pan, zoom = camera.pan.numpy(), camera.zoom.numpy()
    later = np.arange(1, len(look))
    likeness = []
    for earlier in (later - 1, np.zeros_like(later)):
        scale = (zoom[earlier] / zoom[later])[:, None]
        way = np.remainder(pan[later] - pan[earlier] + CIRCUMFERENCE / 2, CIRCUMFERENCE) - CIRCUMFERENCE / 2
        columns = _between_cells(scale, way * zoom[earlier])
        rows = _between_cells(scale, 0 * way)
        there = rows @ weight[earlier] @ columns.transpose(0, 2, 1)
        both = (there > 0.5) & (weight[later] > 0.5)
        planes = look[earlier].transpose(3, 0, 1, 2)
        before = rows @ planes @ columns.transpose(0, 2, 1) / np.maximum(there, 1e-6)
        now = look[later].transpose(3, 0, 1, 2) / np.maximum(weight[later], 1e-6)
        pairs = [(v * both).transpose(1, 0, 2, 3).reshape(len(later), 3 * _CELLS**2) for v in (now, before)]
        likeness.append(_similarity(*pairs)[both.any((1, 2))])
    return float(np.mean([v.mean() for v in likeness])) if all(map(len, likeness)) else None


def temporal_flickering(reading: Reading, away: np.ndarray) -> float | None:
    """VBench's formula (255 - mean absolute difference of neighbouring frames) / 255, of prompts with a still camera.

    Only where no thing is (`away` as above): hardly a prompt asks for things that stay still, too. Noise has 0.67.
    """
    video = reading.video
    change = np.maximum(video[1:], video[:-1]) - np.minimum(video[1:], video[:-1])
    still = (away[1:] & away[:-1]).repeat(2, 1).repeat(2, 2)
    return 1 - float(change.sum(-1, dtype=np.uint16)[still].mean()) / (3 * 255) if still.any() else None


def motion_smoothness(reading: Reading, things: int) -> float | None:
    """1 - the mean distance, in radii of the thing and 1 at most, of each place from that between its neighbours.

    VBench lets a network draw every second frame from its neighbours; here a cubic through the two places before and
    the two after says where the thing should be. Heights do not count in motions with corners. Cut, vanished and
    missing things as for subject consistency. None where no thing is whole in five frames in a row.
    """
    scores: list[float | None] = []
    for thing, blobs, track in zip(reading.seen.things, reading.blobs, reading.tracks, strict=True):
        across, up = (_off_the_cubic(v) for v in (track.x, track.y))
        off = np.abs(across) if thing.motion in _CORNERED else np.hypot(across, up)
        whole = track.whole
        known = whole[:-4] & whole[1:-3] & whole[2:-2] & whole[3:-1] & whole[4:]
        smooth = 1 - np.minimum(off[known] / track.radius[2:-2][known], 1)
        scores.append(_with_lost(smooth, blobs))
    return _mean_of_things(scores, things)


def dynamic_degree(reading: Reading, wanted: Attributes) -> float | None:
    """1 if everything that the prompt sets in motion moves at least half as much as the renderer would move it, else 0.

    Things by the way they go in half a second (spins: the angle, pulses: the growth); the camera if it moves at all.
    None where nothing is to move. VBench's threshold on optical flow is the same for all prompts.
    """
    moves = [reading.seen.camera != "none"] if wanted.camera not in (None, "none") else []
    for seen, thing in match(reading.seen.things, wanted.things):
        if thing.motion not in (None, "stays still"):
            there = [t for o, t in zip(reading.seen.things, reading.tracks, strict=True) if o is seen]
            moves.append(bool(there) and _moves(there[0], thing.motion, reading.seconds))
    return float(all(moves)) if moves else None


def imaging_quality(reading: Reading) -> float:
    """Edge sharpness times palette purity, in place of VBench's learned MUSIQ.

    Sharpness: the largest step between neighbouring pixels over the contrast of the edge that it belongs to, of the
    strongest edges; relative to renders, 1 at most. Purity: the share of pixels whose colour is one of the scene's or
    of the things'. Noise is sharp and not pure, a blurred render the reverse.
    """
    pictures = reading.video[::_EVERY]
    purity = float(known_table(reading.ground)[code(pictures)].mean())
    return min(1.0, _sharpness(pictures) / _SHARP) * purity


def _sharpness(pictures_THWC: np.ndarray) -> float:
    """About 0.6 for renders, whose edges are 1.3 pixels wide; 0 for pictures without edges."""
    steps = contrast = 0.0
    for axis in (1, 2):
        picture = np.moveaxis(pictures_THWC, axis, 0)
        step = np.maximum(picture[1:], picture[:-1]) - np.minimum(picture[1:], picture[:-1])
        step, high, low = _highest(step, _STEPS), _highest(picture, _STEPS + 1), ~_highest(~picture, _STEPS + 1)
        edge = (high - low).ravel()
        strong = edge >= np.quantile(edge, 1 - _EDGES, method="higher")
        steps, contrast = steps + step.ravel()[strong].sum(), contrast + edge[strong].sum()
    return float(steps) / max(float(contrast), 1.0)


def _highest(values: np.ndarray, count: int) -> np.ndarray:
    """The largest of every `count` neighbours along the first axis."""
    width = 1
    while width < count:
        more = min(width, count - width)
        values, width = np.maximum(values[more:], values[:-more]), width + more
    return values


def _similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """2 ab / (aa + bb) of vectors, not below 0: a cosine that also falls when one of the two fades."""
    return np.clip(2 * (a * b).sum(-1) / np.maximum((a * a).sum(-1) + (b * b).sum(-1), 1e-9), 0, 1)


def _cut_out(look: np.ndarray, blobs: Blobs, track: Track, turning: bool) -> np.ndarray:
    """[whole frames, 4 S S]: silhouette and, inside it, Lab / 100 of a thing in standard position."""
    frames = np.flatnonzero(blobs.whole)
    angle = track.misfit[frames].argmin(1) * (2 * np.pi / ANGLES) if turning else np.zeros(len(frames))
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    steps = (np.arange(_CUTOUT) + 0.5) * (2 / _CUTOUT) - 1
    right, up = steps[None, None, :], -steps[None, :, None]
    size = blobs.mask.shape[-1]
    reach = (REACH * np.sqrt(np.maximum(blobs.area[frames], 1.0)))[:, None, None]  # pixels
    columns = ((blobs.x[frames] + 1) * size / 2 - 0.5)[:, None, None] + reach * (cos * right - sin * up)
    rows = ((1 - blobs.y[frames]) * size / 2 - 0.5)[:, None, None] - reach * (sin * right + cos * up)
    at = (np.broadcast_to(frames[:, None, None], rows.shape), rows, columns)
    mask = ndimage.map_coordinates(blobs.mask, at, np.float32, order=1)
    colors = [mask * ndimage.map_coordinates(look[..., i], at, np.float32, order=1, mode="nearest") for i in range(3)]
    return np.stack([mask, *colors], 1).reshape(len(frames), 4 * _CUTOUT**2)


def _with_lost(values: np.ndarray, blobs: Blobs) -> float | None:
    """The mean, with a 0 for every frame in which a thing is gone that was whole right before or is right after.

    What leaves the picture or goes behind something is cut first.
    """
    runs, count = ndimage.label(~blobs.seen)
    beside = np.concatenate([runs[1:][blobs.whole[:-1]], runs[:-1][blobs.whole[1:]]])
    lost = int(np.isin(runs, beside[beside > 0]).sum()) if count else 0
    return float(values.sum() / (len(values) + lost)) if len(values) + lost else None


def _mean_of_things(scores: list[float | None], things: int) -> float | None:
    known = [score for score in scores if score is not None] + [0.0] * (things - len(scores))
    return sum(known) / len(known) if known else None


def _away(reading: Reading) -> np.ndarray:
    """bool [T, H, W] at half size: pixels away from the things, from their strings and arms as well."""
    side = reading.look.shape[1]
    away = np.ones(reading.look.shape[:3], dtype=bool)
    middle = (np.arange(side) + 0.5) * (2 / side) - 1
    for blobs, track in zip(reading.blobs, reading.tracks, strict=True):
        reach = np.where(track.sure > 0, 1.1 * EXTENT * track.radius, 0)[:, None, None]
        across, up = middle[None, None] - track.x[:, None, None], middle[None, :, None] + track.y[:, None, None]
        away &= (across**2 + up**2 > reach**2) & ~cover(blobs.mask)
    return away


def _between_cells(scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """[T, N, N]: matrices that read a row of cells at `scale` times each cell's place plus `shift`, linearly.

    scale [T, 1]; shift [T], in halves of the picture. Places outside read nothing.
    """
    middle = (np.arange(_CELLS) + 0.5) * (2 / _CELLS) - 1
    at = (scale * middle + shift[:, None] + 1) * (_CELLS / 2) - 0.5
    return np.maximum(0, 1 - np.abs(at[:, :, None] - np.arange(_CELLS))).astype(np.float32)


def _off_the_cubic(v: np.ndarray) -> np.ndarray:
    """[T - 4]: how far each value is from the cubic through the two before and the two after it."""
    return (v[:-4] - 4 * v[1:-3] + 6 * v[2:-2] - 4 * v[3:-1] + v[4:]) / 6


def _moves(track: Track, motion: str, seconds: np.ndarray) -> bool:
    interval = float(seconds[1] - seconds[0]) if len(seconds) > 1 else _LAG
    angle = track.misfit.argmin(1) * (2 * np.pi / ANGLES)
    moved = _movement(motion, track.x, track.y, track.radius, angle, track.sure > 0, track.whole, interval)
    return moved >= _ENOUGH * _asked(motion, interval)


@lru_cache(maxsize=64)
def _asked(motion: str, interval: float) -> float:
    """How much the renderer's slowest thing with this motion moves under a still camera."""
    seconds = np.arange(round(10 / interval)) * interval
    thing = Thing("ball", "red", motion=motion, x=0.5, y=0.5)
    x, y, radius, angle = (v.numpy() for v in thing_path(thing, camera_of("none", seconds), torch.as_tensor(seconds)))
    seen = (np.abs(x) < 1) & (np.abs(y) < 1)
    return _movement(motion, x, y, radius, angle, seen, seen, interval)


def _movement(motion, x, y, radius, angle, seen, whole, interval: float) -> float:
    """What counts of a motion in _LAG seconds, typically: the turn (radians), the growth (of the radius's logarithm) or
    the way (halves of the picture)."""
    lag = max(1, round(_LAG / interval))
    if motion == "spins":
        both = whole[1:] & whole[:-1]
        step = np.exp(1j * np.diff(angle))[both].mean() if both.any() else 0.0
        return abs(float(np.angle(step))) * lag if abs(step) > _AGREED else 0.0
    if motion == "pulses":
        both = whole[lag:] & whole[:-lag]
        moved = np.abs(np.log(radius[lag:][both] / radius[:-lag][both]))
    else:
        both = seen[lag:] & seen[:-lag]
        moved = np.hypot(x[lag:] - x[:-lag], y[lag:] - y[:-lag])[both]
    return float(np.median(moved)) if len(moved) else 0.0
