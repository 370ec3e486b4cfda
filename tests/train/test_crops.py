"""Crops are cut where they say, know their place in the frame, and have things in them."""

import dataclasses
import types

import pytest
import torch

from train import places
from train.crops import Window
from train.data import Pool, Stream, sample_worlds, world_to_json
from train.feed import PoolFeed, clips_of, excerpt_shift
from train.flow import FlowMatching, FlowTraining, Noise
from train.layout import place_of
from train.presets import SMOKE, FlowPreset, PlacesPreset, Share
from train.render import CAPTIONS, Shard
from train.resident import ResidentClips, ResidentFeed
from videoar.plan import Grid, PlanSpec
from videoar.transformer import VideoARTransformer3DModel, patchify

CPU, CLIPS = torch.device("cpu"), 96
FPS = 2  # so few that things get far in a latent frame
GRID, PATCH = Grid(4, 8, 8), (1, 2, 2)
SHARES = (Share("full", 0.3, frames=1, crop=4), Share("full", 0.3, frames=3, crop=3), Share("full", 0.4, crop=4))
PRESET = FlowPreset(steps=12, batch=2, plans=SHARES, places=PlacesPreset(blocks=(0,)))


class Words:
    """Stands in for a text encoder, whose embeddings are of no interest here."""

    max_length, encoder = 3, types.SimpleNamespace(config=types.SimpleNamespace(d_model=16))

    def __call__(self, prompts):
        return torch.zeros(len(prompts), 3, 16)

    def embed(self, ids, mask):
        return ids[..., None].expand(-1, -1, 16).float()


def numbered(clips=CLIPS):
    """Latents [n, 4, F, h, w] whose channels are the numbers of clip, latent frame, row and column."""
    sizes = (clips, GRID.T, 2 * GRID.H, 2 * GRID.W)
    return torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in sizes), indexing="ij"), dim=1)


@pytest.fixture(scope="module")
def worlds():
    return sample_worlds(CLIPS, "crops")


@pytest.fixture(scope="module")
def paths(worlds):
    return places.paths(worlds, GRID.T, FPS)


@pytest.fixture(scope="module")
def pool(worlds, tmp_path_factory):
    pool = Pool(tmp_path_factory.mktemp("pool"))
    for index, first in enumerate((0, 60)):
        part = slice(first, (60, CLIPS)[index])
        pool.write(index, numbered().half()[part], worlds=[world_to_json(world) for world in worlds[part]])
    pool.refresh()
    return pool


@pytest.fixture(scope="module")
def resident(paths):
    clips = ResidentClips(CLIPS, (4, GRID.T, 2 * GRID.H, 2 * GRID.W), Words(), CPU)
    clips.add(Shard(numbered().half(), paths, torch.ones(CLIPS, CAPTIONS, 3, dtype=torch.long)))
    return clips


@pytest.fixture(params=["resident", "pool"])
def draws(request, pool, resident):
    """Makes what some steps of a preset draw."""

    def made(preset=PRESET, seed=1, steps=12):
        if request.param == "resident":
            feed = ResidentFeed(resident, GRID, preset, seed)
            return [feed.draw(step, step / preset.steps) for step in range(steps)]
        feed = PoolFeed(pool, Words(), GRID, preset, FPS, seed, CPU)
        return [feed.draw(step) for step in range(steps)]

    return made


def small_network():
    torch.manual_seed(0)
    return VideoARTransformer3DModel(
        patch_size=PATCH, num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=64, prediction_type="sample",
        spatial_embedding=True,
    )  # fmt: skip


def in_frame(corner, part, frame):
    """The flat numbers of a crop's tokens in its frame's grid."""
    numbers = torch.arange(frame.T * frame.H * frame.W).view(frame)
    return numbers[: part.T, corner[0] :, corner[1] :][:, : part.H, : part.W].flatten()


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (2, 3)])
def test_tokens_positions_and_targets_of_a_crop_are_those_of_the_frame(corner, ahead, worlds):
    frame, part = Grid(2, 4, 6), Grid(2, 2, 2)
    whole, crop = (PlanSpec("full").build(grid) for grid in (frame, part))
    mine, known = in_frame(corner, part, frame), places.paths(worlds[:5], 2, FPS)
    latents = torch.randn(5, 4, 2, 8, 12)
    cut = Window(corner, part, frame).cut(latents)
    assert torch.equal(patchify(cut, PATCH), patchify(latents, PATCH)[:, mine])
    inside, outside = place_of(crop, corner), place_of(whole)
    assert torch.equal(inside, outside[mine])
    told = places.targets(known, outside, frame, ahead)
    assert torch.equal(places.targets(known, inside, frame, ahead), told[:, mine])


@pytest.mark.parametrize("name", ["full", "frame", "cube:2x2x2", "scale:2"])
def test_the_loss_of_a_crop_is_that_of_its_tokens(name, worlds, monkeypatch):
    """The network is told the crop's place in the frame, and places are asked of it there."""
    corner, part, frame = (2, 1), Grid(2, 4, 4), Grid(2, 8, 8)
    known, latents, text = places.paths(worlds[:3], 2, FPS), torch.randn(3, 4, 2, 16, 16), torch.randn(3, 5, 16)
    plan, network, told, asked = PlanSpec.parse(name).build(part), small_network(), [], []
    forward, targets = network.forward, places.targets

    def spy(tokens, timestep, text, positions, **kwargs):
        told.append(positions)
        return forward(tokens, timestep, text, positions, **kwargs)

    monkeypatch.setattr(network, "forward", spy)
    monkeypatch.setattr(places, "targets", lambda *args: asked.append(targets(*args)) or asked[-1])
    method = FlowMatching(network, FlowPreset(places=PlacesPreset(blocks=(0, 1))), {2: 0.8})
    cut = Window(corner, part, frame).cut(latents)
    loss, _ = method(cut, text, plan, 2.0, Noise(1), paths_BF24=known, corner=corner, frame=frame)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    n = len(plan.unit_ids())
    positions = torch.cat([plan.positions(unit) for unit in plan.units]) + torch.tensor([0.0, *corner])
    assert torch.equal(told[0][-n:], positions)
    if name == "full":
        whole = PlanSpec("full").build(frame)
        everywhere = targets(known, place_of(whole), frame)
        assert torch.equal(asked[0], everywhere[:, in_frame(corner, part, frame)])


def test_a_draw_trains_with_its_place(draws, monkeypatch):
    method, told = FlowTraining(small_network(), PRESET, {}), []
    forward = method.parts["model"].transformer.forward
    monkeypatch.setattr(
        method.parts["model"].transformer,
        "forward",
        lambda tokens, timestep, text, positions, **more: (
            told.append(positions) or forward(tokens, timestep, text, positions, **more)
        ),
    )
    corners = set()
    for draw in draws():
        (_, loss, columns), *_ = method.losses(draw)
        assert loss.isfinite()
        assert "places" in columns
        corner = tuple(told[-1][:, 1:].amin(0).int().tolist())
        assert corner == draw.corner
        corners.add(corner)
    assert len(corners) > 4


def test_a_crop_is_cut_of_the_clips_at_its_corner(draws, paths):
    grids, fully = set(), 0
    for draw in draws():
        part = draw.plan.grid
        (top, left), z = draw.corner, draw.latents_BCFHW
        grids.add(part)
        assert z.shape[2:] == (part.T, 2 * part.H, 2 * part.W)
        assert draw.frame == GRID
        assert 0 <= top <= 8 - part.H
        assert 0 <= left <= 8 - part.W
        assert torch.equal(z[:, 2], torch.arange(2.0 * top, 2 * (top + part.H))[:, None].expand_as(z[:, 2]))
        assert torch.equal(z[:, 3], torch.arange(2.0 * left, 2 * (left + part.W)).expand_as(z[:, 3]))
        clips, starts = z[:, 0, 0, 0, 0].long(), z[:, 1, 0, 0, 0].long()
        assert torch.equal(z[:, 0], clips[:, None, None, None].expand_as(z[:, 0]))
        frames = starts[:, None] + torch.arange(part.T)
        assert torch.equal(z[:, 1, :, 0, 0], frames)
        assert torch.equal(draw.paths_BF24, paths[clips[:, None], frames])
        fully += len(clips.unique())
    assert grids == {Grid(1, 4, 4), Grid(3, 3, 3), Grid(4, 4, 4)}
    assert fully > 12 * 4


def test_most_crops_have_their_thing_in_the_middle_of_their_time(draws, paths):
    inside, chance = [], []
    for draw in draws(dataclasses.replace(PRESET, steps=48), steps=48):
        part = draw.plan.grid
        window = Window(draw.corner, part, GRID)
        inside.append(window.holds(draw.paths_BF24[:, part.T // 2]).float().mean())
        chance.append(window.holds(paths.flatten(0, 1)).float().mean())
    assert sum(inside) / 48 > 0.88
    assert sum(chance) / 48 < 0.4


def test_a_window_holds_what_is_in_it():
    """Coordinates are halves of the picture, and up is positive."""
    window = Window((0, 4), Grid(1, 4, 4), GRID)  # the upper right quarter
    xy = torch.tensor([[0.5, 0.5], [-0.5, 0.5], [0.5, -0.5], [0.0, 1.0], [1.0, 0.5], [0.9, 0.1]])
    known = torch.zeros(6, 2, 4)
    known[:, 0, :2], known[:, 1, :2] = xy, 0.5  # the second thing does not count
    assert window.holds(known).tolist() == [True, False, False, True, False, True]
    assert window.choose(known, 4).tolist() == [0, 3, 5, 1]


def same(one, other):
    names = ("latents_BCFHW", "paths_BF24", "text_BLE")
    return one.corner == other.corner and all(torch.equal(getattr(one, n), getattr(other, n)) for n in names)


def test_crops_depend_on_seed_and_step_alone(draws):
    first, again, other = draws(), draws(), draws(seed=2)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not any(same(a, b) for a, b in zip(first, other, strict=True))
    assert len({draw.corner for draw in first}) > 4


def test_processes_share_the_crops_of_a_step(pool):
    feed = PoolFeed(pool, Words(), GRID, PRESET, FPS, 1, CPU)
    for step in range(8):
        halves = [feed.draw(step, part, 2) for part in (0, 1)]
        assert halves[0].corner == halves[1].corner
        assert not same(*halves)
        double = PoolFeed(pool, Words(), GRID, FlowPreset(steps=12, batch=4, plans=SHARES), FPS, 1, CPU).draw(step)
        both = torch.cat([half.latents_BCFHW for half in halves])
        assert torch.equal(both, double.latents_BCFHW)


def test_clips_of_unknown_worlds_are_cropped_anywhere(tmp_path):
    pool = Pool(tmp_path)
    pool.write(0, numbered(2), captions=["a red ball"] * 2, text=[torch.zeros(1, 16), torch.zeros(1, 16)])
    pool.refresh()
    draws = [PoolFeed(pool, Words(), GRID, PRESET, FPS, 0, CPU).draw(step) for step in range(8)]
    assert len({draw.corner for draw in draws}) > 2
    for draw in draws:
        assert draw.paths_BF24 is None
        assert draw.latents_BCFHW[:, 2].amin() == 2 * draw.corner[0]


def test_a_stream_renders_what_was_chosen():
    stream = Stream(SMOKE, None, "cpu")
    chosen = [5, 3, 5, 11]
    batch = stream.batch(0, 2, 1, 2, latents=False, clips=chosen)
    assert batch.worlds == stream.worlds_of(chosen)[2:] == [stream.world(5), stream.world(11)]


def test_a_step_stays_as_large_and_is_shifted_less(draws):
    whole = FlowPreset(steps=12, batch=2, plans=SHARES, shift=5.0)
    seen = {draw.plan.grid: (draw.latents_BCFHW.shape[0], len(draw.text_BLE), draw.shift) for draw in draws(whole)}
    assert seen[Grid(1, 4, 4)] == (2 * 4 * 4, 32, 5 * (1 / 16) ** 0.5)
    assert seen[Grid(4, 4, 4)] == (2 * 4, 8, 2.5)
    assert seen[Grid(3, 3, 3)] == (2 * 1 * 7, 14, excerpt_shift(5.0, 27 / 256))
    assert clips_of(3, Grid(1, 1, 1), Grid(3, 2, 2)) == 36
    tiny = Share("full", 1.0, frames=1, crop=1)
    assert [draw.shift for draw in draws(FlowPreset(steps=1, batch=1, plans=(tiny,)), steps=1)] == [1.0]


def test_crops_are_not_served_and_must_fit():
    shares = (Share("full", 0.5, crop=4), Share("frame", 0.5), Share("cube:2x2x2", 0.1, frames=2))
    assert FlowPreset(plans=shares).served() == ["frame"]
    assert Share("full", 1.0, crop=8).grid(GRID) == GRID
    for side in (0, 9):
        with pytest.raises(ValueError, match=r"does not fit frames of 8 x 8: choose a Share.crop from 1 to 8"):
            Share("full", 1.0, crop=side).grid(GRID)


def test_a_crop_of_the_whole_frame_is_the_frame():
    noise = Noise(0)
    window = Window.drawn(Grid(1, 8, 8), GRID, noise)
    latents = numbered(2)
    assert window.is_whole
    assert torch.equal(window.cut(latents), latents)
    assert noise.below(1000) == Noise(0).below(1000)  # and nothing was drawn for it
