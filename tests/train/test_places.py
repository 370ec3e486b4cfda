"""Where things are is told to the training as the renderer draws them, and is learnt."""

import dataclasses
import math
import random

import pytest
import torch

from train import places
from train.data import Pool, Stream, sample_worlds, world_to_json
from train.feed import excerpts
from train.flow import FlowMatching, Noise
from train.presets import SMOKE, FlowPreset, PlacesPreset
from videoar.plan import Grid, PlanSpec, picture_range
from videoar.playworld import Thing, World, attributes, parse_caption, render, sample_world
from videoar.transformer import VideoARTransformer3DModel

BALL = Thing("ball", "red", "small", "orbits", phase=0.3)
PLANS = ("full", "frame", "key_detail:2", "cube:2x2x2", "scale:3")


def positions(plan):
    return torch.cat([plan.positions(unit) for unit in plan.units])


def targets(worlds, grid, plan="full", fps=8, ahead=False):
    built = PlanSpec.parse(plan).build(grid)
    return places.targets(places.paths(worlds, grid.T, fps), positions(built), grid, ahead)


@pytest.mark.parametrize("camera", ["none", "pan left", "zoom in"])
def test_a_path_is_where_the_renderer_draws_the_thing(camera):
    world = World("wall", camera, (BALL,), "white")
    video = render([world], frames=29, fps=8)[0].float() / 255
    # A ball has a stripe that is not red.
    red = (video[..., 0] - video[..., 2] > 0.4).float()
    x, y, radius, _ = places.paths([world], 8, 8)[0, :, 0].T
    axis = (torch.arange(128) + 0.5) / 64 - 1
    for latent in range(8):
        picture = red[slice(*picture_range(latent, latent + 1))].mean(0)
        mass = picture.sum()
        assert (picture.sum(0) @ axis / mass).item() == pytest.approx(x[latent].item(), abs=0.05)
        assert -(picture.sum(1) @ axis / mass).item() == pytest.approx(y[latent].item(), abs=0.05)
        assert mass.item() == pytest.approx(math.pi * (64 * radius[latent].item()) ** 2, rel=0.25)


def test_a_thing_turns_as_the_renderer_turns_it():
    """The tip of a rocket that spins is where its own coordinates say that up is."""
    world = World("wall", "none", (Thing("rocket", "red", "big", "spins"),), "white")
    video = render([world], frames=29, fps=8)[0].float() / 255
    x, y, radius, angle = places.paths([world], 8, 8)[0, :, 0].T
    axis = (torch.arange(128) + 0.5) / 64 - 1
    flame = (video[..., 0] - video[..., 2] > 0.4) & (video[..., 1] > 0.5)  # orange and yellow, at its lower end
    for latent in range(1, 8):
        first, end = picture_range(latent, latent + 1)
        hot = flame[(first + end) // 2 - 1 : (first + end) // 2 + 1].float().mean(0)
        dx = (hot.sum(0) @ axis / hot.sum()).item() - x[latent].item()
        dy = -(hot.sum(1) @ axis / hot.sum()).item() - y[latent].item()
        v = math.cos(angle[latent]) * dy - math.sin(angle[latent]) * dx
        assert v / radius[latent].item() < -0.6


def test_a_token_knows_its_place_in_a_thing_that_spins():
    """A quarter of a turn later what was right of the middle is above it."""
    grid = Grid(1, 9, 9)
    turned = torch.tensor([[[[0.0, 0.0, 0.5, math.pi / 2], [0.0, 0.0, 0.0, 0.0]]]])
    told = places.targets(turned, positions(PlanSpec.parse("full").build(grid)), grid)
    near, u, v = told[0, :, :3].T.reshape(3, 9, 9)
    assert near[4, 4] == near.max()
    assert near[0, 0] == 0
    # What is right of the middle is below it in the thing's own coordinates.
    assert [u[4, 6].item(), v[4, 6].item()] == pytest.approx([0, -4 * near[4, 6].item() / 2.5 * 8 / 9], abs=1e-4)
    assert [u[2, 4].item(), v[2, 4].item()] == pytest.approx([4 * near[2, 4].item() / 2.5 * 8 / 9, 0], abs=1e-4)


def test_a_world_with_one_thing_tells_nothing_of_a_second():
    one = targets([World("night", "none", (BALL,))], Grid(2, 8, 8))
    assert one[..., :3].any()
    assert not one[..., 3:].any()
    two = targets([World("night", "none", (BALL, dataclasses.replace(BALL, color="blue", x=-0.5)))], Grid(2, 8, 8))
    assert two[..., 3:].abs().sum() > 0


def test_a_token_knows_where_the_thing_will_be():
    """Where the thing is in a latent frame and its step give where it is in the next one; the last one knows the step
    that led to it.
    """
    grid, worlds = Grid(4, 16, 16), [World("night", "none", (BALL, dataclasses.replace(BALL, color="blue", phase=0.8)))]
    told, path = targets(worlds, grid, ahead=True).view(4, 16, 16, 10), places.paths(worlds, 4, 8)[0]
    assert torch.equal(told[..., :6].flatten(0, 2)[None], targets(worlds, grid))
    for thing in (0, 1):
        near, step = told[..., 3 * thing] / 2.5, told[..., 6 + 2 * thing : 8 + 2 * thing] / 5
        where, radius = path[:, thing, :2], path[:, thing, 2]
        for frame in range(4):
            next_one = min(frame + 1, 3)
            moved = (where[next_one] - where[next_one - 1]) / radius[frame]
            assert moved.abs().max() > 0.1
            torch.testing.assert_close(step[frame], near[frame, ..., None] * moved)
    assert not told[..., 6:][told[..., ::3][..., :2].amax(-1) == 0].any()  # far from things


def test_a_thing_that_comes_back_at_the_other_edge_has_not_moved_there():
    ball = dataclasses.replace(BALL, motion="drifts right")
    path = places.paths([World("night", "none", (ball,))], 40, 8)
    way, step = path[0, :, 0, 0].diff(), places.steps(path)[0, :, 0, 0]
    assert way.min() < -2
    assert torch.equal(step[:-1], torch.where(way > 0, way, 0))
    assert step[-1] == step[-2]


def test_a_single_latent_frame_is_not_asked_for_the_next_one():
    worlds = [World("night", "none", (BALL,))]
    assert torch.equal(targets(worlds, Grid(1, 8, 8), ahead=True), targets(worlds, Grid(1, 8, 8)))


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_is_told_the_same_places(plan):
    rng = random.Random(3)
    worlds, grid = [sample_world(rng) for _ in range(6)], Grid(4, 8, 8)
    whole = targets(worlds, grid, ahead=True).view(6, 4, 8, 8, -1)
    built = PlanSpec.parse(plan).build(grid)
    told = targets(worlds, grid, plan, ahead=True)
    for unit, part in zip(built.units, told.split([u.size() for u in built.units], 1), strict=True):
        if built.scales[unit.level] == 1:
            place = built.positions(unit).long().T
            assert torch.equal(part, whole[:, place[0], place[1], place[2]])
        else:  # a coarse token tells of its middle, where no fine one is
            t, rows, columns = unit.shape()
            coarse = targets(worlds, Grid(t, rows, columns), ahead=True)
            torch.testing.assert_close(part, coarse)


def test_weights_have_a_mean_of_one_and_count_more_where_a_thing_is():
    told = targets([World("night", "none", (BALL,))], Grid(2, 8, 8))
    weight = places.weights(told, 4.0)
    assert weight.mean(1).flatten().tolist() == pytest.approx([1])
    assert (weight.max() / weight.min()).item() == pytest.approx(5)
    assert torch.equal(weight.argmax(1), told[..., :1].argmax(1))
    assert torch.equal(places.weights(told, 0.0), torch.ones_like(weight))


def test_how_far_a_thing_gets_does_not_weigh():
    worlds = [World("night", "none", (BALL, dataclasses.replace(BALL, motion="rises", x=-0.5, speed=3.0)))]
    plain, ahead = (places.weights(targets(worlds, Grid(2, 8, 8), ahead=asked), 4.0) for asked in (False, True))
    assert targets(worlds, Grid(2, 8, 8), ahead=True)[..., 9].max() > 2.5
    assert torch.equal(plain, ahead)


def test_an_excerpt_takes_its_paths_with_it():
    rng = random.Random(1)
    worlds = [sample_world(rng) for _ in range(3)]
    known = places.paths(worlds, 8, 8)
    part = excerpts(known, 1, 2, [0, 3, 6])
    assert torch.equal(part[1], known[1, 3:5])
    assert torch.equal(part[2], known[2, 6:8])


def small_network(**changes):
    torch.manual_seed(0)
    return VideoARTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=64, prediction_type="sample",
        spatial_embedding=True, **changes,
    )  # fmt: skip


def loss_of(preset, plan="cube:2x2x2", told=True, network=None, frames=2):
    rng = random.Random(2)
    worlds = [sample_world(rng) for _ in range(2)]
    built = PlanSpec.parse(plan).build(Grid(frames, 4, 4))
    latents = torch.randn(2, 4, frames, 8, 8, generator=torch.Generator().manual_seed(0))
    text = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    paths = places.paths(worlds, frames, 8) if told else None
    network = network or small_network()
    return FlowMatching(network, preset, {2: 0.8, 4: 0.7})(latents, text, built, 3.0, Noise(0), paths_BF24=paths)


def test_the_error_of_the_log_is_the_loss_without_places():
    plain, _ = loss_of(FlowPreset(), told=False)
    for amount in (0.0, 4.0):
        _, columns = loss_of(FlowPreset(places=PlacesPreset(amount, 0.5, (0, 1))))
        assert columns["error"].item() == pytest.approx(plain.item(), rel=1e-5)
    weighed, _ = loss_of(FlowPreset(places=PlacesPreset(4.0, 0.0, (0,))))
    assert weighed.item() != pytest.approx(plain.item(), rel=1e-3)


def test_steps_ahead_are_told_by_channels_of_their_own():
    """In clips they are a part of the loss, in single latent frames not."""
    plain, ahead = (FlowPreset(places=PlacesPreset(ahead=asked, blocks=(0, 1))) for asked in (False, True))
    assert loss_of(ahead)[1]["places"] != loss_of(plain)[1]["places"]
    assert loss_of(ahead)[1]["error"] == loss_of(plain)[1]["error"]
    assert torch.equal(loss_of(ahead, "full", frames=1)[0], loss_of(plain, "full", frames=1)[0])
    features = torch.randn(2, 3, 24)
    assert torch.equal(places.told(features, 10)[..., :6], places.told(features))


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("plan", PLANS[:4])
def test_a_middle_block_learns_to_tell_places(plan, ahead):
    network, preset = small_network(), FlowPreset(places=PlacesPreset(0.0, 1.0, (0,), ahead))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    told = []
    for _ in range(40):
        loss, columns = loss_of(preset, plan, network=network)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told.append(columns["places"].item())
    assert told[-1] < 0.5 * told[0]


@pytest.mark.parametrize("blocks", [(0, 7), ()])
def test_blocks_that_are_not_there_are_refused(blocks):
    with pytest.raises(ValueError, match="the network has 2"):
        FlowMatching(small_network(), FlowPreset(places=PlacesPreset(blocks=blocks)), {})


def agrees(batch):
    return [parse_caption(prompt) for prompt in batch.prompts] == [attributes(world) for world in batch.worlds]


def test_batches_know_what_was_drawn(tmp_path):
    pool = Pool(tmp_path)
    worlds = sample_worlds(6, "worlds")
    pool.write(0, torch.zeros(6, 4, 2, 4, 4), worlds=[world_to_json(world) for world in worlds])
    pool.refresh()
    whole, parts = pool.batch(3, 8), [pool.batch(3, 4, part, 2) for part in (0, 1)]
    assert agrees(whole)
    assert whole.worlds == parts[0].worlds + parts[1].worlds
    stream = Stream(SMOKE, None, "cpu")
    whole, parts = (
        stream.batch(3, 8, latents=False),
        [stream.batch(3, 4, part, 2, latents=False) for part in (0, 1)],
    )
    assert agrees(whole)
    assert whole.worlds == parts[0].worlds + parts[1].worlds


def test_of_videos_no_worlds_are_known(tmp_path):
    pool = Pool(tmp_path)
    pool.write(0, torch.zeros(1, 4, 2, 4, 4), captions=["a red ball"], text=[torch.zeros(1, 3)])
    pool.refresh()
    assert pool.batch(0, 2).worlds is None
