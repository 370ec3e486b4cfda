"""Muon in few kernels is torch's Muon, and the average of all weights at once is that of each."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.videoar.tiny import make_transformer
from train.muon import COEFFICIENTS, Muon, newton_schulz
from train.optim import make_optimizers
from train.run import Average, flatten_optimizer, restore_optimizer

# Tall, wide and square ones; several of a shape, and shapes that are others' transposes.
SHAPES = [(8, 8), (24, 8), (8, 24), (8, 8), (24, 8), (16, 8), (5, 7)]
SETTINGS = {"lr": 3e-2, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
needs_torchs = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


def matrices(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(parameters, step):
    generator = torch.Generator().manual_seed(100 + step)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator)


def train(optimizer, parameters, steps=range(5)):
    for step in steps:
        give_gradients(parameters, step)
        optimizer.step()


@pytest.fixture
def bfloat16(monkeypatch):
    monkeypatch.setattr("train.muon.computes_in_bfloat16", lambda device: True)


@pytest.fixture
def float32(monkeypatch):
    """Both in float32: torch's casts by a method of tensors."""
    monkeypatch.setattr("train.muon.computes_in_bfloat16", lambda device: False)
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())


@needs_torchs
@pytest.mark.parametrize(
    "changes", [{}, {"nesterov": False}, {"adjust_lr_fn": "original", "momentum": 0.5}, {"ns_steps": 3, "eps": 1e-2}]
)
@pytest.mark.usefixtures("float32")
def test_muon_is_torchs(changes):
    ours, theirs = matrices(), matrices()
    train(Muon(ours, **(SETTINGS | changes)), ours)
    train(torch.optim.Muon(theirs, **(SETTINGS | changes)), theirs)
    for p, q, before in zip(ours, theirs, matrices(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)
        assert (p - before).abs().max() > 0.05  # of steps that could be told apart


@needs_torchs
@pytest.mark.usefixtures("bfloat16")
def test_muon_in_bfloat16_is_torchs():
    ours, theirs = matrices(), matrices()
    train(Muon(ours, **SETTINGS), ours)
    train(torch.optim.Muon(theirs, **SETTINGS), theirs)
    for p, q, before in zip(ours, theirs, matrices(), strict=True):
        assert (p - q).norm() < 4 * torch.finfo(torch.bfloat16).eps * (q - before).norm()


def test_the_precision_is_the_hardwares(monkeypatch):
    seen = []
    monkeypatch.setattr("train.muon.newton_schulz", lambda x, *_: seen.append(x.dtype) or x)
    for computes in (True, False):
        monkeypatch.setattr("train.device.cpu_computes_in_bfloat16", lambda computes=computes: computes)
        parameters = [nn.Parameter(torch.randn(4, 4))]
        train(Muon(parameters), parameters, range(1))
    assert seen == [torch.bfloat16, torch.float32]


def test_singular_values_come_near_one_and_vectors_stay():
    x = torch.randn(3, 6, 10, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    inside = u.mT @ newton_schulz(x, COEFFICIENTS, 5, 1e-7) @ vh.mT
    values = inside.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.5
    assert values.max() < 1.5
    torch.testing.assert_close(inside, torch.diag_embed(values), rtol=0, atol=1e-4)


@needs_torchs
@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("ours_first", [True, False])
def test_state_goes_from_one_to_the_other(ours_first):
    """As a state dict, and as the tensors of a checkpoint; a run goes on as if there had been one optimizer."""
    classes = (Muon, torch.optim.Muon) if ours_first else (torch.optim.Muon, Muon)
    expected = matrices()
    train(classes[0](expected, **SETTINGS), expected, range(4))
    before = matrices()
    first = classes[0](before, **SETTINGS)
    train(first, before, range(2))
    for way in ("state dict", "checkpoint"):
        parameters = copy.deepcopy(before)
        second = classes[1](parameters, **SETTINGS)
        if way == "state dict":
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        else:
            saved = {k: v.clone() for k, v in flatten_optimizer(first.state_dict(), "opt1").items()}
            assert set(saved) == {f"opt1.{i}.momentum_buffer" for i in range(len(SHAPES))}
            restore_optimizer(second, saved, "opt1")
        train(second, parameters, range(2, 4))
        for p, q in zip(parameters, expected, strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


class Count(TorchDispatchMode):
    """Counts what a GPU would be asked to do."""

    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def test_matrices_of_a_shape_cost_no_more_calls_and_nothing_waits_for_a_number():
    """The meta device has shapes and no numbers: asking for one fails."""
    calls = []
    for times in (1, 10):
        parameters = [nn.Parameter(torch.empty(shape, device="meta")) for shape in times * SHAPES]
        optimizer = Muon(parameters, **SETTINGS)
        for _ in range(2):  # the first step makes the buffers
            for p in parameters:
                p.grad = torch.empty_like(p)
            with Count() as count:
                optimizer.step()
        calls.append(count.calls)
    assert calls[0] == calls[1]


def test_what_has_no_gradient_is_left_alone():
    parameters = matrices()
    still = parameters[1].detach().clone()
    optimizer = Muon(parameters, **SETTINGS)
    give_gradients(parameters, 0)
    parameters[1].grad = None
    optimizer.step()
    assert torch.equal(parameters[1], still)
    assert parameters[1] not in optimizer.state
    assert not torch.equal(parameters[4], matrices()[4])  # of the same shape
    for p in parameters:
        p.grad = None
    optimizer.step()


def test_what_muon_cannot_train_is_refused():
    with pytest.raises(ValueError, match="matrices"):
        Muon([nn.Parameter(torch.zeros(3))])
    with pytest.raises(ValueError, match="adjust_lr_fn"):
        Muon(matrices(), adjust_lr_fn="other")


def test_muon_trains_the_matrices_inside_the_blocks():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.blocks = nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 8)])

    net = Net()
    adam, muon = make_optimizers(net, "muon", 0.1)
    assert isinstance(muon, Muon)
    assert muon.param_groups[0]["params"] == [net.blocks[0].weight]
    assert muon.param_groups[0]["momentum"] == 0.95
    assert len(adam.param_groups[0]["params"]) == 3
    assert len(make_optimizers(net, "adamw", 0.1)) == 1


class Net(nn.Module):
    """Shared weights, a buffer that is saved, one that counts and one that is not saved."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 4)
        self.again = self.one
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("scratch", torch.ones(2), persistent=False)


class OfAState(nn.Module):
    """Its state dict is not what its parts hold."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def state_dict(self, *args, **kwargs):
        return {f"wrapped.{k}": v for k, v in self.inner.state_dict().items()}


def change(module, step):
    """Everything: in place, or by other tensors in the place of the old ones, as moving a module does."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            new = torch.randn(p.shape, generator=generator)
            if (i + step) % 2:
                p.data = new
            else:
                p.copy_(new)
        for part in module.modules():
            for name, buffer in part._buffers.items():
                part._buffers[name] = torch.full_like(buffer, step + 1)


@pytest.mark.parametrize("make", [Net, OfAState, make_transformer])
def test_the_average_of_all_at_once_is_that_of_each(make):
    module, decay = make(), 0.9
    average = Average(module, decay)
    expected = {k: v.detach().clone() for k, v in module.state_dict().items()}
    for step in range(4):
        if step == 2:  # as a run does that goes on
            average.tensors = {k: v.clone() for k, v in expected.items()}
        if step == 3:
            module = copy.deepcopy(module)
        change(module, step)
        average.update(module, step)
        for k, v in module.state_dict().items():
            if v.is_floating_point():
                expected[k].lerp_(v.detach(), 1 - min(decay, (1 + step) / (10 + step)))
            else:
                expected[k].copy_(v)
    assert average.tensors.keys() == expected.keys()
    for k, v in expected.items():
        assert torch.equal(average.tensors[k], v), k


def test_the_average_costs_one_call_for_all_weights():
    calls = []
    for layers in (1, 3):
        module = make_transformer(num_layers=layers)
        average = Average(module, 0.9)
        average.update(module, 0)
        with Count() as count:
            average.update(module, 1)
        calls.append(count.calls)
    assert calls[0] == calls[1]
