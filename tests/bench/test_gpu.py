"""The GPU benchmark: its cost model against known figures, and a run at a tiny shape."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from bench import gpu
from videoar.checkpoint import ModelInfo

WAN = SimpleNamespace(num_layers=30, num_attention_heads=12, attention_head_dim=128, ffn_dim=8960)
TINY = gpu.Shape("tiny", 2, 24, 2, 96, 32, 12, 4, (16, 8, 8, 8), 32, 48, 9)


def test_the_cost_of_wans_forwards():
    """Figures of the literature on Wan2.1-1.3B at 832x480, where a latent frame is 1560 tokens."""
    assert gpu.forward_flop(WAN, 1, 0, 0) == pytest.approx(2.50e9, rel=0.01)
    for context, expected in ((3, 16.2e12), (12, 28.3e12), (21, 40.4e12)):
        assert gpu.forward_flop(WAN, 4680, 1560 * context, 512) == pytest.approx(expected, rel=0.01)
    chunks = sum(gpu.forward_flop(WAN, 4680, 1560 * (3 * i + 3), 512) for i in range(7))
    assert 5 * chunks == pytest.approx(990e12, rel=0.01)
    assert 100 * gpu.forward_flop(WAN, 32760, 32760, 512) == pytest.approx(28_284e12, rel=0.01)


def test_the_real_shape_is_wans():
    shape = gpu.Shape()
    assert (shape.heads * shape.head_dim, shape.layers, shape.ffn) == (1536, WAN.num_layers, WAN.ffn_dim)
    assert (shape.width, shape.height, shape.frames) == (ModelInfo.width, ModelInfo.height, ModelInfo.frames)


def test_a_run_at_a_tiny_shape(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "SMALL", TINY)
    monkeypatch.setattr(gpu, "CASES", (("frame", None), ("frame", 2), ("cube:1x2x1", None)))
    out = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--dtype", "float32", "--runs", "1", "--full-steps", "3", "--out", str(out)]
    assert gpu.main(arguments) == 0
    result = json.loads(out.read_text())
    assert (result["shape"], result["weights"], result["attention"]) == ("tiny", "random", "sdpa")
    config = SimpleNamespace(num_layers=2, num_attention_heads=2, attention_head_dim=24, ffn_dim=96)
    tokens = 2 * 3  # of a latent frame; three of them

    def flop(n, keys):
        return gpu.forward_flop(config, n, keys, 12) / 1e12

    expected = [
        5 * flop(6, 6) + 5 * flop(6, 12) + 4 * flop(6, 18),  # no clean pass after the last unit
        5 * flop(6, 6) + 5 * flop(6, 12) + 4 * flop(6, 12),
        5 * flop(9, 9) + 4 * flop(9, 18),
    ]
    for row, cost in zip(result["plans"], expected, strict=True):
        assert row["cost_tflop"] == pytest.approx(cost, rel=1e-3)
        assert row["diffusion_fps"] == pytest.approx(9 / row["diffusion_s"], rel=1e-3)
        assert row["unit_s_median"] <= row["unit_s_p95"]
        assert row["ratio_to_full"] == pytest.approx(result["full"]["diffusion_s"] / row["diffusion_s"], rel=0.02)
    assert result["full"]["cost_tflop"] == pytest.approx(2 * 3 * flop(3 * tokens, 3 * tokens), rel=1e-3)
    assert result["full"]["units"] == 1
    assert capsys.readouterr().out.count("\n") == 2 + 1 + 3 + 1
    with pytest.raises(ValueError, match="--plan is one of cube:1x2x1, frame"):
        gpu.main([*arguments, "--plan", "spiral"])
    with pytest.raises(ValueError, match="at least 1"):
        gpu.main([*arguments, "--runs", "0"])


def test_random_models_are_as_precise_as_loaded_ones():
    model, tiny = gpu.build(TINY, torch.device("cpu"), torch.bfloat16)
    assert model.transformer.proj_out.weight.dtype == model.vae.dtype == tiny.dtype == torch.bfloat16
    assert model.transformer.scale_shift_table.dtype == torch.float32
