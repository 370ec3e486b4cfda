"""The detector's parts on their own: colours, patches, views and the names of motions."""

import math

import numpy as np
import pytest

from videoar.evaluate.backgrounds import GROUNDS, Ground, samples
from videoar.evaluate.motion import camera_of, direction, read_motion, read_size
from videoar.evaluate.palette import BACKGROUND, COLOR_NAMES, code, lab, label_table
from videoar.evaluate.scene import read_scene
from videoar.evaluate.segment import behind, find_blobs
from videoar.evaluate.templates import ANGLES, views
from videoar.evaluate.track import Track
from videoar.playworld import CAMERAS, COLORS, MOTIONS, Thing
from videoar.playworld.motion import thing_path, times


def test_lab_of_known_colours():
    assert lab(np.array([1.0, 1.0, 1.0])) == pytest.approx([100, 0, 0], abs=0.1)
    assert lab(np.array([1.0, 0.0, 0.0])) == pytest.approx([53.2, 80.1, 67.2], abs=0.3)


def test_bodies_are_told_from_every_ground():
    for ground in GROUNDS[::3]:
        table = label_table(ground)
        for i, (name, rgb) in enumerate(COLORS.items()):
            if name == "white" and ground.scene in ("meadow", "snow"):
                continue  # clouds and flakes have the very colour of a white body's middle; its shaded parts are told
            pixel = (np.array(rgb) * 255).round().astype(np.uint8)
            assert table[code(pixel)] == (BACKGROUND if name == ground.wall_color else i), (name, ground)
        assert (table[code(samples(ground))] == BACKGROUND).mean() > 0.97


def test_drawn_grounds_are_their_own_nearest_neighbours():
    for ground in (Ground("night"), Ground("snow"), Ground("wall", "pink")):
        assert read_scene(samples(ground)[0]) == ground


def disc(x, y, r=10, size=64):
    at = np.arange(size)
    return ((at[None] - x) ** 2 + (at[:, None] - y) ** 2 < r * r).astype(np.float32)


def test_patches_are_measured_joined_and_known_to_be_cut_off():
    halves = disc(30, 30)
    halves[28:33] = 0  # a stripe across
    blobs = find_blobs(np.stack([disc(30, 30), halves, disc(2, 30), np.zeros((64, 64), np.float32)]))
    assert list(blobs.seen) == [True, True, True, False]
    assert list(blobs.whole) == [True, True, False, False]
    assert blobs.x[:2] == pytest.approx([30.5 / 32 - 1] * 2, abs=0.01)
    assert blobs.area[1] > 0.6 * blobs.area[0]
    hidden = np.zeros((4, 64, 64), dtype=bool)
    hidden[:, :, 36:] = True
    assert not behind(find_blobs(np.stack([disc(30, 30)] * 4)), hidden | (disc(30, 30) == 0)).whole.any()


def test_views_are_in_standard_position():
    for view in views("red", Ground("night")):
        assert view.mask.shape[0] == ANGLES
        at = np.arange(view.mask.shape[1]) - (view.mask.shape[1] - 1) / 2
        total = view.mask.sum((1, 2))
        assert total == pytest.approx(total.mean(), rel=0.05)
        for axis in (1, 2):  # a rocket is longer than a view, so it is not quite in the middle
            assert (view.mask.sum(axis) @ at / total) == pytest.approx(0, abs=0.7), view.subject


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_renderers_own_paths_are_named(motion):
    """Under every camera, for a resting place and a phase that no path of the detector has."""
    for camera in CAMERAS:
        seconds = times(29, 8)
        view = camera_of(camera, seconds.numpy())
        thing = Thing("cube", "red", "small", motion, 0.13, -0.17, 0.37, 1.04)
        path = thing_path(thing, view, seconds)
        x, y, radius = (v.numpy().astype(float) for v in path[:3])
        angles = np.arange(ANGLES) * (2 * math.pi / ANGLES)
        misfit = 0.05 * (1 - np.cos(angles - path.angle.numpy()[:, None]))
        visible = (abs(x) < 1) & (abs(y) < 1)
        track = Track("cube", 1, x, y, radius, visible.astype(float), visible, misfit)
        assert read_motion(track, camera, "small", seconds.numpy()) == motion
        if motion != "pulses":
            assert read_size(track, view.thing_zoom.numpy()) == "small"


def test_directions():
    assert [direction(m) for m in ("drifts left", "zigzags right", "rises", "falls", "spins", "stays still")] == [
        "left", "right", "up", "down", "none", "none",
    ]  # fmt: skip
    assert COLOR_NAMES[BACKGROUND - 1] in COLORS
