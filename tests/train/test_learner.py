"""A training step changes what it should and nothing else."""

import pytest
import torch
from torch import nn

from train.device import OneDevice
from train.feed import Curriculum
from train.learner import Learner
from train.presets import FlowPreset, Share
from videoar.plan import Grid


class Line:
    """A method of one number that learns to be 3, from losses of two draws."""

    needs_latents = False

    def __init__(self, bad=False):
        self.weight, self.bad = nn.Linear(1, 1, bias=False), bad
        nn.init.ones_(self.weight.weight)
        self.parts = self.trained = {"model": self.weight}
        self.frozen, self.uncached, self.rates = [], [], {"model": 1.0}

    def losses(self, draw):
        loss = (self.weight(torch.ones(1, 1)) - draw).square().mean()
        yield "model", loss * float("inf") if self.bad else loss, {"draw": torch.tensor(float(draw))}


def learner(method):
    preset = FlowPreset(optimizer="adamw", weight_decay=0.0, ema=0.5)
    return Learner(method, preset, OneDevice(torch.device("cpu")))


def test_the_draws_of_a_step_are_averaged():
    method, seen = Line(), []
    columns = learner(method).step(0, [2.0, 4.0], 0.1, lambda *given: seen.append(given))
    assert columns["loss"].item() == pytest.approx((1 + 9) / 2)
    assert columns["draw"].item() == 3.0
    (name, found, norm), *_ = seen
    assert (name, found) == ("model", columns)
    assert norm.item() == pytest.approx(4.0)  # of the mean: 2 (w - 3)
    assert method.weight.weight.item() == pytest.approx(1.1, abs=1e-3)


def test_a_guard_that_raises_leaves_everything_as_it_was():
    method = Line(bad=True)
    student = learner(method)

    def guard(name, columns, norm):
        assert not torch.isfinite(norm)
        raise FloatingPointError

    with pytest.raises(FloatingPointError):
        student.step(0, [2.0], 0.1, guard)
    assert method.weight.weight.item() == 1.0
    assert student.average.tensors["weight"].item() == 1.0
    assert not student.every_optimizer[0].state


def test_a_curriculum_has_each_plan_in_its_part_of_the_stage():
    shares = [Share("full", 1.0, frames=1, end=0.5), Share("full", 0.5, begin=0.5), Share("frame", 0.5, begin=0.5)]
    curriculum = Curriculum(shares, Grid(4, 2, 2), seed=0)
    early = {curriculum.pick(step, 0.49).grid.T for step in range(20)}
    late = {str(curriculum.pick(step, 0.5).spec) for step in range(20)}
    assert early == {1}
    assert late == {"full", "frame:1"}
    with pytest.raises(ValueError, match="at 75% of its stage"):
        Curriculum(shares[:1], Grid(4, 2, 2), seed=0).pick(0, 0.75)
