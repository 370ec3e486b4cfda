"""The film of a comparison: who is where at which time, and files that say how they were made."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from videoar.events import Patch
from videoar.montage import Montage
from videoar.takes import Begun, Done, Ended, Moment, Take
from videoar.video import read_settings, read_video

SIDE, FRAMES, FPS = 128, 5, 4.0
RED, BLUE = (220, 30, 30), (30, 30, 220)


def take(label: str, colour: tuple[int, int, int], unit_s: float, wait_s: float = 0.0, **changes) -> Take:
    """Two units, top and bottom; a contender that waits sees `at` run ahead of its clock."""
    moments, pictures = [], np.full((FRAMES, SIDE // 2, SIDE, 3), colour, np.uint8)
    for unit in range(2):
        start, done = unit * (unit_s + wait_s), (unit + 1) * unit_s + unit * wait_s
        region = (0, unit * SIDE // 2, SIDE, SIDE // 2)
        moments.append(Moment(start, unit * unit_s, Begun(unit, region, (0, FRAMES))))
        moments.append(Moment(done, (unit + 1) * unit_s, Patch(0, pictures, *region, preview=False)))
        moments.append(Moment(done, (unit + 1) * unit_s, Done(unit, unit_s, 0.0, 0.0, 10)))
    moments.append(Moment(done, 2 * unit_s, Ended()))
    settings = {"prompt": "a red “ball” = 50%; ça\nva", "plan": label, "seed": 2**60}
    return Take(**{"label": label, "width": SIDE, "height": SIDE, "frames": FRAMES, "fps": FPS, "units": 2,
                   "settings": settings, "moments": moments} | changes)  # fmt: skip


@pytest.fixture
def takes():
    return [take("fast", RED, 0.5), take("slow", BLUE, 1.0, wait_s=1.0)]


def shown(montage: Montage, pane: int, t: float) -> list[bool]:
    """Whether the upper and the lower half of a pane's screen are painted at that time."""
    picture = montage._panes[pane].picture(t).astype(int)
    width, height = montage._cell
    top, colour = round(1.5 * montage._font), (RED, BLUE)[pane]
    return [bool(np.abs(picture[top + int(height * place), width // 2] - colour).max() < 8) for place in (0.25, 0.75)]


def test_panes_run_by_device_time(takes):
    montage = Montage(takes)
    seen = {t: (shown(montage, 0, t), shown(montage, 1, t)) for t in (0.4, 0.6, 1.1, 2.05)}
    assert seen == {
        0.4: ([False, False], [False, False]),
        0.6: ([True, False], [False, False]),
        1.1: ([True, True], [True, False]),
        2.05: ([True, True], [True, True]),
    }


def test_panes_run_as_they_were_seen(takes):
    montage = Montage(takes, "real")
    assert shown(montage, 1, 2.9) == [True, False]
    assert shown(montage, 1, 3.05) == [True, True]
    assert montage.duration > Montage(takes).duration


def test_a_faster_race_leaves_the_films_as_they_are(takes):
    slow, fast = Montage(takes), Montage(takes, speed=4)
    assert shown(fast, 1, 1.05 / 4) == shown(slow, 1, 1.05) == [True, False]
    film_s = FRAMES / FPS
    assert (slow.duration - slow.race_s, fast.duration - fast.race_s) == pytest.approx((film_s, film_s))


def test_in_film_time_there_are_only_the_finished_films(takes):
    montage = Montage(takes, "film")
    assert montage.duration == FRAMES / FPS
    assert shown(montage, 0, 0.0) == shown(montage, 1, 0.0) == [True, True]


def test_a_pane_is_the_same_whichever_time_was_asked_for_before(takes):
    montage, other = Montage(takes), Montage(takes)
    late = montage._panes[0].picture(2.0)
    early = montage._panes[0].picture(0.6)
    assert np.array_equal(early, other._panes[0].picture(0.6))
    assert not np.array_equal(early, late)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_files_play_and_hold_their_settings(takes, tmp_path, suffix):
    montage, path = Montage(takes, speed=4), tmp_path / f"compare{suffix}"
    montage.write(path)
    if suffix == ".mp4":
        video, fps = read_video(path)
        seconds, size = len(video) / fps, video.shape[2:0:-1]
    else:
        image = Image.open(path)
        durations = []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()  # until then WebP does not say how long
            durations.append(image.info["duration"])
        seconds, size = sum(durations) / 1000, image.size
    assert seconds == pytest.approx(montage.duration, abs=0.1)
    assert size == tuple(montage.clip().size)
    assert size[0] > 2 * SIDE
    if suffix != ".webp":  # FFmpeg does not read animated WebP
        assert read_settings(path) == montage.settings()
    else:
        assert '"sync": "device"' in Image.open(path).getexif()[0x010E]
    assert montage.settings()["comparison"][1]["seed"] == 2**60


def test_stopped_and_failed_films_keep_their_place(takes):
    failed = take("broken", BLUE, 1.0, moments=[Moment(0.0, 0.0, Begun(0, (0, 0, 8, 8), (0, 1))),
                                                Moment(0.2, 0.2, Ended("out of memory"))])  # fmt: skip
    stopped = take("stopped", RED, 1.0, moments=list(takes[0].moments)[:3])
    montage = Montage([takes[0], failed, stopped])
    montage.clip().get_frame(montage.duration - 0.01)
    assert montage._panes[1]._status(9.0) == "Failed: out of memory"
    assert montage._panes[2]._status(float("inf")) == "first picture 0.5 s, stopped at 0.5 s"


def test_films_of_several_sizes_and_a_long_label_fit(takes):
    patch = Patch(0, np.full((3, 30, 50, 3), 99, np.uint8), 0, 0, 50, 30, preview=True)
    small = take("x" * 400, RED, 1.0, width=50, height=30, moments=[Moment(0.1, 0.1, patch)])
    clip = Montage([*takes, small, takes[0], takes[1]]).clip()
    assert all(side % 2 == 0 for side in clip.size)
    assert clip.get_frame(0.2).shape == (clip.size[1], clip.size[0], 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"sync": "time"}, "synchronised by"), ({"speed": 0}, "above 0"), ({"speed": float("nan")}, "above 0"),
     ({"takes": []}, "nothing to compare")],
)  # fmt: skip
def test_what_cannot_be_shown_is_said(takes, changes, message):
    with pytest.raises(ValueError, match=message):
        Montage(**{"takes": takes} | changes)
    with pytest.raises(ValueError, match="written as"):
        Montage(takes).write("compare.avi")
