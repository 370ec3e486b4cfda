"""The detector reads what the renderer drew: every attribute, soft and noisy clips, odd sizes, and nothing at all."""

import random

import numpy as np
import pytest
from scipy import ndimage

from videoar.evaluate.detect import detect
from videoar.playworld import CAMERAS, COLORS, SUBJECTS, Thing, World, render, sample_world


def clip(world, **options):
    return render([world], **options)[0].numpy()


def is_right(seen, world):
    def told(o):
        return o.color, o.subject, o.motion

    return (
        seen.scene == world.scene
        and seen.camera == world.camera
        and sorted(map(told, seen.things)) == sorted(map(told, world.things))
    )


def held_out_worlds(count, seed):
    rng = random.Random(seed)
    return [sample_world(rng, held_out=True) for _ in range(count)]


def test_held_out_renders_are_read_right():
    worlds = held_out_worlds(12, 11)
    right = [is_right(detect(clip(w), things=len(w.things)), w) for w in worlds]
    assert sum(right) >= 11


def test_soft_and_noisy_clips_are_read_nearly_as_well():
    """Blur and noise to about 28 dB, as a codec leaves it."""
    noise, worlds = np.random.default_rng(0), held_out_worlds(8, 12)
    right = 0
    for world in worlds:
        soft = ndimage.gaussian_filter(clip(world).astype(float), (0, 1.5, 1.5, 0))
        soft = np.clip(soft + noise.normal(0, 4, soft.shape), 0, 255).astype(np.uint8)
        right += is_right(detect(soft, things=len(world.things)), world)
    assert right >= 7


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_standing_and_spinning(subject):
    color = sorted(COLORS)[SUBJECTS.index(subject) % 9]
    for motion in ("stays still", "spins"):
        world = World("city", "none", (Thing(subject, color, "medium", motion, 0.1, -0.1, 0.3),), seed=3)
        assert is_right(detect(clip(world), things=1), world), (subject, motion)


@pytest.mark.parametrize("camera", CAMERAS)
def test_every_camera(camera):
    world = World("desert", camera, (Thing("boat", "purple", "small", "drifts left", phase=0.3),), seed=8)
    assert is_right(detect(clip(world)), world)


def test_the_number_of_things_is_found_out_when_it_is_not_given():
    still = {"motion": "stays still", "size": "small"}
    things = (Thing("heart", "red", x=-0.6, **still), Thing("cube", "cyan", x=0.6, **still))
    assert [o.color for o in detect(clip(World("night", "none", things))).things] == ["red", "cyan"]
    assert [o.color for o in detect(clip(World("night", "none", things[:1]))).things] == ["red"]


def test_a_wall_is_read_with_its_colour_and_a_place_with_its_side():
    world = World("wall", "none", (Thing("star", "red", "small", "stays still", x=0.5, y=0.3),), wall_color="green")
    seen = detect(clip(world))
    assert (seen.scene, seen.wall_color) == ("wall", "green")
    assert seen.things[0].x == pytest.approx(0.5, abs=0.03)
    assert seen.things[0].y == pytest.approx(0.3, abs=0.03)
    assert seen.things[0].size == "small"


@pytest.mark.parametrize(("size", "frames", "fps"), [(96, 29, 8), (200, 17, 8), (128, 44, 12)])
def test_other_sizes_lengths_and_rates(size, frames, fps):
    world = World("meadow", "pan left", (Thing("rocket", "orange", "medium", "bounces", phase=0.2),), seed=4)
    assert is_right(detect(clip(world, size=size, frames=frames, fps=fps), fps=fps), world)


def test_a_later_part_of_a_film_is_read_from_its_time():
    world = World("snow", "none", (Thing("ghost", "purple", "small", "orbits"),), seed=4)
    assert is_right(detect(clip(world, t0=40.0), t0=40.0), world)


def test_of_a_wide_clip_the_middle_is_read():
    world = World("ocean", "none", (Thing("ball", "yellow", "medium", "pulses"),))
    wide = np.pad(clip(world), ((0, 0), (0, 0), (40, 40), (0, 0)), mode="edge")
    assert is_right(detect(wide), world)


def test_nothing_is_seen_where_nothing_is():
    empty = clip(World("night", "none", (Thing("ball", "red", x=50.0),)))
    seen = detect(empty, things=1)
    assert (seen.things, seen.scene, seen.camera) == ((), "night", "none")
    for video in (np.zeros((1, 128, 128, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3))):
        detect(video.astype(np.uint8), things=2)


@pytest.mark.parametrize("video", [np.zeros((4, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), "u1")])
def test_what_is_no_video_is_refused(video):
    with pytest.raises(ValueError, match="uint8"):
        detect(video)
