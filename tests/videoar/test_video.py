"""MP4 files: what is written comes back, and nothing half-written stays."""

from __future__ import annotations

import signal
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from videoar.video import Mp4Writer, fit, read_pictures, read_settings, read_video, write_mp4


def picture(red: int = 255) -> np.ndarray:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :32] = (red, 0, 0)
    pixels[:, 32:] = (20, 200, 90)
    return pixels


def test_pixels_and_settings_come_back(tmp_path):
    path = tmp_path / "clip.mp4"
    settings = {"prompt": 'ünï"<b> \\ ü', "seed": 2**62, "plan": "cube:2x2x2", "sigmas": [1, 0.5]}
    write_mp4(path, np.stack([picture()] * 9), 12, settings)
    video, fps = read_video(path)
    assert video.shape == (9, 48, 64, 3)
    assert fps == 12
    assert np.abs(video[4].astype(int) - picture())[:, :24].max() < 8
    assert read_settings(path) == settings
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_the_file_plays_everywhere(tmp_path):
    path = tmp_path / "clip.mp4"
    write_mp4(path, (picture(i) for i in range(5)), 29.97)
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")  # plays while it loads
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
    assert read_settings(path) is None


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "clip.mp4"
    write_mp4(path, [picture()], 8, {"seed": 1})

    def pictures():
        yield picture()
        raise RuntimeError("the film broke")

    with pytest.raises(RuntimeError, match="broke"):
        write_mp4(path, pictures(), 8, {"seed": 2})
    assert read_settings(path) == {"seed": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_film_can_be_played_while_it_is_written(tmp_path):
    path = tmp_path / "clip.mp4"
    writer = Mp4Writer(path, 8, {"seed": 1})
    for i in range(80):
        writer.write(picture(i))
    assert [p.name for p in tmp_path.iterdir()] == ["clip.partial.mp4"]
    played, fps = read_video(writer.partial)
    assert (len(played) >= 80 - 16 - 40, fps) == (True, 8)  # but for a fragment and what the encoder looks ahead
    assert np.abs(played[20].astype(int) - picture(20))[:, :24].max() < 8
    assert read_settings(writer.partial) == {"seed": 1}
    writer.finish({"seed": 1, "frames": 80})
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert len(read_video(path)[0]) == 80
    assert read_settings(path) == {"seed": 1, "frames": 80}
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")
    assert b"moof" not in data


def test_a_killed_process_leaves_a_playable_file_that_the_next_one_spares(tmp_path):
    path = tmp_path / "clip.mp4"
    code = f"""
import itertools, numpy as np
from videoar.video import Mp4Writer
writer = Mp4Writer({str(path)!r}, 8, {{"seed": 3}})
for i in itertools.count():
    writer.write(np.full((48, 64, 3), i % 200, np.uint8))
    if i == 100:
        print("there", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"there\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    partial = tmp_path / "clip.partial.mp4"
    left = len(read_video(partial)[0])
    assert left >= 100 - 16 - 40
    assert read_settings(partial) == {"seed": 3}
    writer = Mp4Writer(path, 8)
    writer.write(picture())
    writer.finish()
    assert len(read_video(path)[0]) == 1
    assert len(read_video(partial)[0]) == left


@pytest.mark.parametrize(
    "video",
    [
        np.zeros((1, 3, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3)),
        np.zeros((0, 4, 4, 3)),
    ],
    ids=["odd", "four channels", "floats", "empty"],
)
def test_unusable_pictures(tmp_path, video):
    with pytest.raises(ValueError, match=r"even|uint8|no picture"):
        write_mp4(tmp_path / "clip.mp4", video, 8)
    assert not list(tmp_path.iterdir())


def test_unusable_files(tmp_path):
    text, cut = tmp_path / "text.mp4", tmp_path / "cut.mp4"
    text.write_text("no video")
    write_mp4(cut, [picture()] * 30, 8)
    cut.write_bytes(cut.read_bytes()[:200])
    for path in (text, cut, tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(ValueError, match=r"cannot read|damaged|no "):
            read_video(path)
    with pytest.raises(ValueError, match="cannot read"):
        read_settings(text)


def test_reading_can_stop_early(tmp_path):
    write_mp4(tmp_path / "clip.mp4", [picture(i) for i in range(20)], 8)
    assert read_video(tmp_path / "clip.mp4", max_frames=7)[0].shape[0] == 7


@pytest.mark.parametrize("comment", ["", "no json", "[1]"])
def test_comments_of_other_programs_are_no_settings(tmp_path, comment):
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24")))
        container.mux(stream.encode(None))
    assert read_settings(tmp_path / "clip.mp4") is None


def test_clips_are_read_at_another_size_and_rate(tmp_path):
    path = tmp_path / "clip.mp4"
    write_mp4(path, (picture(i) for i in range(0, 240, 4)), 30)  # two seconds
    slower = np.stack(list(read_pictures(path, 64, 48, 8)))
    assert slower.shape == (17, 48, 64, 3)
    reds = slower[:, 24, 8, 0].astype(int)
    assert np.abs(reds - [4 * min(59, round(30 * i / 8)) for i in range(17)]).max() <= 4 * 15 / 8 + 8
    assert abs(reds[-1] - 4 * 59) < 8  # the last picture is there
    faster = np.stack(list(read_pictures(path, 64, 48, 60)))
    assert abs(len(faster) - 120) <= 1
    square = np.stack(list(read_pictures(path, 32, 32, 8)))
    assert square.shape == (17, 32, 32, 3)
    # Cut on both sides: the border between the two colours stays in the middle.
    assert np.abs(square[8, :, :14].astype(int) - slower[8, 24, 8]).max() < 12
    assert np.abs(square[8, :, 18:].astype(int) - slower[8, 24, 56]).max() < 12


def test_pictures_are_read_as_clips_of_one(tmp_path):
    for name, mode in (("a.png", "RGBA"), ("b.jpg", "L"), ("c.webp", "RGB"), ("d.png", "P")):
        Image.fromarray(picture()).convert(mode).save(tmp_path / name)
        (got,) = read_pictures(tmp_path / name, 32, 24, 8)
        assert (got.shape, got.dtype) == ((24, 32, 3), np.uint8)
    turned = Image.fromarray(picture())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by a quarter before it is shown
    turned.save(tmp_path / "turned.jpg", exif=exif)
    (got,) = read_pictures(tmp_path / "turned.jpg", 48, 64, 8)
    assert got[:28].mean(axis=(0, 1))[0] > 200
    assert got[36:].mean(axis=(0, 1))[1] > 150


def test_what_is_neither_picture_nor_clip(tmp_path):
    empty, text, cut, wide = (tmp_path / name for name in ("empty.png", "text.png", "cut.png", "wide.png"))
    empty.write_bytes(b"")
    text.write_text("no picture at all")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:3000])
    Image.new("RGB", (20_000, 4)).save(wide)
    for path, message in ((empty, "empty"), (text, "damaged"), (cut, "cannot read"), (wide, "8192 a side")):
        with pytest.raises(ValueError, match=f"{path.name}.*{message}|{message}.*{path.name}"):
            list(read_pictures(path, 64, 48, 8))
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"sound\.mp4 has no video stream"):
        list(read_pictures(sound, 64, 48, 8))


def test_odd_sizes_fit():
    assert fit(np.zeros((1, 20_000, 3), np.uint8), 64, 48).shape == (48, 64, 3)
    assert fit(np.zeros((37, 5, 3), np.uint8), 8, 8).shape == (8, 8, 3)
