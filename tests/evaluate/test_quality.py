"""PlayBench's dimensions: renders reach the ceiling, controls do not, and each falls under the damage it is for."""

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from videoar.evaluate.detect import read
from videoar.evaluate.playbench import CONTROLS, held_out_cases, judge, tells
from videoar.evaluate.quality import QUALITY, qualities
from videoar.evaluate.score import DIMENSIONS, SEMANTIC
from videoar.playworld import CAMERAS, MOTIONS, Thing, World, attributes, render

BALL = Thing("ball", "red", "small", "drifts right", phase=0.25)
STILL = replace(BALL, motion="stays still")


def clip(world, **options):
    return render([world], **options)[0].numpy()


def measured(video, world):
    return qualities(read(video, len(world.things)), attributes(world))


@pytest.fixture(scope="module")
def rows():
    """Means over renders of held-out prompts and over their controls."""
    cases = held_out_cases(24)
    found = {"real": [], "shuffled": [], "frozen": [], "noise": []}
    for case in cases:
        video = clip(case.world)
        reading = read(video, len(case.wanted.things))
        found["real"].append(judge(reading, case.wanted))
        other = reading if len(case.other.things) == len(case.wanted.things) else read(video, len(case.other.things))
        found["shuffled"].append(judge(other, case.other))
        if case.index < 8:
            noise = np.random.default_rng(case.index).integers(0, 256, video.shape, np.uint8)
            for row, control in (("frozen", np.repeat(video[:1], len(video), 0)), ("noise", noise)):
                found[row].append(judge(read(control, len(case.wanted.things)), case.wanted))
    return {
        row: {
            name: float(np.mean(known))
            for name in scores[0]
            if (known := [one[name] for one in scores if one[name] is not None])
        }
        for row, scores in found.items()
    }


@pytest.mark.parametrize("name", [*QUALITY, *DIMENSIONS])
def test_every_dimension_tells_renders_from_its_control(rows, name):
    assert tells(rows["real"][name], rows[CONTROLS[name]][name]), (rows["real"][name], rows[CONTROLS[name]][name])


def test_what_is_summed_has_been_tested():
    assert {*QUALITY, *SEMANTIC} <= set(CONTROLS)
    assert set(SEMANTIC) < set(DIMENSIONS)
    assert not tells(0.96, 0.1)
    assert not tells(1.0, 0.81)


def test_a_frozen_oneis_flawless_but_for_its_movement(rows):
    for name in QUALITY:
        assert rows["frozen"][name] == 0 if name == "dynamic_degree" else rows["frozen"][name] > 0.97


def test_blur_and_wrong_colours_lower_imaging_quality():
    world = World("city", "none", (BALL,))
    video = clip(world).astype(float)
    soft = [ndimage.gaussian_filter(video, (0, s, s, 0)) for s in (0, 0.8, 1.6, 3)]
    values = [measured(v.astype(np.uint8), world)["imaging_quality"] for v in soft]
    assert all(a > b + 0.08 for a, b in pairwise(values)), values
    noise = np.random.default_rng(0).normal(0, 40, video.shape)
    noisy = measured(np.clip(video + noise, 0, 255).astype(np.uint8), world)["imaging_quality"]
    assert noisy < values[0] - 0.08


def test_trembling_lowers_smoothness():
    world = World("meadow", "none", (BALL,))
    shifts = np.random.default_rng(0).integers(-1, 2, (29, 2))
    values = []
    for much in (0, 1, 3, 6):
        video = np.stack([np.roll(f, much * s, (0, 1)) for f, s in zip(clip(world), shifts, strict=True)])
        values.append(measured(video, world)["motion_smoothness"])
    assert values[0] > 0.98
    assert all(a > b + 0.03 for a, b in pairwise(values)), values


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_of_the_renderer_is_smooth_and_moves_enough(motion):
    for size in ("small", "medium"):
        world = World("desert", "none", (Thing("cube", "blue", size, motion, 0.1, -0.1, 0.3, speed=0.9),), seed=2)
        found = measured(clip(world), world)
        assert found["motion_smoothness"] is None or found["motion_smoothness"] > 0.97
        assert found["dynamic_degree"] == (None if motion == "stays still" else 1)
        slow = measured(clip(world, fps=40), world)  # five times as slow
        assert slow["dynamic_degree"] == (None if motion == "stays still" else 0)


def test_angles_at_random_do_not_pass_for_a_spin():
    world = World("night", "none", (replace(STILL, subject="cube", motion="spins"),))
    video = clip(world)
    assert measured(video, world)["dynamic_degree"] == 1
    random.Random(0).shuffle(order := list(range(len(video))))
    assert measured(video[order], world)["dynamic_degree"] == 0


def test_a_camera_that_is_asked_for_has_to_move():
    still, panned = World("city", "none", (STILL,)), World("city", "pan left", (STILL,))
    assert measured(clip(panned), panned)["dynamic_degree"] == 1
    assert measured(clip(still), panned)["dynamic_degree"] == 0


def test_flicker_lowers_flickering_of_static_prompts():
    world = World("wall", "none", (BALL,), "blue")
    video = clip(world).astype(int)
    values = []
    for much in (0, 8, 40):
        video[::2] = np.clip(video[::2] - much, 0, 255)
        values.append(measured(video.astype(np.uint8), world)["temporal_flickering"])
    assert values[0] == pytest.approx(1, abs=0.01)
    assert values[1] == pytest.approx(1 - 8 / 255, abs=0.01)  # VBench's formula
    assert values[2] < values[1] - 0.1
    moved = World("wall", "zoom in", (BALL,), "blue")
    assert measured(clip(moved), moved)["temporal_flickering"] is None


def test_another_subject_and_a_subject_that_vanishes_lower_subject_consistency():
    world = World("snow", "none", (STILL,), seed=1)
    video = clip(world)
    star, gone, green = (
        clip(replace(world, things=(thing,)))
        for thing in (replace(STILL, subject="star"), replace(STILL, x=9), replace(STILL, color="green"))
    )
    before = measured(video, world)["subject_consistency"]
    assert before > 0.98
    assert measured(np.concatenate([video[:15], star[15:]]), world)["subject_consistency"] < before - 0.03
    blink = video.copy()
    blink[5::6] = gone[5::6]
    assert measured(blink, world)["subject_consistency"] < 0.9
    for other in (gone, green):
        half = measured(np.concatenate([video[:15], other[15:]]), world)
        assert half["subject_consistency"] < 0.6
        assert half["motion_smoothness"] < 0.6


def test_what_leaves_the_picture_has_not_vanished_and_what_is_missing_has():
    world = World("night", "none", (replace(BALL, phase=0.8),))
    video = clip(world)
    reading = read(video, 1)
    assert not reading.blobs[0].seen.all()  # it passes the edge
    assert measured(video, world)["subject_consistency"] > 0.97
    asked = attributes(replace(world, things=(*world.things, replace(STILL, color="cyan", x=0.5))))
    assert qualities(read(video, 2), asked)["subject_consistency"] < 0.5


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_background_is_compared_along_the_cameras_motion(camera):
    """Of a scene full of edges, one that moves by itself and a plain one."""
    for scene in ("city", "ocean", "wall"):
        world = World(scene, camera, (STILL,), "purple", seed=6)
        assert measured(clip(world), world)["background_consistency"] > (0.94 if scene == "ocean" else 0.98)


def test_another_scene_a_fade_and_a_jump_lower_background_consistency():
    world = World("city", "none", (BALL,), seed=6)
    video = clip(world)
    before = measured(video, world)["background_consistency"]
    other = clip(replace(world, scene="desert"))
    fade = np.linspace(1, 0.3, len(video))[:, None, None, None]
    for damaged in (
        np.concatenate([video[:15], other[15:]]),
        (fade * video + (1 - fade) * 120).astype(np.uint8),
        np.concatenate([video[:15], np.roll(video[15:], 40, 2)]),
    ):
        assert measured(damaged, world)["background_consistency"] < before - 0.02


def test_nothing_to_measure_is_no_error():
    world = World("night", "none", (STILL,))
    for video in (clip(world)[:1], np.zeros((3, 40, 40, 3), np.uint8), clip(world, size=48)[:4]):
        found = measured(video, world)
        assert set(found) == set(QUALITY)
        assert all(value is None or 0 <= value <= 1 for value in found.values())
