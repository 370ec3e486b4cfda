"""Plans: every site once, causal masks, even splits, positions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videoar.plan import Grid, PlanSpec, runs, split

SPECS = ("frame", "frame:3", "key_detail:2", "key_detail:4", "cube", "cube:2x3x2", "scale:2", "scale:3", "full")


@st.composite
def plans(draw):
    grid = Grid(draw(st.integers(1, 9)), draw(st.integers(1, 8)), draw(st.integers(1, 8)))
    kind = draw(st.sampled_from(["frame", "key_detail", "cube", "scale", "full"]))
    order = None
    if kind == "frame":
        args = (draw(st.integers(1, 10)),)
    elif kind == "key_detail":
        args = (draw(st.integers(1, grid.T)),)
    elif kind == "cube":
        args = tuple(draw(st.integers(1, min(4, n))) for n in grid)
        order = draw(st.none() | st.permutations(range(math.prod(args))).map(tuple))
    elif kind == "scale":
        args = (draw(st.integers(1, int(math.log2(min(grid.H, grid.W))) + 1)),)
    else:
        args = ()
    spec = PlanSpec(kind, args, order)
    return spec.build(grid)


@settings(max_examples=150, deadline=None)
@given(plans())
def test_every_site_of_every_level_is_covered_once(plan):
    for level in range(len(plan.scales)):
        sites = torch.cat([plan.sites(unit) for unit in plan.units if unit.level == level])
        size = plan.level_grid(level)
        assert torch.equal(sites.sort().values, torch.arange(size.T * size.H * size.W))
    assert plan.scales[-1] == 1
    assert plan.complete_frames(len(plan.units) - 1) == plan.grid.T
    assert plan.complete_frames(-1) == 0


@settings(max_examples=50, deadline=None)
@given(plans())
def test_mask_is_block_lower_triangular_in_unit_order(plan):
    ids, mask = plan.unit_ids(), plan.mask()
    assert torch.equal(ids, ids.sort().values)
    assert torch.equal(mask, ids[:, None] >= ids[None, :])
    start = 0
    for unit in plan.units:
        end = start + unit.size()
        assert mask[start:end, :end].all()
        assert not mask[start:end, end:].any()
        start = end


@settings(max_examples=50, deadline=None)
@given(plans())
def test_reversing_twice_is_the_identity_and_once_the_reverse_order(plan):
    back = plan.reverse()
    assert back.reverse() == plan
    assert back.units == plan.units[::-1]
    # Seen from the same tokens, the backward mask is the forward one transposed.
    order = torch.cat([torch.arange(len(plan.unit_ids()))[plan.unit_ids() == i] for i in range(len(plan.units))[::-1]])
    assert torch.equal(back.mask(), plan.mask()[order][:, order].T)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.data())
def test_uneven_splits_differ_by_at_most_one_and_start_with_the_larger(length, data):
    sizes = [b - a for a, b in split(length, data.draw(st.integers(1, length)))]
    assert sum(sizes) == length
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_the_papers_split():
    assert split(21, 2) == [(0, 11), (11, 21)]


def test_key_detail_units_are_strided():
    plan = PlanSpec.parse("key_detail:4").build(Grid(10, 2, 2))
    assert [unit.frames for unit in plan.units] == [(0, 4, 8), (1, 5, 9), (2, 6), (3, 7)]
    assert [plan.complete_frames(k) for k in range(4)] == [1, 2, 3, 10]


def test_cubes_go_through_time_then_rows_then_columns():
    plan = PlanSpec.parse("cube:2x2x2").build(Grid(5, 4, 4))
    assert [(u.frames[0], u.rows[0], u.cols[0]) for u in plan.units[:4]] == [(0, 0, 0), (0, 0, 2), (0, 2, 0), (0, 2, 2)]
    assert [plan.complete_frames(k) for k in range(8)] == [0, 0, 0, 3, 3, 3, 3, 5]
    reordered = PlanSpec.parse("cube:2x2x2@7,6,5,4,3,2,1,0").build(Grid(5, 4, 4))
    assert reordered.units == plan.units[::-1]


def test_positions_of_coarse_levels_are_centred():
    plan = PlanSpec.parse("scale:3").build(Grid(2, 8, 8))
    assert plan.scales == (4, 2, 1)
    assert plan.positions(plan.units[0])[:3].tolist() == [[0, 1.5, 1.5], [0, 1.5, 5.5], [0, 5.5, 1.5]]
    assert plan.positions(plan.units[2])[9].tolist() == [0, 1, 1]
    uneven = PlanSpec.parse("scale:2").build(Grid(1, 7, 5))
    assert uneven.level_grid(0) == Grid(1, 4, 3)
    y = uneven.positions(uneven.units[0])[:, 1]
    assert y.mean().item() == pytest.approx(3.0)  # the centre of 7 rows


@pytest.mark.parametrize(
    ("text", "slab", "lengths", "units"),
    [
        ("cube:2x2x2", 8, (8, 8, 4), (8, 8, 8)),
        ("cube:3x1x1", 9, (9, 9, 2), (3, 3, 2)),
        ("frame", 8, (8, 8, 4), (8, 8, 4)),
        ("frame:3", 6, (6, 6, 6, 2), (2, 2, 2, 1)),
        ("key_detail:4", 6, (6, 6, 6, 2), (4, 4, 4, 2)),
        ("scale:2", 12, (12, 8), (2, 2)),
        ("full", 30, (20,), (1,)),
    ],
)
def test_long_films_repeat_the_plan_in_slabs(text, slab, lengths, units):
    slabs = list(PlanSpec.parse(text).slabs(Grid(20, 2, 2), slab, start=5))
    assert tuple(plan.grid.T for plan in slabs) == lengths
    assert tuple(len(plan.units) for plan in slabs) == units
    assert [plan.start for plan in slabs] == [5 + sum(lengths[:i]) for i in range(len(slabs))]
    for plan in slabs:
        frames = sorted({frame for unit in plan.units for frame in unit.frames})
        assert frames == list(range(plan.start, plan.start + plan.grid.T))
        assert plan.complete_frames(-1) == plan.start
        assert plan.complete_frames(len(plan.units) - 1) == plan.start + plan.grid.T
        sites = [plan.sites(unit) for unit in plan.units if plan.scales[unit.level] == 1]
        assert torch.equal(torch.cat(sites).sort().values, torch.arange(plan.grid.T * 4))


def test_an_endless_film_begins_like_a_long_one():
    spec = PlanSpec.parse("cube")
    endless = spec.slabs(Grid(1, 4, 4), 8, endless=True)
    assert list(itertools.islice(endless, 3)) == list(spec.slabs(Grid(24, 4, 4), 8))


@pytest.mark.parametrize(
    ("text", "borders"),
    [
        ("cube:2x2x2", [0, 4]),
        ("cube:2x1x2@0,2,1,3", [0]),
        ("frame:2", [0, 1, 2, 3]),
        ("key_detail:4", [0]),
        ("scale:2", [0]),
    ],
)
def test_borders_are_where_no_frame_is_half_done(text, borders):
    plan = PlanSpec.parse(text).build(Grid(8, 4, 4), start=3)
    assert [k for k in range(len(plan.units)) if plan.is_border(k)] == borders


def test_runs_of_neighbours():
    assert runs((0, 1, 4)) == [(0, 2), (4, 5)]
    assert runs([3]) == [(3, 4)]
    assert runs(()) == []


@pytest.mark.parametrize("text", SPECS)
def test_text_form_round_trips(text):
    spec = PlanSpec.parse(text)
    assert PlanSpec.parse(str(spec)) == spec
    assert str(PlanSpec.parse(str(spec))) == str(spec)
    assert PlanSpec.parse(f" {text.upper().replace('_', '-')} ") == spec


@pytest.mark.parametrize(
    "text",
    ["", "  ", "cubes", "cube:2x2", "cube:2x2x2x2", "cube:ax2x2", "frame:0", "frame:-1", "frame:1.5", "frame:99999999",
     "scale:9", "full:1", "cube:1x2x1@0,0", "cube:1x2x1@1", "frame@0", "x" * 1000, None, 7,
     "frame:1_0", "frame:+1", "frame:３", "cube:2x2x２", "cube:1x2x1@1_0,0", "frame:", "cube@", "frame:" + "9" * 490,
     "cube:" + "x".join("9" * 240)],
)  # fmt: skip
def test_unusable_plans_are_refused(text):
    with pytest.raises(ValueError, match="plan") as caught:
        PlanSpec.parse(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("text", "grid"),
    [("cube:2x2x2", (1, 4, 4)), ("cube:1x2x8", (4, 4, 4)), ("key_detail:4", (3, 4, 4)), ("scale:4", (4, 8, 4)),
     ("full", (0, 4, 4))],
)  # fmt: skip
def test_plans_that_do_not_fit_say_so(text, grid):
    with pytest.raises(ValueError, match=r"needs|fit"):
        PlanSpec.parse(text).build(Grid(*grid))
