"""Messages survive the wire, name everything the player needs, and repaint the film that was sent."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from app.films import film_so_far
from app.plans import choices, plan_picture
from app.wire import messages, pack, unpack
from videoar.plan import Grid, PlanSpec
from videoar.race import race
from videoar.request import Request
from videoar.video import read_settings

from .fake import FakeModel, film_of, generate

PLANS = [choice["value"] for choice in choices()]


def film(plan: str = "cube", seed: int = 3):
    return list(messages(race(FakeModel(), [Request("a ball", plan=plan, seed=seed)], generate)))


def test_pack_and_unpack_are_inverse():
    sent = [({"kind": "a", "text": "ü\n\0"}, b""), ({"kind": "b"}, bytes(range(256)) * 3)]
    assert list(unpack(b"".join(pack(*message) for message in sent))) == sent


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_not_sent(value):
    with pytest.raises(ValueError, match="JSON"):
        pack({"seconds": value})


@pytest.mark.parametrize("plan", PLANS)
def test_a_film_in_messages(plan):
    sent = film(plan)
    kinds = [head["kind"] for head, _ in sent]
    total = len(sent[0][0]["panes"][0]["plan"]["units"])
    assert kinds[0] == "clip"
    assert kinds[-2:] == ["film", "end"]
    assert kinds.count("unit") == kinds.count("done") == total
    assert [head["unit"] for head, _ in sent if head["kind"] == "done"] == list(range(total))
    json.dumps([head for head, _ in sent], allow_nan=False)
    for head, body in sent:
        if head["kind"] == "paint":
            assert sum(head["sizes"]) == len(body)
            x, y, width, height = head["area"]
            picture = Image.open(io.BytesIO(body[: head["sizes"][0]]))
            assert picture.width <= width
            assert picture.height <= height
            assert 0 <= x <= 128 - width
            assert 0 <= y <= 128 - height


@pytest.mark.parametrize("plan", PLANS)
def test_replaying_the_messages_gives_the_film(plan):
    shown = film_so_far((head, body) for head, body in film(plan))
    true = film_of(3)
    assert shown is not None
    assert shown.shape == true.shape
    # JPEG at the edges of the stripes; a wrong rectangle or frame would be off by far more.
    assert np.abs(shown.astype(float) - true).mean() < 4


def test_replaying_the_beginning_keeps_what_is_painted():
    sent = film("cube")
    parts = [index for index, (head, _) in enumerate(sent) if head["kind"] == "done"]
    three = film_so_far(sent[: parts[2] + 1])  # of the four cubes of the first half
    assert len(three) == 13
    assert three[:, :64].any(axis=(1, 2, 3)).all()
    assert not three[:, 64:, 64:].any()
    half = film_so_far(sent[: parts[3] + 1])
    assert np.abs(half.astype(float) - film_of(3)[:13]).mean() < 4
    assert len(film_so_far(sent[: parts[5]])) == 29  # the rest is held
    assert film_so_far(sent[:1]) is None
    assert film_so_far([]) is None


def test_the_file_holds_its_settings(tmp_path):
    head, body = film()[-2]
    (tmp_path / "film.mp4").write_bytes(body)
    settings = read_settings(tmp_path / "film.mp4")
    assert settings == head["settings"]
    assert settings["prompt"] == "a ball"
    assert settings["seed"] == 3
    assert settings["plan"] == "cube:2x2x2"


def test_a_failure_is_the_last_message():
    sent = list(messages(race(FakeModel(), [Request("fail")], generate)))
    assert sent[-1][0] | {"clock": 0} == {
        "kind": "end",
        "pane": 0,
        "clock": 0,
        "status": "failed",
        "message": "The device is out of memory: choose a smaller size.",
    }


def test_large_seeds_keep_their_digits():
    seed = 2**63 - 1
    assert film(seed=seed)[0][0]["panes"][0]["seed"] == str(seed)


@pytest.mark.parametrize("plan", [*PLANS, "cube:3x2x5", "frame:3", "scale:2"])
def test_the_picture_of_a_plan_covers_the_grid(plan):
    grid = Grid(7, 9, 5)
    picture = plan_picture(PlanSpec.parse(plan).build(grid))
    finest = max(unit["level"] for unit in picture["units"])
    painted = np.zeros(grid, int)
    for unit in picture["units"]:
        for start, stop in unit["runs"]:
            if unit["level"] == finest:
                painted[start:stop, slice(*unit["rows"]), slice(*unit["cols"])] += 1
            assert 0 <= start < stop <= grid.T
        assert unit["rows"][1] <= grid.H
        assert unit["cols"][1] <= grid.W
    assert (painted == 1).all()


def test_frames_apart_are_boxes_apart():
    picture = plan_picture(PlanSpec.parse("key_detail:4").build(Grid(8, 8, 8)))
    assert picture["units"][1]["runs"] == [[1, 2], [5, 6]]
