"""Fused chains compute what the written ones do, with few graphs, no more memory, and a way back."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import shutil
import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd.graph import saved_tensors_hooks

from tests.videoar.tiny import make_transformer
from videoar.elementwise import Elementwise, Fused
from videoar.generate import Request, generate
from videoar.plan import Grid, PlanSpec
from videoar.rope import rope_table

WIDTH, HEAD = 48, 24
# What inductor fuses, without the minutes of its C++ compiler.
QUICK = "aot_eager_decomp_partition"
PLANS = ("full", "frame", "cube:2x1x2", "scale:2", "frame:2")


@pytest.fixture(autouse=True, scope="module")
def graphs_end_here():
    yield
    torch._dynamo.reset()


def network(**config):
    return make_transformer(**config).train().requires_grad_(True)


def run(model, text="frame", grid=(3, 4, 4), batch=2):
    """The loss of one forward under a plan, with a timestep per unit."""
    generator = torch.Generator().manual_seed(0)
    plan = PlanSpec.parse(text).build(Grid(*grid))
    positions, ids = torch.cat([plan.positions(unit) for unit in plan.units]), plan.unit_ids()
    x = torch.randn(batch, len(ids), 64, generator=generator)
    t = torch.rand(batch, len(plan.units), generator=generator) * 1000
    text_BLE = torch.randn(batch, 8, 32, generator=generator)
    return model(x, t, text_BLE, positions, ids, plan.mask()).square().mean()


def gradients(model, *args, **kwargs):
    model.zero_grad()
    loss = run(model, *args, **kwargs)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def close(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def chains(given, wanted, units=4, n=9, batch=2):
    """Every chain's name with arguments, for one unit, equal units and others; of one type, with results of another."""

    def of(*shape):
        return torch.randn(*shape).to(given).requires_grad_()

    plain, affine, rms = nn.LayerNorm(WIDTH, elementwise_affine=False), nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH, 1e-6)
    for p in (*affine.parameters(), *rms.parameters()):
        nn.init.normal_(p)
    tokens = units * n
    x, h = of(batch, tokens, WIDTH), of(batch, tokens, WIDTH)
    for count, token_unit in ((1, None), (units, n), (units, torch.arange(tokens).remainder(units))):
        modulation = torch.randn(batch, count, 3, WIDTH, requires_grad=True)
        yield "norm_modulate", (plain, x), modulation, (token_unit, wanted)
        yield "add_gated", (x, h), modulation, (token_unit, wanted)
    yield "layer_norm", (affine, x), None, (wanted,)
    yield "rms_norm", (rms, x), None, (wanted,)
    table = rope_table(torch.rand(tokens, 3) * 9, HEAD)
    for raw in (False, True):
        yield "norm_rotate", (rms, x), None, (table, wanted, raw)


def call(elementwise, name, first, modulation, rest):
    parts = ()
    if modulation is not None:
        shift, scale, gate = elementwise.parts(modulation, rest[0])
        parts = (scale, shift) if name == "norm_modulate" else (gate,)
    out = getattr(elementwise, name)(*first, *parts, *rest)
    return [o for o in (out if isinstance(out, tuple) else (out,)) if o is not None]


class TestChains:
    @pytest.mark.parametrize(
        ("given", "wanted", "autocast"),
        [
            (torch.float32, torch.float32, False),
            (torch.float32, torch.bfloat16, True),
            (torch.bfloat16, torch.bfloat16, False),
        ],
    )
    def test_fused_are_the_written_ones(self, given, wanted, autocast):
        """Values, types and gradients; bfloat16 as far as it is rounded."""
        torch.manual_seed(0)
        fused, written = Fused(QUICK), Elementwise()
        for name, first, modulation, rest in chains(given, wanted):
            leaves = [a for a in (*first, modulation) if torch.is_tensor(a)]
            leaves += [p for a in first if isinstance(a, nn.Module) for p in a.parameters()]
            results = []
            for elementwise in (fused, written):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    outputs = call(elementwise, name, first, modulation, rest)
                weights = [torch.linspace(-1, 1, o.numel()).view(o.shape).to(o) for o in outputs]
                results.append([*outputs, *torch.autograd.grad(outputs, leaves, weights, allow_unused=True)])
            for got, expected in zip(*results, strict=True):
                assert (got is None) == (expected is None), name
                if got is not None:
                    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), name
                    error = (got - expected).float().norm() / expected.float().norm().clamp(min=1)
                    assert error < (1e-5 if wanted == torch.float32 else 0.01), (name, rest)
        assert not fused.failed

    def test_norms_with_hooks_are_called(self):
        """Offloading brings the weights of a module when it is called."""
        fused, calls = Fused(QUICK), []
        for make in (lambda: nn.LayerNorm(WIDTH), lambda: nn.RMSNorm(WIDTH, 1e-6)):
            norm = make()
            run_chain = fused.layer_norm if isinstance(norm, nn.LayerNorm) else fused.rms_norm
            expected = run_chain(norm, torch.ones(2, 3, WIDTH), torch.float32)
            norm.register_forward_hook(lambda module, args, out: calls.append(module) or out + 1)
            if isinstance(norm, nn.RMSNorm):
                norm._diffusers_hook = True
            got = run_chain(norm, torch.ones(2, 3, WIDTH), torch.float32)
            torch.testing.assert_close(got, expected + 1)
        assert len(calls) == 2


class TestNetwork:
    @pytest.mark.parametrize("plan", PLANS)
    def test_fused_is_the_written_one(self, plan):
        written = network()
        fused = copy.deepcopy(written)
        fused.fuse_elementwise(QUICK)
        fused.enable_gradient_checkpointing()  # which counts what is kept: graphs are made behind its back
        close(gradients(fused, plan), gradients(written, plan))
        fused.disable_gradient_checkpointing()
        close(gradients(fused, plan), gradients(written, plan))
        assert not fused.elementwise.failed

    @pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
    def test_fused_by_the_real_compiler(self):
        written = network(num_layers=1)
        fused = copy.deepcopy(written)
        fused.fuse_elementwise()
        close(gradients(fused), gradients(written))
        assert not fused.elementwise.failed

    def test_a_film_is_the_same(self, tiny_model):
        """Without gradients, from the cache, whose keys are kept unrotated."""
        fused = dataclasses.replace(tiny_model, transformer=copy.deepcopy(tiny_model.transformer))
        fused.transformer.fuse_elementwise(QUICK)
        for plan in ("cube:2x2x2", "frame"):
            request = Request("a red ball", plan, seed=1)
            one, other = (list(generate(model, request))[-1].video.astype(int) for model in (tiny_model, fused))
            assert abs(one - other).max() <= 1
        assert fused.transformer.elementwise.proved
        assert not fused.transformer.elementwise.failed

    def test_one_timestep_for_all_clips(self):
        model = make_transformer()
        x, positions = torch.randn(2, 36, 64), torch.rand(36, 3)
        ids = torch.arange(4).repeat_interleave(9)
        for t, units in ((torch.full((1, 1), 500.0), None), (torch.rand(1, 4) * 1000, ids)):
            args = (x, t, torch.randn(2, 8, 32), positions, units)
            expected = model(*args)
            fused = copy.deepcopy(model)
            fused.fuse_elementwise(QUICK)
            close([fused(*args)], [expected])

    def test_few_graphs_serve_all_plans_lengths_and_batches(self):
        counter = CompileCounterWithBackend("aot_eager")
        model = network()
        model.fuse_elementwise(counter)
        other = network(seed=1, num_layers=3)
        other.fuse_elementwise(counter)

        def graphs():
            return sum(len(list(module.graph.nodes)) > 1 for module in counter.graphs)

        def run_all(first=0):
            sizes = (((3, 4, 4), 2), ((5, 4, 6), 3), ((4, 6, 4), 5))
            for plan, (grid, batch) in itertools.product(PLANS, sizes[first:]):
                gradients(model, plan, grid, batch)

        run(model, "frame").backward()
        run(model, "full").backward()
        assert graphs() == 5  # a graph each
        run_all()
        assert graphs() == 7  # two of them with indices as well
        gradients(copy.deepcopy(model), "frame", (7, 4, 4))
        gradients(other, "frame:2", (7, 4, 4))
        model.enable_gradient_checkpointing()
        run_all(first=1)
        assert graphs() == 7
        frozen = copy.deepcopy(model).requires_grad_(False)
        with torch.no_grad():
            for teacher in (model, frozen):
                run(teacher, "frame")
                run(teacher, "scale:2")
        assert graphs() == 14
        assert not model.elementwise.failed

    @pytest.mark.parametrize("autocast", [False, True])
    @pytest.mark.parametrize("plan", ["frame", "scale:2"])
    def test_nothing_more_is_kept_for_the_backward_pass(self, plan, autocast):
        written = network()
        fused = copy.deepcopy(written)
        fused.fuse_elementwise(QUICK)
        kept = []
        for model in (written, fused):
            gradients(model, plan)  # makes the graphs
            weights, storages = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

            def pack(x, weights=weights, storages=storages):
                storage = x.untyped_storage()
                if storage.data_ptr() not in weights:
                    storages[storage.data_ptr()] = storage.nbytes()
                return x

            with saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = run(model, plan)
            kept.append(sum(storages.values()))
            del loss
        assert kept[1] < kept[0]

    def test_the_switch_is_of_one_network_and_its_copies(self):
        one, other = make_transformer(), make_transformer()
        one.fuse_elementwise(QUICK)
        assert not isinstance(other.elementwise, Fused)
        assert not any(isinstance(block.elementwise, Fused) for block in other.blocks)
        again = copy.deepcopy(one)
        assert again.elementwise is one.elementwise
        assert all(block.elementwise is one.elementwise for block in again.blocks)
        assert again.state_dict().keys() == other.state_dict().keys()


def no_compiler(graph, inputs):
    raise RuntimeError("there is no compiler here")


class TestWayBack:
    @pytest.mark.parametrize(
        "backend", [no_compiler, aot_autograd(fw_compiler=lambda g, _: g, bw_compiler=no_compiler)]
    )
    def test_without_a_compiler_it_says_so_once_and_goes_on(self, backend):
        """Be it in the forward or in the backward pass that nothing can be compiled."""
        written = network()
        fused = copy.deepcopy(written)
        fused.fuse_elementwise(backend)
        with pytest.warns(UserWarning, match="unfused") as said:
            got = gradients(fused)
        assert len([w for w in said if "unfused" in str(w.message)]) == 1
        close(got, gradients(written))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            close(gradients(copy.deepcopy(fused), "scale:2"), gradients(written, "scale:2"))

    def test_errors_that_are_no_compilers_are_raised(self):
        fused = network()
        fused.fuse_elementwise(QUICK)
        gradients(fused)
        norm = fused.blocks[0].attn1.norm_q
        with pytest.raises(Exception, match=r"shape|size"):
            fused.elementwise.rms_norm(norm, torch.randn(2, 3, 47, requires_grad=True), torch.float32)
