"""Convolutions beside the transformer: nothing until trained, never beyond a unit, kept with the weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.videoar.tiny import PATCH, make_model, make_transformer
from videoar.checkpoint import load_model, save_model
from videoar.convolution import add_convolutions, convolve, find_shapes
from videoar.generate import Request, generate
from videoar.plan import Grid, PlanSpec
from videoar.transformer import VideoARTransformer3DModel, patchify, unpatchify

GRID = Grid(5, 5, 4)
PLANS = ("frame", "frame:3", "key_detail:4", "cube:2x3x2", "cube:2x2x1@3,1,0,2", "scale:2", "full")
WIDTH = 8


def make_convolving(**config) -> VideoARTransformer3DModel:
    """As if trained: new convolutions change nothing."""
    network = make_transformer(conv_width=WIDTH, **config)
    for layer in (network.conv_stem.proj, network.conv_head.conv_out):
        nn.init.normal_(layer.weight, std=0.3)
    return network


def sequence(plan):
    """Positions, units and mask of all tokens, and random tokens, texts and timesteps for two clips."""
    positions, ids = torch.cat([plan.positions(unit) for unit in plan.units]), plan.unit_ids()
    x, text = torch.randn(2, len(ids), 64), torch.randn(2, 8, 32)
    return positions, ids, plan.mask(), x, text, torch.rand(2, len(plan.units)) * 1000


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("text", PLANS)
def test_units_are_found_from_coordinates(text, backward):
    plan = PlanSpec.parse(text).build(GRID, start=3)
    plan = plan.reverse() if backward else plan
    positions, ids, *_ = sequence(plan)
    assert find_shapes(positions, ids) == tuple(unit.shape() for unit in plan.units)
    assert find_shapes(positions.repeat(2, 1), torch.cat([ids, ids + len(plan.units)]))[len(plan.units) :] == tuple(
        unit.shape() for unit in plan.units
    )
    for unit in plan.units:
        assert find_shapes(plan.positions(unit)) == (unit.shape(),)


def test_several_units_told_as_one_are_refused():
    plan = PlanSpec.parse("cube:2x2x2").build(GRID)
    positions, ids, mask, x, text, _ = sequence(plan)
    network, timestep = make_convolving(), torch.full((2, 1), 500.0)
    with pytest.raises(AssertionError, match="unit_shapes"):
        network(x, timestep, text, positions, mask=mask)
    shapes = [unit.shape() for unit in plan.units]
    told = network(x, timestep, text, positions, mask=mask, unit_shapes=shapes)
    per_unit = network(x, timestep.expand(-1, len(shapes)), text, positions, ids, mask)
    torch.testing.assert_close(told, per_unit, rtol=0, atol=1e-5)
    with pytest.raises(AssertionError, match="tokens are not those"):
        network(x, timestep, text, positions, mask=mask, unit_shapes=shapes[1:])


@pytest.mark.parametrize("patch", [(1, 2, 2), (1, 4, 4), (2, 2, 1)])
def test_every_frame_is_convolved_by_itself_where_it_is(patch):
    """Against unpatchify and one call of the layer for each frame."""
    conv, sizes = nn.Conv2d(4, 6, 3, padding=1), [(2, 3, 2), (1, 2, 2), (3, 3, 2), (1, 2, 2)]
    tokens = [torch.randn(2, t * h * w, 4 * patch[0] * patch[1] * patch[2]) for t, h, w in sizes]
    expected = []
    for x, shape in zip(tokens, sizes, strict=True):
        frames = [conv(frame) for frame in unpatchify(x, shape, patch).unbind(2)]
        expected.append(patchify(torch.stack(frames, dim=2), patch))
    got = convolve(conv, torch.cat(tokens, dim=1), sizes, patch).transpose(2, 3).flatten(2)
    torch.testing.assert_close(got, torch.cat(expected, dim=1), rtol=0, atol=1e-5)
    alone = convolve(conv, tokens[2], sizes[2:3], patch).transpose(2, 3).flatten(2)
    torch.testing.assert_close(alone, expected[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("text", PLANS)
@torch.no_grad()
def test_units_do_not_see_each_other_through_convolutions(text):
    """Blind to everything but itself, a unit gets the same whatever the others hold, and the same as alone."""
    plan = PlanSpec.parse(text).build(GRID)
    positions, ids, _, x, prompt, timesteps = sequence(plan)
    network = make_convolving()
    own = ids[:, None] == ids[None, :]
    together = network(x, timesteps, prompt, positions, ids, own)
    for i, unit in enumerate(plan.units):
        mine = ids == i
        alone = network(x[:, mine], timesteps[:, i : i + 1], prompt, plan.positions(unit))
        torch.testing.assert_close(alone, together[:, mine], rtol=0, atol=1e-5)
        others = torch.where(mine[:, None], x, torch.randn_like(x))
        assert torch.equal(network(others, timesteps, prompt, positions, ids, own)[:, mine], together[:, mine])


@torch.no_grad()
def test_units_are_found_after_an_eviction():
    """After an eviction the coordinates that the network rotates by have moved; its convolutions must not care."""
    plan = PlanSpec.parse("cube:4x2x1").build(Grid(8, 4, 4))
    network, text = make_convolving(), torch.randn(1, 8, 32)
    cache = network.new_cache(1, window=4)
    for unit in plan.units:
        x, t = torch.randn(1, unit.size(), 64), torch.full((1, 1), 500.0)
        told = network(x, t, text, plan.positions(unit), cache=cache, unit_shapes=[unit.shape()])
        assert torch.equal(network(x, t, text, plan.positions(unit), cache=cache), told)
        cache.commit()


@pytest.mark.parametrize("kind", ["flow", "sample"])
@torch.no_grad()
def test_a_network_that_is_given_convolutions_computes_the_same(kind):
    plan = PlanSpec.parse("cube:2x2x2").build(GRID)
    positions, ids, mask, x, text, timesteps = sequence(plan)
    network = make_transformer(prediction_type=kind).train().requires_grad_(True)
    before = network(x, timesteps, text, positions, ids, mask)
    assert add_convolutions(network, WIDTH) is network
    assert network.config.conv_width == WIDTH
    assert all(p.requires_grad for p in network.parameters())
    assert network.conv_head.training
    assert torch.equal(network(x, timesteps, text, positions, ids, mask), before)


def test_convolutions_are_added_once_and_have_a_width():
    network = add_convolutions(make_transformer().to(torch.bfloat16), WIDTH)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    with pytest.raises(ValueError, match="already, 8 channels"):
        add_convolutions(network, WIDTH)
    with pytest.raises(ValueError, match="at least 1"):
        add_convolutions(make_transformer(), 0)


def test_without_convolutions_the_state_dict_is_the_stock_one():
    stock, own = make_transformer().state_dict(), make_transformer(conv_width=WIDTH).state_dict()
    added = set(own) - set(stock)
    assert set(stock) < set(own)
    assert {name.split(".")[0] for name in added} == {"conv_stem", "conv_head"}


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_reach_the_branches(recompute):
    """New ones learn from their last layers on, and once those are not zero, everywhere."""
    plan = PlanSpec.parse("frame:2").build(GRID)
    positions, ids, mask, x, text, timesteps = sequence(plan)
    network = make_transformer(conv_width=WIDTH).train().requires_grad_(True)
    if recompute:
        network.enable_gradient_checkpointing()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for first in (True, False):
        optimizer.zero_grad()
        network(x, timesteps, text, positions, ids, mask).square().mean().backward()
        reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        new = {name for name, _ in network.named_parameters() if name.startswith("conv_")}
        last = {f"{layer}.{leaf}" for layer in ("conv_stem.proj", "conv_head.conv_out") for leaf in ("weight", "bias")}
        assert reached & new == (last if first else new)
        optimizer.step()


def test_gradients_equal_finite_differences():
    plan = PlanSpec.parse("cube:1x2x1").build(Grid(2, 3, 2))
    positions, ids, mask, x, text, timesteps = sequence(plan)
    network = make_convolving().requires_grad_(True)
    weight, step = network.conv_stem.conv1.weight, 1e-2

    def loss() -> torch.Tensor:
        return network(x, timesteps, text, positions, ids, mask).double().square().mean()

    loss().backward()
    direction = weight.grad / weight.grad.norm()
    with torch.no_grad():
        weight += step * direction
        more = loss()
        weight -= 2 * step * direction
        less = loss()
    assert ((more - less) / (2 * step)).item() == pytest.approx(weight.grad.norm().item(), rel=0.02)


@pytest.mark.parametrize("mode", ["autocast", "weights"])
@torch.no_grad()
def test_bfloat16_is_close(mode):
    plan = PlanSpec.parse("cube:2x2x2").build(GRID)
    positions, ids, mask, x, text, timesteps = sequence(plan)
    network = make_convolving()
    expected = network(x, timesteps, text, positions, ids, mask)
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        if mode == "weights":
            network, text = network.to(torch.bfloat16), text.bfloat16()
        got = network(x, timesteps, text, positions, ids, mask).float()
    assert ((got - expected).norm() / expected.norm()).item() < 0.02


def test_a_model_folder_keeps_them(tmp_path):
    model = make_model()
    model.transformer = make_convolving()
    save_model(model, tmp_path / "model", torch.float32)
    again = load_model(tmp_path / "model", "cpu").transformer
    assert again.config.conv_width == WIDTH
    plan = PlanSpec("full").build(GRID)
    where, x, text = plan.positions(plan.units[0]), torch.randn(1, 100, 64), torch.randn(1, 8, 32)
    t = torch.full((1, 1), 300.0)
    assert torch.equal(again(x, t, text, where), model.transformer(x, t, text, where))
    added = add_convolutions(make_transformer(), WIDTH)
    added.save_pretrained(tmp_path / "added")
    trained = VideoARTransformer3DModel.from_pretrained(tmp_path / "added", use_safetensors=True)
    pairs = itertools.zip_longest(trained.state_dict().items(), added.state_dict().items())
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def test_weights_and_config_must_agree(tmp_path):
    model = make_model()
    save_model(model, tmp_path, torch.float32)
    config = tmp_path / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"eps"', f'"conv_width": {WIDTH}, "eps"'))
    with pytest.raises(ValueError, match="lacks 16 of its"):
        load_model(tmp_path, "cpu")
    model.transformer = make_convolving()
    save_model(model, tmp_path, torch.float32)
    config.write_text(config.read_text().replace(f'"conv_width": {WIDTH}', '"conv_width": 0'))
    with pytest.raises(ValueError, match=r"config\.json does not allow"):
        load_model(tmp_path, "cpu")


@torch.no_grad()
def test_weights_of_the_branches_are_fetched_before_they_are_used(tmp_path):
    """With the weights on disk, a layer whose hook did not fire would compute with nothing."""
    network, plan = make_convolving(), PlanSpec("full").build(GRID)
    where, x, text = plan.positions(plan.units[0]), torch.randn(1, 100, 64), torch.randn(1, 8, 32)
    t = torch.full((1, 1), 300.0)
    expected, cpu = network(x, t, text, where), torch.device("cpu")
    network.enable_group_offload(cpu, cpu, offload_type="leaf_level", offload_to_disk_path=str(tmp_path))
    torch.testing.assert_close(network(x, t, text, where), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_layers_kept_in_eight_bits_leave_the_branches_alone():
    network, plan = make_convolving(), PlanSpec("full").build(GRID)
    network.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    assert network.blocks[0].ffn.net[2].weight.dtype == torch.float8_e4m3fn
    assert {p.dtype for n, p in network.named_parameters() if n.startswith("conv_")} == {torch.float32}
    where, x, text = plan.positions(plan.units[0]), torch.randn(1, 100, 64), torch.randn(1, 8, 32)
    assert network(x, torch.full((1, 1), 300.0), text, where).isfinite().all()


@pytest.mark.parametrize("plan", ["cube:2x2x2", "scale:2", "key_detail:4"])
def test_films_are_the_same_until_the_branches_are_trained(plan):
    """Through window, storyboard and continued film, where parts of units are encoded anew."""
    model, start = make_model(), torch.randint(256, (9, 64, 64, 3), dtype=torch.uint8).numpy()
    story = [(1.0, "two fish swim")]
    request = Request("a red ball", plan=plan, seed=3, frames=33, window=6, sink=1, storyboard=story, start=start)

    def film():
        return list(generate(model, request, previews=False))[-1].video

    expected = film()
    add_convolutions(model.transformer, WIDTH)
    assert (film() == expected).all()
    nn.init.normal_(model.transformer.conv_head.conv_out.weight, std=0.3)
    assert (film() != expected).any()


@torch.no_grad()
def test_the_head_reads_output_and_noisy_input_cell_by_cell():
    """A head of one tap each, set by hand: channel 3 of a cell gains the input's channel 5 of that cell."""
    plain, network = make_transformer(), make_transformer(conv_width=WIDTH)
    head, plan = network.conv_head, PlanSpec("full").build(GRID)
    head.conv_in.weight.zero_()
    head.conv_in.weight[0, 16 + 5, 1, 1] = 1.0  # after the 16 channels of the output
    for layer in (head.conv_in, *head.residual):
        layer.bias.zero_()
    for conv in head.residual:
        conv.weight.zero_()
    head.conv_out.weight[3, 0, 1, 1] = 1.0
    where, x, text = plan.positions(plan.units[0]), torch.randn(1, 100, 64), torch.randn(1, 8, 32)
    t = torch.full((1, 1), 300.0)
    gained = unpatchify(network(x, t, text, where) - plain(x, t, text, where), GRID, PATCH)
    wanted = torch.zeros_like(gained)
    wanted[:, 3] = F.silu(unpatchify(x, GRID, PATCH)[:, 5])
    torch.testing.assert_close(gained, wanted, rtol=0, atol=1e-5)
