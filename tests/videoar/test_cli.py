"""The command line: files, exit codes, messages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import videoar.generate
from videoar.cli import main
from videoar.events import StepDone, UnitDecoded
from videoar.video import read_settings, read_video


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
        ("a", "--out", ""),
        ("a", "--out", "/"),
        ("a", "--out", ".."),
        ("a", "--out", "../.."),
        ("a", "--out", "x" * 300 + ".mp4"),
        ("a", "--out", "x" * 251 + ".mp4"),  # fits, but the settings' name does not
        ("a", "--plan", "frame:" + "9" * 400),
        ("a", "--plan", "frame:1_0"),
        ("a", "--sink", "2"),
        ("a", "--endless", "--window", "1"),
        ("a", "--seconds", "nan"),
        ("a", "--seconds", "0"),
        ("a", "--seconds", "1e300"),
        ("a", "--storyboard", "missing.txt"),
        ("a", "--continue-from", "missing.mp4"),
        ("a", "--continue-from", "."),
        ("a", "--threads", "0"),
        ("a", "--device", "meta"),
        ("a", "--model", ""),
        ("a" * 10_000,),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_2(folder, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in arguments else ["--model", folder]
    device = [] if "--device" in arguments else ["--device", "cpu"]
    assert main(["generate", *arguments, *model, *device, "--quiet"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("videoar: ")
    assert message.count("\n") == 1
    assert len(message) < 300
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["1_0", "３", "1.5", "", "9" * 5000, "x" * 5000])
@pytest.mark.parametrize("option", ["--seed", "--steps"])
def test_numbers_that_are_none_are_not_repeated_in_full(folder, capsys, option, value):
    with pytest.raises(SystemExit) as ended:
        run(folder, "a", option, value)
    assert ended.value.code == 2
    assert f"argument {option}: a whole number is wanted" in (said := capsys.readouterr().err)
    assert len(said.splitlines()[-1]) < 200


@pytest.mark.parametrize("name", ["clip.mp4", "clip.json"])
def test_what_cannot_be_written_is_said_before_the_film_is_made(folder, tmp_path, capsys, name):
    (tmp_path / name).mkdir()
    assert run(folder, "a", "--out", str(tmp_path / "clip.mp4")) == 2
    assert f"{name}: something that is not a file" in capsys.readouterr().err


def test_one_frame_without_a_plan(folder, tmp_path):
    out = tmp_path / "clip.mp4"
    assert run(folder, "a red ball", "--out", str(out), "--frames", "1", "--steps", "1") == 0
    assert len(read_video(out)[0]) == 1
    assert read_settings(out)["plan"] == "frame:1"


def test_a_full_device_is_one_line(folder, tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(videoar.generate, "generate", full)
    assert run(folder, "a red ball", "--out", str(tmp_path / "clip.mp4")) == 2
    assert capsys.readouterr().err.startswith("videoar: out of memory")


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
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(videoar.generate, "generate", interrupted)
    out = tmp_path / "clip.mp4"
    assert run(folder, "a red ball", "--out", str(out), "--plan", "frame") == 130
    assert out.exists() == frames
    if frames:
        count = len(read_video(out)[0])
        assert 1 <= count < 17
        report = json.loads(out.with_suffix(".json").read_text())
        assert (report["complete"], report["kept_frames"], report["frames"]) == (False, count, 17)
        assert report["stopped_after_units"] == len(report["units"])


def test_a_second_ctrl_c_interrupts_at_once(folder, tmp_path, monkeypatch):
    real = videoar.generate.generate

    def interrupted(*args, **kwargs):
        for event in real(*args, **kwargs):
            if isinstance(event, StepDone):
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
                pytest.fail("the second one was not heard")
            yield event

    monkeypatch.setattr(videoar.generate, "generate", interrupted)
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell has put the tests into the background
    assert run(folder, "a red ball", "--out", str(tmp_path / "clip.mp4")) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert not list(tmp_path.iterdir())


def test_an_error_midway_keeps_what_is_there(folder, tmp_path, monkeypatch, capsys):
    real = videoar.generate.generate

    def failing(*args, **kwargs):
        for event in real(*args, **kwargs):
            yield event
            if isinstance(event, UnitDecoded) and event.index == 1:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(videoar.generate, "generate", failing)
    out = tmp_path / "clip.mp4"
    assert run(folder, "a red ball", "--out", str(out), "--plan", "frame") == 2
    assert capsys.readouterr().err.startswith("videoar: out of memory")
    assert len(read_video(out)[0]) == 5
    assert json.loads(out.with_suffix(".json").read_text())["complete"] is False


def test_an_endless_film_ends_with_ctrl_c(folder, tmp_path, monkeypatch, capsys):
    real = videoar.generate.generate

    def stopped(*args, **kwargs):
        for event in real(*args, **kwargs):
            yield event
            if isinstance(event, UnitDecoded) and event.index == 9:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(videoar.generate, "generate", stopped)
    out = tmp_path / "clip.mp4"
    assert run(folder, "a red ball", "--out", str(out), "--plan", "frame", "--steps", "1", "--endless") == 0
    assert len(read_video(out)[0]) == 37
    report = json.loads(out.with_suffix(".json").read_text())
    assert (report["complete"], report["frames"], report["kept_frames"]) == (False, None, 37)
    assert "stopped after 10 of endless units" in capsys.readouterr().out


def test_a_killed_endless_film_can_be_played(folder, tmp_path):
    out = tmp_path / "clip.mp4"
    command = [sys.executable, "-m", "videoar", "generate", "a red ball", "--out", str(out), "--plan", "frame"]
    options = ["--model", folder, "--device", "cpu", "--steps", "1", "--seed", "1", "--endless", "--quiet"]
    root, partial = Path(__file__).parents[2], out.with_suffix(".partial.mp4")
    with subprocess.Popen([*command, *options], cwd=root) as process:
        end = time.monotonic() + 90
        while not partial.exists() or partial.stat().st_size < 100_000:  # some fragments
            assert time.monotonic() < end
            time.sleep(0.05)
        process.kill()
    assert [file.name for file in tmp_path.iterdir()] == [partial.name]
    video, fps = read_video(partial)
    assert (len(video) >= 16, video.shape[1:], fps) == (True, (64, 64, 3), 8)
    assert video[-1].std() > 5
    settings = read_settings(partial)
    assert (settings["seed"], settings["endless"], settings["window"]) == (1, True, 5)


def test_films_of_a_number_of_seconds(folder, tmp_path):
    out = tmp_path / "clip.mp4"
    options = ["--plan", "frame", "--steps", "1", "--seconds", "4.2", "--window", "3", "--sink", "1"]
    assert run(folder, "a red ball", "--out", str(out), *options) == 0
    assert len(read_video(out)[0]) == 37  # 33.6 frames, rounded up to 1 + 4n
    assert (read_settings(out)["window"], read_settings(out)["sink"]) == (3, 1)


def test_a_storyboard_of_a_file(folder, tmp_path, capsys):
    story, out = tmp_path / "story.txt", tmp_path / "clip.mp4"
    story.write_text("0 a red ball\n1 two fish\n")
    options = ["--storyboard", str(story), "--out", str(out), "--plan", "frame", "--steps", "1"]
    assert run(folder, *options, "--frames", "17") == 0
    settings = read_settings(out)
    assert (settings["prompt"], settings["storyboard"]) == ("a red ball", [[1.0, "two fish"]])
    assert run(folder, "a", *options) == 2
    assert "leave one of the two out" in capsys.readouterr().err
    assert run(folder, *options, "--frames", "5") == 2
    assert "begins after the film ends" in capsys.readouterr().err
    story.write_text("0 a red ball\n0 two fish\n")
    assert run(folder, *options) == 2
    assert "story.txt, line 2: " in capsys.readouterr().err


def test_a_film_goes_on_from_a_picture_or_clip(folder, tmp_path, capsys):
    first, second, picture = tmp_path / "first.mp4", tmp_path / "second.mp4", tmp_path / "picture.png"
    options = ["--plan", "frame", "--steps", "1", "--seed", "1"]
    assert run(folder, "a red ball", "--out", str(first), *options, "--frames", "9", "--width", "96") == 0
    assert run(folder, "a red ball", "--out", str(second), *options, "--continue-from", str(first)) == 0
    clip, longer = read_video(first)[0], read_video(second)[0]
    assert longer.shape == (9 + 16, 64, 96, 3)  # the size of what was made here
    assert np.abs(longer[:9].astype(int) - clip).mean() < 3  # but for being compressed twice
    report = json.loads(second.with_suffix(".json").read_text())
    assert (report["continued_from"], report["given_frames"], report["frames"]) == ("first.mp4", 9, 16)
    Image.fromarray(clip[-1]).save(picture)
    assert run(folder, "a red ball", "--out", str(second), *options, "--continue-from", str(picture)) == 0
    assert read_video(second)[0].shape == (17, 64, 64, 3)
    capsys.readouterr()
    picture.write_bytes(b"")
    assert run(folder, "a red ball", "--out", str(first), *options, "--continue-from", str(picture)) == 2
    assert capsys.readouterr().err == "videoar: picture.png is empty\n"
    assert np.array_equal(read_video(first)[0], clip)


def test_a_real_ctrl_c_keeps_the_first_cube(folder, tmp_path):
    out = tmp_path / "clip.mp4"
    command = [sys.executable, "-m", "videoar", "generate", "a red ball", "--out", str(out), "--plan", "cube:2x2x2"]
    options = ["--model", folder, "--device", "cpu", "--steps", "100", "--seed", "1", "--threads", "1"]
    root = Path(__file__).parents[2]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stderr is not None
        said, end = b"", time.monotonic() + 90
        while b"unit 3/8" not in said:  # by now the first cube has been painted
            assert time.monotonic() < end
            said += (read := os.read(process.stderr.fileno(), 4096))
            assert read, said
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    video, _ = read_video(out)
    assert video.shape == (9, 64, 64, 3)  # cubes of three latent frames
    assert video[:, :32, :32].std() > 5
    assert video[:, 40:].max() < 25  # not painted: black, up to what compression does
    report = json.loads(out.with_suffix(".json").read_text())
    assert (report["complete"], report["kept_frames"], report["frames"]) == (False, 9, 17)
    assert 1 <= report["stopped_after_units"] <= 4
    assert read_settings(out)["stopped_after_units"] == report["stopped_after_units"]
    assert re.search(r"stopped after \d of 8 units", output.decode())


def test_a_plan_the_model_was_not_trained_for_runs_with_a_warning(folder, tmp_path, capsys):
    assert run(folder, "a", "--out", str(tmp_path / "a.mp4"), "--plan", "frame:2", "--steps", "1") == 0
    assert "tiny was trained for cube:2x2x2, frame:1, " in (said := capsys.readouterr().err)
    assert "frame:2 may look wrong" in said
    assert run(folder, "a", "--out", str(tmp_path / "a.mp4"), "--plan", "cube:1x2x2", "--steps", "1") == 0
    assert "may look wrong" not in capsys.readouterr().err


def test_info(folder, capsys):
    assert main(["info", "--model", folder, "--device", "cpu"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["codec"]) == ("tiny", "AutoencoderKLWan")
    assert shown["size_is_multiple_of"] == {"height": 16, "width": 16}
    assert (shown["device"], shown["dtype"], shown["attention"]) == ("cpu", "float32", "sdpa")
    assert main(["info", "--model", folder, "--device", "cpu", "--dtype", "bfloat16", "--offload", "text"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["dtype"], shown["attention"]) == ("bfloat16", "bmm")
    for option, value in (("--dtype", "int8"), ("--offload", "moon"), ("--decoder", "/no/such/file.pth")):
        assert main(["info", "--model", folder, "--device", "cpu", option, value]) == 2
        assert capsys.readouterr().err.startswith("videoar: ")


def test_importing_the_package_is_light_and_help_is_quick():
    check = "import sys, videoar.cli; assert 'torch' not in sys.modules; assert videoar.__version__"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
    shown = subprocess.run([sys.executable, "-m", "videoar", "--help"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0
    assert "generate" in shown.stdout
