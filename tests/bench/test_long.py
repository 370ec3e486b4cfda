"""The benchmark of long films: what it samples, sums up, draws and does not make twice."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bench import long
from bench.drift import PANELS, plot
from videoar.checkpoint import save_model
from videoar.generate import Request
from videoar.video import read_video


def test_films_are_measured_summed_up_and_not_made_again(tiny_model, tmp_path, monkeypatch, capsys):
    folder, out, drawing = tmp_path / "tiny", tmp_path / "long.json", tmp_path / "long.svg"
    save_model(tiny_model, folder)
    arguments = [
        "--model",
        str(folder),
        "--plan",
        "frame",
        "--steps",
        "1",
        "--seconds",
        "8",
        "--every",
        "0.5",
        "--window",
        "3",
    ]
    arguments += ["--sink", "0", "1", "--out", str(out), "--plot", str(drawing), "--video", str(tmp_path / "films")]
    assert long.main(arguments) == 0
    result = json.loads(out.read_text())
    assert [(film["window"], film["sink"]) for film in result["films"]] == [(3, 0), (3, 1)]
    for film in result["films"]:
        assert film["plan"] == "frame:1"
        times = [sample["film_s"] for sample in film["samples"]]
        assert times == sorted(times)
        assert 7.5 <= times[-1] <= 8.2
        assert all(sample["unit_s"] > 0 and sample["rss_mb"] > 50 for sample in film["samples"])
        assert film["summary"]["memory_growth_percent"] < 5
    assert len(read_video(tmp_path / "films" / "long-window3-sink1.mp4")[0]) == result["films"][0]["frames"] == 65
    assert len(ET.fromstring(drawing.read_text()).findall(".//{*}polyline")) == 2 * len(PANELS)
    capsys.readouterr()

    def again(*args):
        raise AssertionError("made twice")

    monkeypatch.setattr(long, "measure", again)
    assert long.main(arguments) == 0
    with pytest.raises(AssertionError, match="twice"):
        long.main([*arguments, "--seed", "2"])
    with pytest.raises(ValueError, match="sink"):
        long.main([*arguments, "--seed", "2", "--sink", "0", "3"])  # before the first of the two is made


def test_looks_tell_grey_blurred_and_still_films_from_others():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    grey, still = noise.mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8), noise[:1].repeat(4, 0)
    blurred = noise.reshape(4, 8, 4, 8, 4, 3).mean((2, 4)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    figures = {name: long.looks(video) for name, video in
               {"noise": noise, "grey": grey, "still": still, "blurred": blurred}.items()}  # fmt: skip
    assert figures["grey"]["saturation"] == 0 < 0.4 < figures["noise"]["saturation"]
    assert figures["blurred"]["sharpness"] < figures["noise"]["sharpness"] / 4
    assert figures["still"]["motion"] == 0 < figures["noise"]["motion"]
    assert long.looks(np.full((2, 4, 4, 3), (10, 20, 30), np.uint8))["green"] == 20


def test_summaries_find_what_grows_and_fades():
    samples = [
        {"film_s": float(i), "unit_s": 0.1 + i / 100, "cpu_s": 0.1, "rss_mb": 100.0 + i, "scene_right": i < 10}
        | {"saturation": 0.5 - i / 100, "sharpness": 3.0, "motion": 1.0, "red": 10.0 * i, "green": 5.0, "blue": 5.0}
        for i in range(1, 21)
    ]
    summary = long.summarise(samples, window_s=5.0)
    assert summary["unit_s_ratio"] == pytest.approx((0.1 + 0.19) / (0.1 + 0.07), abs=1e-3)
    assert summary["cpu_s_ratio"] == summary["sharpness_ratio"] == 1
    assert summary["memory_growth_percent"] == pytest.approx(100 * (120 / 108 - 1), abs=1e-2)
    assert summary["saturation_ratio"] == pytest.approx(0.31 / 0.43, abs=1e-3)
    assert (summary["color_shift"], summary["scene_right"]) == (120, 0.45)
    assert long.summarise(samples[:7], window_s=5.0) == {"too_short": True}


def test_samples_of_prompts_of_another_world_have_no_scene_to_be_right(tiny_model):
    first = next(long.measure(tiny_model, Request("zxqw", "frame", seed=1, steps=1, frames=17), 0.5))
    assert first["scene_right"] is None
    assert plot([{"plan": "frame:1", "window": 3, "sink": 0, "samples": [first]}]).startswith("<svg")
