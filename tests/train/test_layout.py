"""What follows from a plan is right, made once, and where it is wanted: a step on a device copies none of it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.test_dmd import PLANS, make
from train import layout
from train.dmd import FakeScorers, SymmetricDMD, finest_latents, scorer_mask
from train.flow import Draw, FlowMatching, forcing_mask, teacher_forcing_mask
from train.presets import DMDPreset, FlowPreset, PlacesPreset
from videoar.plan import Grid, PlanSpec
from videoar.transformer import unpatchify

GRID = Grid(3, 4, 6)


def built(name, start=0):
    return PlanSpec.parse(name).build(GRID, start)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(layout, "_kept", {})


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("name", PLANS)
def test_tokens_are_found(name, start):
    plan = built(name, start)
    places, ids = layout.place_of(plan), layout.unit_ids(plan)
    assert torch.equal(ids, plan.unit_ids())
    for i, unit in enumerate(plan.units):
        assert torch.equal(places[ids == i], plan.positions(unit))
    offset = 0
    for level in range(len(plan.scales)):
        mine, grid = layout.tokens_of_level(plan, level), plan.level_grid(level)
        size = grid.T * grid.H * grid.W
        assert torch.equal(layout.sites(plan)[mine].sort()[0], offset + torch.arange(size))
        offset += size
    finest = layout.finest_tokens(plan)
    t, y, x = (part.flatten() for part in torch.meshgrid(*map(torch.arange, GRID), indexing="ij"))
    assert torch.equal(places[finest], torch.stack([t + start, y, x], dim=1).float())


def test_latents_are_those_of_the_finest_tokens():
    plan = built("scale:2")
    tokens = torch.randn(2, len(plan.unit_ids()), 16)
    assert torch.equal(finest_latents(tokens, plan, (1, 2, 2)), unpatchify(tokens[:, -72:], GRID, (1, 2, 2)))


def test_masks_are_those_of_the_plan():
    plan = built("cube:1x2x2")
    assert torch.equal(forcing_mask(plan), teacher_forcing_mask(plan.unit_ids()))
    assert torch.equal(scorer_mask(plan, "forward"), plan.mask())
    assert torch.equal(scorer_mask(plan, "backward"), plan.mask().T)
    assert scorer_mask(plan, "full") is None


def test_made_once_for_equal_plans_and_anew_for_others():
    one, again, other = built("frame"), built("frame"), built("frame:2")
    assert layout.place_of(one) is layout.place_of(again)
    assert layout.place_of(one) is not layout.place_of(other)
    assert layout.place_of(one) is not layout.unit_ids(one)
    assert layout.place_of(one, device="meta").device.type == "meta"
    assert layout.causal_mask(one, True) is not layout.causal_mask(one, False)


def test_large_ones_are_not_kept_and_old_ones_go(monkeypatch):
    monkeypatch.setattr(layout, "LARGEST", 72 * 3)
    plan = built("full")
    assert layout.place_of(plan) is layout.place_of(plan)
    assert layout.causal_mask(plan) is not layout.causal_mask(plan)
    for start in range(layout.KEPT + 1):
        layout.place_of(built("full", start))
    assert len(layout._kept) <= layout.KEPT


def test_what_was_made_for_inference_serves_training():
    plan = built("frame")
    with torch.inference_mode():
        layout.unit_ids(plan)
    x = torch.randn(3, requires_grad=True)
    x[layout.unit_ids(plan)].sum().backward()  # saves the indices
    assert x.grad is not None


class Apart(TorchDispatchMode):
    """Notes every operation that moves tensors between the CPU and the device, or mixes those of both."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        flat = torch.utils._pytree.tree_leaves((args, kwargs, out))
        kinds = {a.device.type for a in flat if torch.is_tensor(a) and (a.ndim or a.device.type != "cpu")}
        if len(kinds) > 1:
            self.noted.append((str(function), [tuple(a.shape) for a in flat if torch.is_tensor(a)]))
        return out


class NoNumbers:
    """Noise of the meta device, made there."""

    def normal(self, *shape):
        return torch.empty(shape, device="meta")

    uniform = normal

    def below(self, n):
        return n - 1


@pytest.fixture
def meta(monkeypatch):
    """A device with shapes and no numbers; nor has it autocasting."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    return torch.device("meta")


@pytest.mark.parametrize("name", PLANS)
def test_a_step_of_flow_matching_copies_nothing_that_follows_from_the_plan(name, meta):
    plan = built(name)
    asked = FlowPreset(places=PlacesPreset(blocks=(0,)), context_noise=0.1)
    student = FlowMatching(make().to(meta), asked, {})
    latents, text = torch.empty(2, 4, 3, 8, 12, device=meta), torch.empty(2, 3, 16, device=meta)
    paths = torch.empty(2, 3, 2, 4, device=meta)
    for again in (False, True):
        with Apart() as apart:
            loss, _ = student(latents, text, plan, 5.0, NoNumbers(), None, paths)
            loss.backward()
        assert bool(apart.noted) != again, apart.noted  # what is made first is brought there


@pytest.mark.parametrize("name", ["cube:2x2x2", "scale:2", "frame:2"])
def test_a_step_of_distillation_copies_nothing_that_follows_from_the_plan(name, meta):
    plan = built(name)
    fakes = FakeScorers({direction: make().to(meta) for direction in ("forward", "backward")})
    method = SymmetricDMD(make().to(meta), make().to(meta), {"forward": make().to(meta)}, DMDPreset())
    n = len(plan.unit_ids())
    noisy, text, sigma = (torch.empty(shape, device=meta) for shape in ((2, n, 16), (2, 3, 16), (2,)))
    draw = Draw(0, plan, 5.0, text, torch.empty(1, 3, 16, device=meta), NoNumbers(), None)
    for again in (False, True):
        with Apart() as apart:
            torch.stack(fakes(noisy, sigma, text, plan)).sum().backward()
            finest_latents(noisy, plan, (1, 2, 2))
            with torch.no_grad():
                method.real_velocity(noisy, sigma, draw)
        assert bool(apart.noted) != again, apart.noted
