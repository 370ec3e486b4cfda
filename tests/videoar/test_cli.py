"""The command line: files, exit codes, messages."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import videoar.generate
from videoar.checkpoint import save_model
from videoar.cli import main
from videoar.events import StepDone
from videoar.video import read_settings, read_video


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model, path)
    return str(path)


def run(folder, *arguments):
    return main(["generate", *arguments, "--model", folder, "--device", "cpu", "--threads", "1", "--quiet"])


def test_a_clip_and_its_settings(folder, tmp_path, capsys):
    out = tmp_path / "clip.mp4"
    assert run(folder, "a red ball", "--out", str(out), "--plan", "frame", "--seed", "5", "--steps", "1") == 0
    video, fps = read_video(out)
    assert (video.shape, fps) == ((17, 64, 64, 3), 8)
    report = json.loads(out.with_suffix(".json").read_text())
    assert (report["seed"], report["plan"], report["steps"], report["complete"]) == (5, "frame:1", 1, True)
    assert len(report["units"]) == 5
    assert read_settings(out)["prompt"] == "a red ball"
    assert "seed 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ("",),
        ("a", "--plan", "spiral"),
        ("a", "--frames", "18"),
        ("a", "--height", "65"),
        ("a", "--guidance", "nan"),
        ("a", "--steps", "0"),
        ("a", "--seed", "-1"),
        ("a", "--out", "/no/such/folder/clip.mp4"),
        ("a", "--out", "clip.gif"),
        ("a" * 10_000,),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_2(folder, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(folder, *arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("videoar: ")
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_missing_models_and_devices(folder, tmp_path, capsys):
    assert main(["info", "--model", str(tmp_path / "nothing")]) == 2
    assert main(["info", "--model", folder, "--device", "toaster"]) == 2
    assert capsys.readouterr().err.count("videoar: ") == 2


def test_no_overwrite(folder, tmp_path):
    out = tmp_path / "clip.mp4"
    out.write_text("mine")
    assert run(folder, "a", "--out", str(out), "--no-overwrite") == 2
    assert out.read_text() == "mine"


@pytest.mark.parametrize(("after", "frames"), [(8, True), (1, False)])
def test_ctrl_c_keeps_what_is_there(folder, tmp_path, monkeypatch, after, frames):
    real = videoar.generate.generate

    def interrupted(*args, **kwargs):
        steps = 0
        for event in real(*args, **kwargs):
            yield event
            steps += isinstance(event, StepDone)
            if steps == after:
                raise KeyboardInterrupt

    monkeypatch.setattr(videoar.generate, "generate", interrupted)
    out = tmp_path / "clip.mp4"
    assert run(folder, "a red ball", "--out", str(out), "--plan", "frame") == 130
    assert out.exists() == frames
    if frames:
        count = len(read_video(out)[0])
        assert 1 <= count < 17
        report = json.loads(out.with_suffix(".json").read_text())
        assert (report["complete"], report["frames"]) == (False, count)


def test_info(folder, capsys):
    assert main(["info", "--model", folder, "--device", "cpu"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["codec"]) == ("tiny", "AutoencoderKLWan")
    assert shown["size_is_multiple_of"] == {"height": 16, "width": 16}


def test_importing_the_package_is_light_and_help_is_quick():
    check = "import sys, videoar.cli; assert 'torch' not in sys.modules; assert videoar.__version__"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
    shown = subprocess.run([sys.executable, "-m", "videoar", "--help"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0
    assert "generate" in shown.stdout
