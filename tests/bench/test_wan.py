"""The network of Wan2.1-1.3B's shape, and its cost model against known figures and against what a film keeps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bench.wan import Shape, build, film_flop, forward_flop
from tests.bench.tiny import TINY
from videoar.checkpoint import ModelInfo
from videoar.generate import Request, UnitDecoded, UnitStarted, generate

WAN = SimpleNamespace(num_layers=30, num_attention_heads=12, attention_head_dim=128, ffn_dim=8960)


@pytest.fixture(scope="module")
def model():
    return build(TINY, torch.device("cpu"), torch.float32)[0]


def test_the_cost_of_wans_forwards():
    """Figures of the literature on Wan2.1-1.3B at 832x480, where a latent frame is 1560 tokens."""
    assert forward_flop(WAN, 1, 0, 0) == pytest.approx(2.50e9, rel=0.01)
    for context, expected in ((3, 16.2e12), (12, 28.3e12), (21, 40.4e12)):
        assert forward_flop(WAN, 4680, 1560 * context, 512) == pytest.approx(expected, rel=0.01)
    chunks = sum(forward_flop(WAN, 4680, 1560 * (3 * i + 3), 512) for i in range(7))
    assert 5 * chunks == pytest.approx(990e12, rel=0.01)
    assert 100 * forward_flop(WAN, 32760, 32760, 512) == pytest.approx(28_284e12, rel=0.01)


def test_the_real_shape_is_wans():
    shape = Shape()
    assert (shape.heads * shape.head_dim, shape.layers, shape.ffn) == (1536, WAN.num_layers, WAN.ffn_dim)
    assert (shape.width, shape.height, shape.frames) == (ModelInfo.width, ModelInfo.height, ModelInfo.frames)


def test_the_cost_of_films(model):
    """Three latent frames of six tokens, four steps and a clean pass; there is none after the last unit."""

    def flop(n, keys):
        return forward_flop(model.transformer.config, n, keys, TINY.text_length)

    def film(plan, **others):
        return film_flop(model, Request("a ball", plan=plan, **others))

    assert film("frame") == 5 * flop(6, 6) + 5 * flop(6, 12) + 4 * flop(6, 18)
    assert film("frame", window=2) == 5 * flop(6, 6) + 5 * flop(6, 12) + 4 * flop(6, 12)
    assert film("cube:1x2x1") == 5 * flop(9, 9) + 4 * flop(9, 18)
    assert film("full", steps=3, guidance_scale=5.0) == 2 * 3 * flop(18, 18)


@pytest.mark.parametrize(
    ("plan", "window"), [("cube:2x2x2", 2), ("frame", 2), ("key_detail:2", None), ("scale:2", None)]
)
def test_the_cost_is_that_of_the_keys_a_film_keeps(model, plan, window):
    request = Request("a ball", plan=plan, window=window, seed=1)
    events = list(generate(model, request, previews=False))
    sizes = [event.unit.size() for event in events if isinstance(event, UnitStarted)]
    held = [event.cache_bytes for event in events if isinstance(event, UnitDecoded)]
    config, copies = model.transformer.config, 2 if window is None else 3
    a_token = copies * config.num_layers * config.num_attention_heads * config.attention_head_dim * 4
    keys = [kept // a_token for kept in held]  # with the unit itself, but for the last, which is not kept
    keys[-1] += sizes[-1]
    flop = [forward_flop(config, n, k, TINY.text_length) for n, k in zip(sizes, keys, strict=True)]
    assert film_flop(model, request) == 5 * sum(flop) - flop[-1]


def test_random_models_are_as_precise_as_loaded_ones():
    model, tiny = build(TINY, torch.device("cpu"), torch.bfloat16)
    assert model.transformer.proj_out.weight.dtype == model.vae.dtype == tiny.dtype == torch.bfloat16
    assert model.transformer.scale_shift_table.dtype == torch.float32
