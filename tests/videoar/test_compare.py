"""The command line's comparison: its files, its figures, and what it says about input that cannot be used."""

from __future__ import annotations

import json
import os
import signal

import pytest

import videoar.race
from videoar.cli import main
from videoar.events import StepDone
from videoar.generate import generate
from videoar.video import read_settings, read_video


def run(folder, *arguments):
    return main(["compare", *arguments, "--model", folder, "--device", "cpu", "--threads", "1", "--quiet"])


def test_a_comparison_and_its_timings(folder, tmp_path, capsys):
    out, other = tmp_path / "compare.mp4", tmp_path / "compare.gif"
    options = ("--plans", "full", "frame:3", "--steps", "2", "1", "--seed", "5", "--speed", "20")
    assert run(folder, "a red ball", *options, "--out", str(out), str(other)) == 0
    report = json.loads(out.with_suffix(".json").read_text())
    labels = [contender["label"] for contender in report["contenders"]]
    assert labels == ["full, 2 steps", "frame:3, 1 steps"]
    assert [len(contender["units"]) for contender in report["contenders"]] == [1, 2]
    kept = read_settings(out)
    assert kept == read_settings(other) == {key: report[key] for key in ("comparison", "sync", "speed")}
    assert [(c["plan"], c["steps"], c["seed"]) for c in kept["comparison"]] == [("full", 2, 5), ("frame:3", 1, 5)]
    video, fps = read_video(out)
    assert fps == 24
    assert len(video) / fps > 17 / 8  # the finished films play at their own speed
    said = capsys.readouterr().out
    assert all(label in said for label in labels)
    assert "first picture after" in said


def test_ctrl_c_keeps_what_there_is(folder, tmp_path, monkeypatch):
    seen = []

    def interrupted(model, request, **options):
        for event in generate(model, request, **options):
            yield event
            seen.append(event)
            if len([event for event in seen if isinstance(event, StepDone)]) == 20:
                os.kill(os.getpid(), signal.SIGINT)

    real = videoar.race.race
    monkeypatch.setattr(videoar.race, "race", lambda model, requests: real(model, requests, interrupted))
    out = tmp_path / "compare.mp4"
    options = ("--plans", "frame", "cube:1x2x2", "--seed", "5", "--steps", "3", "--out", str(out), "--speed", "50")
    assert run(folder, "a red ball", *options) == 130
    statuses = {contender["status"] for contender in json.loads(out.with_suffix(".json").read_text())["contenders"]}
    assert "stopped" in statuses
    assert read_video(out)[0].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plans", *["frame"] * 6], "up to 5 plans, not 6"),
        (["--plans", "frame", "full", "--steps", "1", "2", "3"], "--steps takes one number for all plans or one for"),
        (["--plans", "spiral"], "unknown plan 'spiral'"),
        (["--plans", "frame", "--out", "compare.avi"], "MP4 or GIF or WEBP"),
        (["--plans", "frame", "--speed", "nan"], "--speed is a number above 0"),
        (["--plans", "cube:9x9x9"], "does not fit"),
    ],
)
def test_what_cannot_be_used_is_said(folder, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert run(folder, "a red ball", *options) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
