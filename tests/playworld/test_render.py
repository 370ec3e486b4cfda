"""Renders show what their worlds say, byte for byte the same every time."""

import dataclasses
import functools
import itertools
import random

import pytest
import torch

from videoar.playworld import (
    CAMERAS,
    COLORS,
    MOTIONS,
    SCENES,
    SIZES,
    SUBJECTS,
    Thing,
    World,
    render,
    sample_world,
)
from videoar.playworld.motion import camera_path, thing_path, times
from videoar.playworld.shapes import EXTENT, layers

SMALL = {"size": 48, "frames": 9, "fps": 4}


def world(subject="ball", color="red", size="medium", motion="stays still", scene="night", camera="none", **place):
    return World(scene, camera, (Thing(subject, color, size, motion, **place),), "white", 7)


def worlds(count, seed=0):
    rng = random.Random(seed)
    return [sample_world(rng, two=0.5) for _ in range(count)]


def mask_of(color, video_BTHWC, tolerance=0.16):
    """Pixels that have a palette colour up to its shading: [B, T, H, W]."""
    rgb = torch.tensor(COLORS[color])
    return ((video_BTHWC / 255 - rgb).abs() <= tolerance * rgb.clamp(min=0.5)).all(-1)


def centroid(mask_HW):
    y, x = torch.nonzero(mask_HW, as_tuple=True)
    return x.float().mean().item(), y.float().mean().item()


@pytest.mark.parametrize(("size", "frames", "fps"), [(128, 29, 8), (64, 33, 12), (50, 3, 7.5), (16, 1, 24)])
def test_any_size_is_drawn(size, frames, fps):
    video = render(worlds(2), frames, size, fps)
    assert video.shape == (2, frames, size, size, 3)
    assert video.dtype == torch.uint8
    assert video.float().std() > 5


def test_nothing_to_draw_and_nonsense():
    assert render([]).shape == (0, 29, 128, 128, 3)
    for wrong in ({"frames": 0}, {"size": 0}, {"fps": 0}, {"t0": float("nan")}):
        with pytest.raises(ValueError, match="cannot render"):
            render(worlds(1), **wrong)


def test_the_same_worlds_give_the_same_bytes_in_any_company():
    some = worlds(10)
    video = render(some, **SMALL)
    assert torch.equal(video, render(some, **SMALL))
    assert torch.equal(video, render(some[::-1], **SMALL).flip(0))
    assert torch.equal(video[3:4], render(some[3:4], **SMALL))
    together = render(some, batch=5, **SMALL)
    assert (together.int() - video.int()).abs().max() <= 1


def test_a_film_goes_on_from_where_it_was():
    some = worlds(8, seed=1)
    film = render(some, frames=20, size=48, fps=8)
    assert torch.equal(film[:, 12:], render(some, frames=8, size=48, fps=8, t0=1.5))


def test_it_goes_on_for_hours():
    for one in worlds(6, seed=2):
        late = render([one], t0=7200.0, **SMALL)[0].float()
        assert late.std() > 5
        assert (late[1:] - late[:-1]).abs().mean() < 40


def test_tensors_stay_on_one_device():
    """The meta device refuses to mix with tensors of the CPU, as an accelerator would."""
    assert render(worlds(16), device="meta", **SMALL).shape == (16, 9, 48, 48, 3)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("subject", SUBJECTS),
        ("color", COLORS),
        ("size", SIZES),
        ("motion", MOTIONS),
        ("scene", SCENES),
        ("camera", CAMERAS),
    ],
)
def test_every_value_looks_different(name, values):
    videos = render(
        [world(**({"size": "big", "subject": "fish"} | {name: value})) for value in values], **SMALL
    ).float()
    for a, b in itertools.combinations(range(len(values)), 2):
        assert (videos[a] - videos[b]).abs().mean() > 0.5, (list(values)[a], list(values)[b])


def silhouette(subject, x, y, turn):
    """Signed distance of the whole subject."""
    return functools.reduce(torch.minimum, [layer.distance for layer in layers(subject, x, y, turn)])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_shapes_stay_inside_their_window(subject):
    side = torch.linspace(-1.6, 1.6, 161)
    x, y = side[None, :], -side[:, None]
    for turn in torch.linspace(0, 1, 7)[:-1]:
        inside = silhouette(subject, x, y, turn) < 0
        assert not (inside & ((x.abs() > EXTENT) | (y.abs() > EXTENT))).any()
        assert 0.2 < inside.float().mean() * 3.2**2 / 3.2 < 1.3
        body = functools.reduce(torch.minimum, [p.distance for p in layers(subject, x, y, turn) if p.paint == "body"])
        assert (body < 0).sum() > 0.45 * inside.sum()


def test_silhouettes_can_be_told_apart():
    side = torch.linspace(-1.2, 1.2, 97)
    x, y = side[None, :], -side[:, None]
    inside = {s: (silhouette(s, x, y, torch.tensor(0.1)) < 0) for s in SUBJECTS}
    for a, b in itertools.combinations(SUBJECTS, 2):
        overlap = (inside[a] & inside[b]).sum() / (inside[a] | inside[b]).sum()
        assert overlap < 0.9, (a, b)


@pytest.mark.parametrize("color", COLORS)
def test_bodies_keep_their_palette_colour(color):
    still = [world("cube", color, "big", scene=scene) for scene in SCENES]
    middle = render(still, frames=1)[:, 0, 82:88, 50:78]
    rgb = torch.tensor(COLORS[color])
    assert (middle.float().flatten(1, 2).mean(1) / 255 - rgb).abs().max() < 0.06
    assert mask_of(color, middle).float().mean() > 0.95
    others = [c for c in COLORS if (torch.tensor(COLORS[c]) - rgb).norm() < (middle / 255 - rgb).norm(dim=-1).max()]
    assert others == [color]


def test_sizes_are_ordered():
    areas = [mask_of("red", render([world(size=s)], frames=1)).sum() for s in ("small", "medium", "big")]
    assert areas[0] * 1.5 < areas[1]
    assert areas[1] * 1.5 < areas[2]


@pytest.mark.parametrize(
    ("motion", "way"),
    [
        ("drifts left", (-1, 0)),
        ("drifts right", (1, 0)),
        ("rises", (0, -1)),
        ("falls", (0, 1)),
        ("zigzags left", (-1, 0)),
        ("zigzags right", (1, 0)),
    ],
)
@pytest.mark.parametrize("camera", CAMERAS)
def test_travellers_go_their_way(motion, way, camera):
    video = render([world(motion=motion, camera=camera, phase=0.3)], frames=13, size=64, fps=8)[0]
    start, end = (centroid(mask_of("red", video[i])) for i in (0, 12))
    across = [(e - s) / 32 for s, e in zip(start, end, strict=True)]
    along = across[0] * way[0] + across[1] * way[1]
    assert 0.4 < along < 0.8  # 1.5 seconds at 0.4, give or take the camera's share


@pytest.mark.parametrize("motion", ["stays still", "spins", "pulses", "sways", "bounces", "orbits"])
@pytest.mark.parametrize("size", SIZES)
def test_the_others_stay_about(motion, size):
    t = times(200, 8)
    for camera in CAMERAS:
        one = world(motion=motion, size=size, camera=camera, x=0.1, y=-0.1, phase=0.4)
        path = thing_path(one.things[0], camera_path(one, t), t)
        assert path.x.abs().max() < 0.85
        assert path.y.abs().max() < 0.85
        assert (path.y.max() - path.y.min() > 0.5) == (motion in ("bounces", "orbits"))


@pytest.mark.parametrize("size", SIZES)
def test_a_traveller_is_away_only_for_an_instant(size):
    t = times(2000, 50)
    for motion in ("drifts left", "rises"):
        one = world("ball", size=size, motion=motion)
        path = thing_path(one.things[0], camera_path(one, t), t)
        where = torch.maximum(path.x.abs(), path.y.abs())
        assert (where > 1 + SIZES[size]).float().mean() < 0.05
        assert where.max() >= 1 + 1.1 * SIZES[size]


@pytest.mark.parametrize("scene", SCENES)
def test_the_camera_moves_the_background(scene):
    out_of_sight = Thing("ball", "red", "small", "stays still", x=9.0)
    videos = render([World(scene, camera, (out_of_sight,), "blue", 3) for camera in CAMERAS], size=64).float()
    still, left, right, closer, back = ((video[14] - video[10]).abs().mean() for video in videos)
    assert min(left, right, closer, back) > max(0.5, still)
    inner = torch.arange(8, 56)
    for video, shift in ((videos[1], 4), (videos[2], -4)):  # half a second at a quarter of half the picture: 4 pixels
        with_it, against_it = ((video[14][:, inner + s] - video[10][:, inner]).abs().mean() for s in (shift, -shift))
        assert with_it < 0.7 * against_it


def test_details_follow_the_seed():
    a, b = (dataclasses.replace(world(), seed=seed) for seed in (1, 2))
    assert not torch.equal(*render([a, b], frames=1, size=48))
