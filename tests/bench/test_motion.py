"""Motion is measured by halves, of films as a model makes them and of renders of the same worlds."""

import dataclasses
import json

import pytest
import torch

from bench import motion
from videoar.checkpoint import save_model
from videoar.codec import TinyCodec
from videoar.evaluate.playbench import held_out_cases
from videoar.playworld import Thing, World
from videoar.provenance import ROOT


def test_a_model_is_measured_beside_renders_of_its_prompts(tiny_model, tmp_path, capsys):
    folder, out = tmp_path / "tiny", tmp_path / "motion.json"
    save_model(tiny_model, folder)
    assert motion.main([str(folder), "--prompts", "4", "--plan", "frame", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert (result["plan"], result["prompts"], result["steps"]) == ("frame:1", 4, 2)
    for half in motion.HALVES:
        expected = result["films"][half] / result["real"][half]
        assert result["films_over_real"][half]["ratio"] == pytest.approx(expected, rel=0.01)
    assert len(result["films"]["by_frame"]) == 4
    assert str(out) in capsys.readouterr().out


def test_a_ratio_lies_in_its_interval_and_is_one_for_the_same_clips():
    real = torch.randn(6, 2, 5, 3, 3, generator=torch.Generator().manual_seed(0)).cumsum(2)
    assert motion.compare(real, real)["second"] == {"ratio": 1, "low": 1, "high": 1}
    films = real.clone()
    films[:3, :, 3:] = films[:3, :, 2:3]  # half of the films stand still in their second half
    first, second = motion.compare(films, real).values()
    assert first["ratio"] == 1
    assert 0.1 < second["low"] < second["ratio"] < second["high"] < 0.95


def test_what_stays_still_does_not_move_and_what_orbits_does(tiny_model):
    codec = TinyCodec.from_pretrained(ROOT / "assets" / "builtin" / "vae", use_safetensors=True).eval()
    model, case = dataclasses.replace(tiny_model, vae=codec), held_out_cases(2)[0]
    things = [Thing("ball", "red", "big", how, x=0.0, y=0.0, phase=0.2) for how in ("stays still", "orbits")]
    cases = [dataclasses.replace(case, world=World("wall", "none", (thing,), "white")) for thing in things]
    still, orbits = (motion.motion_by_half(clip[None]) for clip in motion.renders_of(model, cases))
    assert max(still) < 1e-3 < 0.1 < min(orbits)


def test_what_cannot_be_measured_is_refused(tiny_model, tmp_path):
    for name, change, message in (
        ("wide", {"width": 96}, "square"),
        ("short", {"frames": 5}, "9 frames or more"),
        ("unipc", {"sampler": "unipc"}, "UniPC"),
    ):
        save_model(
            dataclasses.replace(tiny_model, info=dataclasses.replace(tiny_model.info, **change)), tmp_path / name
        )
        with pytest.raises(ValueError, match=message):
            motion.main([str(tmp_path / name), "--prompts", "2", "--out", str(tmp_path / "never.json")])
