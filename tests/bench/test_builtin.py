"""The built-in benchmark's comparison with the whole clip at once."""

from __future__ import annotations

import pytest

from bench.builtin import compare
from videoar.checkpoint import save_model


def test_few_steps_against_fifty(tiny_model, tmp_path):
    save_model(tiny_model, tmp_path / "model")
    result = compare(str(tmp_path / "model"), 1)
    for prefix in ("", "diffusion_"):
        fast, slow = result[f"{prefix}comparison_pairs"][0]
        assert 0 < fast < slow
        assert result[f"{prefix}speedup_vs_full50"] == pytest.approx(slow / fast, rel=0.05)
    assert result["diffusion_cube_s"] <= result["cube_s"]
    assert result["diffusion_full50_s"] <= result["full50_s"]
    assert result["decode_psnr_vs_float32_db"] == 99.0, "a Wan autoencoder on a CPU is float32 as it is"
    assert result["decode_s"] > 0 < result["decode_float32_s"]
