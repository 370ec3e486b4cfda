"""The unit transformer: equal to the stock one, cached equal to masked, usable in training."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel

from tests.videoar.tiny import PATCH, make_transformer
from videoar.plan import Grid, PlanSpec
from videoar.rope import rope_table, spatial_waves
from videoar.transformer import VideoARTransformer3DModel, patchify, unpatchify

GRID = Grid(9, 7, 5)
PLANS = ("frame", "frame:3", "key_detail:4", "cube:2x3x2", "cube:2x2x1@3,1,0,2", "scale:2", "full")


def whole_sequence(plan):
    """Positions, unit of each token and mask of all tokens, in unit order."""
    return torch.cat([plan.positions(unit) for unit in plan.units]), plan.unit_ids(), plan.mask()


def full_positions(grid):
    plan = PlanSpec("full").build(grid)
    return plan.positions(plan.units[0])


@pytest.mark.parametrize("patch", [(1, 2, 2), (1, 4, 4)])
@torch.no_grad()
def test_full_plan_equals_the_stock_model(patch):
    torch.manual_seed(1)
    stock = WanTransformer3DModel(
        patch_size=patch,
        num_attention_heads=2,
        attention_head_dim=24,
        text_dim=32,
        freq_dim=32,
        ffn_dim=96,
        num_layers=2,
    ).eval()
    ours = VideoARTransformer3DModel.from_wan(stock)
    latents = torch.randn(2, 16, GRID.T, GRID.H * patch[1], GRID.W * patch[2])
    text, timestep = torch.randn(2, 8, 32), torch.tensor([500.0, 937.5])
    expected = stock(latents, timestep, text, return_dict=False)[0]
    tokens = ours(patchify(latents, patch), timestep[:, None], ours.encode_text(text), full_positions(GRID))
    torch.testing.assert_close(unpatchify(tokens, GRID, patch), expected, rtol=0, atol=1e-5)
    # Sharing, not copying; and embeddings may be passed as they are.
    assert ours.blocks[0].attn1.to_q.weight is stock.blocks[0].attn1.to_q.weight
    raw = ours(patchify(latents, patch), timestep[:, None], text, full_positions(GRID))
    assert torch.equal(raw, tokens)


def test_patchify_and_back(tiny_transformer):
    latents = torch.randn(2, 16, 3, 8, 12)
    assert torch.equal(unpatchify(patchify(latents, PATCH), (3, 4, 6), PATCH), latents)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("text", PLANS)
@torch.no_grad()
def test_unit_by_unit_with_the_cache_equals_one_masked_forward(tiny_transformer, text, backward):
    torch.manual_seed(2)
    plan = PlanSpec.parse(text).build(GRID)
    plan = plan.reverse() if backward else plan
    tokens = [torch.randn(2, unit.size(), 64) for unit in plan.units]
    text_kv = tiny_transformer.encode_text(torch.randn(2, 8, 32))
    timesteps = torch.rand(2, len(plan.units)) * 1000
    positions, ids, mask = whole_sequence(plan)
    expected = tiny_transformer(torch.cat(tokens, 1), timesteps, text_kv, positions, ids, mask)
    cache, got = tiny_transformer.new_cache(2), []
    for i, (unit, x) in enumerate(zip(plan.units, tokens, strict=True)):
        where = plan.positions(unit)
        tiny_transformer(torch.randn_like(x), torch.full((2, 1), 700.0), text_kv, where, cache=cache)  # pending only
        got.append(tiny_transformer(x, timesteps[:, i : i + 1], text_kv, where, cache=cache))
        cache.commit()
    torch.testing.assert_close(torch.cat(got, 1), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_shifting_time_changes_nothing(tiny_transformer):
    positions = full_positions(GRID)
    x, text, t = torch.randn(1, 315, 64), torch.randn(1, 8, 32), torch.full((1, 1), 300.0)
    moved = positions + torch.tensor([5.0, 0, 0])
    torch.testing.assert_close(
        tiny_transformer(x, t, text, positions), tiny_transformer(x, t, text, moved), rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("told", [False, True])
def test_only_a_spatial_embedding_tells_the_absolute_place(told):
    model = make_transformer(spatial_embedding=told)
    positions = full_positions(Grid(2, 3, 3))
    x, text, t = torch.randn(1, 18, 64), torch.randn(1, 8, 32), torch.full((1, 1), 300.0)
    moved = model(x, t, text, positions + torch.tensor([0, 3.0, 0]))
    assert torch.allclose(moved, model(x, t, text, positions), atol=2e-5) != told


def test_rope_equals_wans_tables_at_integers(tiny_transformer):
    head_dim = tiny_transformer.config.attention_head_dim
    positions = torch.tensor(
        [[t, y, x] for t in (0, 1, 500, 1023) for y in (0, 7) for x in (3, 1000)], dtype=torch.float
    )
    cos, sin = rope_table(positions, head_dim).unbind(-1)
    rope, index = tiny_transformer.rope, positions.long()
    dims = [rope.t_dim, rope.h_dim, rope.w_dim]
    for table, ours in ((rope.freqs_cos, cos), (rope.freqs_sin, sin)):
        parts = [part[index[:, i]] for i, part in enumerate(table.split(dims, dim=1))]
        torch.testing.assert_close(ours, torch.cat(parts, 1)[:, ::2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [rope_table, spatial_waves])
def test_what_is_told_of_places_is_made_once(make):
    """For inference and for training apart: what is made in inference mode cannot be kept for a backward pass."""
    places = torch.rand(7, 3 if make is rope_table else 2) * 9
    one = make(places, 24)
    assert make(places.clone(), 24) is one
    assert make(places, 48).shape != one.shape
    assert not torch.equal(make(places + 1, 24), one)
    with torch.inference_mode():
        assert make(places, 24).is_inference()
    assert make(places, 24) is one
    assert not one.is_inference()


def test_waves_tell_row_and_column():
    y, x = torch.tensor([0.0, 2.5, 7.0]), torch.tensor([3.0, 0.0, 1.5])
    waves = spatial_waves(torch.stack([y, x], dim=1), 8)
    frequency = torch.tensor([1.0, 0.1])
    angles = [part[:, None] * frequency for part in (y, x)]
    torch.testing.assert_close(waves, torch.cat([*(a.sin() for a in angles), *(a.cos() for a in angles)], dim=1))


@pytest.mark.parametrize("units", ["even", "uneven", "single tokens"])
def test_grouped_and_gathered_timesteps_agree(tiny_transformer, units):
    plan = PlanSpec.parse("frame").build(Grid(4, 3, 3))
    positions, ids, mask = whole_sequence(plan)
    if units == "uneven":
        ids = (ids * 0).index_fill(0, torch.arange(5, 36), 1)
    elif units == "single tokens":
        ids = torch.arange(36)
    x, text = torch.randn(2, 36, 64), torch.randn(2, 8, 32)
    t = torch.rand(2, int(ids.max()) + 1) * 1000
    together = tiny_transformer(x, t, text, positions, ids, mask)
    order = torch.randperm(36, generator=torch.Generator().manual_seed(0))
    shuffled = tiny_transformer(x[:, order], t, text, positions[order], ids[order], mask[order][:, order])
    torch.testing.assert_close(shuffled, together[:, order], rtol=0, atol=1e-5)


def test_prediction_of_x0_becomes_a_velocity():
    flow, sample = make_transformer(), make_transformer(prediction_type="sample")
    x, text, positions = torch.randn(2, 36, 64), torch.randn(2, 8, 32), full_positions(Grid(4, 3, 3))
    t = torch.tensor([[800.0], [20.0]])
    raw, velocity = flow(x, t, text, positions), sample(x, t, text, positions)
    sigma = torch.tensor([0.8, 0.05])[:, None, None]
    torch.testing.assert_close(velocity, (x - raw) / sigma)
    with pytest.raises(ValueError, match="prediction_type"):
        make_transformer(prediction_type="noise")


def test_gradients_do_not_depend_on_recomputation_or_on_what_the_cache_becomes():
    model = make_transformer().train().requires_grad_(True)
    plan = PlanSpec.parse("frame").build(Grid(4, 3, 3))
    text = torch.randn(1, 8, 32)
    tokens = [torch.randn(1, 9, 64) for _ in plan.units]

    def gradient():
        cache = model.new_cache(1, window=2)
        losses = []
        for unit, x in zip(plan.units, tokens, strict=True):
            t, where = torch.full((1, 1), 500.0), plan.positions(unit)
            losses.append(model(x, t, text, where, cache=cache).square().mean())
            with torch.no_grad():
                model(x, t * 0, text, where, cache=cache)
            cache.commit()
        model.zero_grad()
        torch.stack(losses).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    plain = gradient()
    model.enable_gradient_checkpointing()
    torch.testing.assert_close(gradient(), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["autocast", "weights"])
def test_bfloat16_is_close(mode):
    model = make_transformer()
    plan = PlanSpec.parse("frame").build(Grid(4, 3, 3))
    where = whole_sequence(plan)
    x, text, t = torch.randn(2, 36, 64), torch.randn(2, 8, 32), torch.rand(2, 4) * 1000
    expected = model(x, t, text, *where)
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        if mode == "weights":
            model, text = model.to(torch.bfloat16), text.bfloat16()
        got = model(x, t, text, *where).float()
    assert ((got - expected).norm() / expected.norm()).item() < 0.02


def test_a_compiled_or_wrapped_patch_embedding_is_used(tiny_transformer):
    class Wrapped(torch.nn.Conv3d):
        pass

    x, text, positions = torch.randn(1, 36, 64), torch.randn(1, 8, 32), full_positions(Grid(4, 3, 3))
    t = torch.full((1, 1), 100.0)
    expected = tiny_transformer(x, t, text, positions)
    conv = tiny_transformer.patch_embedding
    conv.__class__ = Wrapped
    try:
        torch.testing.assert_close(tiny_transformer(x, t, text, positions), expected, rtol=0, atol=1e-5)
    finally:
        conv.__class__ = torch.nn.Conv3d
