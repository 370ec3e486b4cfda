"""The KV cache: transactions, eviction, relative and absolute time."""

from __future__ import annotations

import pytest
import torch

from videoar.plan import Grid, PlanSpec

GRID = Grid(8, 2, 3)


def run(model, plan, cache, text_kv, tokens):
    """Outputs of all units, cached one after another."""
    out = []
    for unit, x in zip(plan.units, tokens, strict=True):
        out.append(model(x, torch.zeros(len(x), 1), text_kv, plan.positions(unit), cache=cache))
        cache.commit()
    return torch.cat(out, 1)


@pytest.fixture
def setting(tiny_transformer):
    torch.manual_seed(3)
    plan = PlanSpec.parse("frame").build(GRID)
    tokens = [torch.randn(1, unit.size(), 64) for unit in plan.units]
    with torch.no_grad():
        return tiny_transformer, plan, tiny_transformer.encode_text(torch.randn(1, 8, 32)), tokens


@torch.no_grad()
def test_relative_equals_absolute_while_nothing_has_been_evicted(setting):
    model, plan, text_kv, tokens = setting
    absolute = run(model, plan, model.new_cache(window=8, relative=False), text_kv, tokens)
    assert torch.equal(run(model, plan, model.new_cache(window=8), text_kv, tokens), absolute)
    assert torch.equal(run(model, plan, model.new_cache(), text_kv, tokens), absolute)


@torch.no_grad()
def test_without_a_sink_relative_and_absolute_differ_only_by_rounding_after_evictions(setting):
    # A window moves all times by the same amount, and attention sees differences of time only.
    model, plan, text_kv, tokens = setting
    absolute = run(model, plan, model.new_cache(window=3, relative=False), text_kv, tokens)
    relative = run(model, plan, model.new_cache(window=3), text_kv, tokens)
    torch.testing.assert_close(relative, absolute, rtol=0, atol=1e-5)


@torch.no_grad()
def test_after_an_eviction_only_the_window_is_seen_at_closed_up_times(setting):
    model, plan, text_kv, tokens = setting
    cache = model.new_cache(window=4, sink=1)
    run(model, plan, cache, text_kv, tokens)
    # The last unit saw frames 0 (sink), 5, 6 and itself at times 0, 1, 2, 3.
    assert cache.length == 4 * 6
    assert cache._positions[:, 0].unique().tolist() == [0, 5, 6, 7]
    assert cache._shift(cache._positions)[:, 0].unique().tolist() == [0, 1, 2, 3]


@torch.no_grad()
def test_eviction_keeps_what_was_computed_for_the_kept_tokens(setting):
    model, plan, text_kv, tokens = setting
    whole, rolling = model.new_cache(), model.new_cache(window=3, relative=False)
    run(model, plan, whole, text_kv, tokens[:3] + tokens[3:])
    run(model, plan, rolling, text_kv, tokens)
    # First layer keys depend on the token alone, so the kept ones must be the same as without a window.
    assert torch.allclose(rolling.prefix(0)[0], whole.prefix(0)[0][:, -18:], atol=1e-6)


@torch.no_grad()
def test_stopping_midway_leaves_a_cache_from_which_the_same_film_continues(setting):
    model, plan, text_kv, tokens = setting
    expected = run(model, plan, model.new_cache(window=3), text_kv, tokens)
    cache, got = model.new_cache(window=3), []
    for unit, x in zip(plan.units, tokens, strict=True):
        where = plan.positions(unit)
        for noise in (900.0, 500.0):
            model(torch.randn_like(x), torch.full((1, 1), noise), text_kv, where, cache=cache)
        cache.rollback()  # stopped here; later it goes on
        got.append(model(x, torch.zeros(1, 1), text_kv, where, cache=cache))
        cache.commit()
    assert torch.equal(torch.cat(got, 1), expected)


@torch.no_grad()
def test_capacity_grows_when_it_does_not_suffice(setting):
    model, plan, text_kv, tokens = setting
    small, large = model.new_cache(capacity=1), model.new_cache(capacity=1000)
    assert torch.equal(run(model, plan, small, text_kv, tokens), run(model, plan, large, text_kv, tokens))


@torch.no_grad()
def test_cost_of_a_unit_does_not_grow_with_the_film(setting):
    model, _, text_kv, _ = setting
    cache, longest = model.new_cache(window=4, sink=1, capacity=4 * 6), 0
    buffers = [layer["value"].shape for layer in cache._layers]
    for plan in PlanSpec.parse("cube:2x2x1").slabs(Grid(40, 2, 3), slab=3):
        for unit in plan.units:
            x = torch.randn(1, unit.size(), 64)
            model(x, torch.zeros(1, 1), text_kv, plan.positions(unit), cache=cache)
            cache.commit()
            longest = max(longest, cache.length)
    assert longest <= 4 * 6
    assert cache.frames == [0, 37, 38, 39]
    assert cache._shift(cache._positions)[:, 0].unique().tolist() == [0, 1, 2, 3]
    assert cache._evicted == [(1, 37)]  # what is remembered of the past does not grow either
    assert [layer["value"].shape for layer in cache._layers] == buffers


@torch.no_grad()
def test_frames_that_go_out_of_order_leave_a_gap_for_those_that_come_later(setting):
    model, _, text_kv, _ = setting
    plan = PlanSpec.parse("key_detail:4").build(GRID)  # (0, 4), (1, 5), (2, 6), (3, 7)
    cache = model.new_cache(window=4)
    for unit in plan.units[:3]:
        model(torch.randn(1, unit.size(), 64), torch.zeros(1, 1), text_kv, plan.positions(unit), cache=cache)
        cache.commit()
    assert cache.frames == [2, 4, 5, 6]  # 0 and 1 went
    assert cache._shift(cache._positions)[:, 0].unique().tolist() == [0, 2, 3, 4]
    assert cache._shift(plan.positions(plan.units[3]))[:, 0].unique().tolist() == [1, 5]


@torch.no_grad()
def test_a_cleared_cache_encodes_what_it_held_in_the_same_place(setting):
    model, plan, text_kv, tokens = setting
    cache = model.new_cache(window=4, sink=1)
    run(model, plan, cache, text_kv, tokens)
    held = cache.frames
    cache.clear()
    assert (cache.length, cache.frames) == (0, [])
    for frame in held:
        model(tokens[frame], torch.zeros(1, 1), text_kv, plan.positions(plan.units[frame]), cache=cache)
        cache.commit()
    assert cache.frames == held
    assert cache._shift(cache._positions)[:, 0].unique().tolist() == [0, 1, 2, 3]


def test_misuse_is_noticed(setting):
    model, plan, text_kv, tokens = setting
    with pytest.raises(ValueError, match="sink"):
        model.new_cache(window=3, sink=3)
    cache = model.new_cache()
    with pytest.raises(AssertionError):
        cache.commit()
    with torch.enable_grad():
        model(tokens[0], torch.zeros(1, 1), text_kv, plan.positions(plan.units[0]), cache=cache)
    with pytest.raises(AssertionError, match="gradients"):
        cache.commit()
