"""Files that are dropped on the page: what their settings come to."""

from __future__ import annotations

import json

import gradio as gr
import pytest
from PIL import Image

from app.export import montage
from app.form import missing
from app.hub import Hub
from app.opened import read_file
from app.runs import Runs
from app.wire import messages
from videoar.race import race
from videoar.request import Request
from videoar.video import write_mp4

from .fake import FakeModel, film_of, generate, make_device

FILM = {"prompt": "a red ball", "plan": "cube:4x2x2", "steps": 6, "seed": 11, "guidance_scale": 2.5, "window": 4}
CONTENDER = {"plan": "cube:4x2x2", "steps": 6, "guidance": 2.5, "window": 4}
MORE = {"films": 1, "guidance": 2.5, "window": 4}


class Visitor:
    session_hash = "page"


@pytest.fixture(scope="module")
def run() -> list:
    requests = [Request("a red ball", plan, seed=11) for plan in ("cube", "frame")]
    made = messages(race(FakeModel(), requests, generate), 2)
    return [({"at": head.get("clock", 0.0)} | head, body) for head, body in made if head["kind"] != "film"]


def write(path, value) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_a_film_and_the_json_beside_it_say_the_same(tmp_path):
    write_mp4(tmp_path / "clip.mp4", film_of(1)[:5], 8, FILM | {"model": "stripes"})
    read = read_file(tmp_path / "clip.mp4")
    contenders = [CONTENDER | {"model": "stripes"}]
    assert read == {"prompt": "a red ball", "seed": 11, "contenders": contenders, "more": MORE}
    assert read_file(write(tmp_path / "clip.json", FILM | {"model": "stripes"})) == read


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_the_film_of_a_comparison_says_its_contenders(run, tmp_path, suffix):
    montage(run, "film").write(tmp_path / f"race{suffix}")
    read = read_file(tmp_path / f"race{suffix}")
    assert (read["prompt"], read["seed"]) == ("a red ball", 11)
    assert [contender["plan"] for contender in read["contenders"]] == ["cube:2x2x2", "frame:1"]


def test_a_long_film_says_how_long_and_what_happens_when(tmp_path):
    story = {"storyboard": [[4.0, "a fish"]], "sink": 1, "fps": 8}
    read = read_file(write(tmp_path / "a.json", FILM | story | {"frames": 97}))["more"]
    assert read == MORE | {"sink": 1, "seconds": 97 / 8, "storyboard": "4 a fish"}
    assert read_file(write(tmp_path / "b.json", FILM | story | {"endless": True, "frames": None}))["more"]["endless"]


def test_scenes_of_any_frame_rate_come_back(tmp_path):
    story = {"storyboard": [[13 / 12, "a fish"], [4000.5, "a ball"]], "fps": 12, "endless": True}
    assert read_file(write(tmp_path / "a.json", FILM | story))["more"]["storyboard"] == "1.083333 a fish\n4000.5 a ball"


def test_one_film_with_several_seeds_is_one_film(tmp_path):
    films = [FILM | {"frames": 29, "fps": 8, "seed": seed} for seed in (11, 12)]
    read = read_file(write(tmp_path / "a.json", {"comparison": films}))
    assert (read["contenders"], read["more"]) == ([CONTENDER], MORE | {"films": 2})


@pytest.mark.parametrize(
    ("film", "says"),
    [
        ({}, ""),
        ({"width": 128, "height": 128, "model": "stripes"}, ""),
        ({"continued_from": "cat.png", "frames": 28, "fps": 8}, "choose cat.png once more"),
        ({"frames": 8001, "fps": 8}, "its 1000.12 seconds, of which 600 are possible here"),
        ({"width": 832, "height": 480}, "the size of 832 × 480 pixels"),
        ({"negative_prompt": "blur", "model": "wan"}, "the model wan; the negative prompt"),
    ],
)
def test_what_the_form_cannot_hold_is_said(tmp_path, film, says):
    read = read_file(write(tmp_path / "a.json", FILM | film))
    assert read["more"].get("seconds", 3.625) <= 600
    said = missing(read, (), FakeModel.info)
    assert says in said if says else said == ""


@pytest.mark.parametrize("name", ["comparison", "contenders"])
def test_timings_say_their_contenders(tmp_path, name):
    films = [FILM, FILM | {"plan": "full"}]
    said = {name: films if name == "comparison" else [{"label": "x", "settings": film} for film in films]}
    assert read_file(write(tmp_path / "timings.json", said))["contenders"] == [CONTENDER, CONTENDER | {"plan": "full"}]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "{", "no JSON text"),
        ("a.json", "[" * 100_000, "no JSON text"),
        ("a.json", "7", "no settings inside"),
        ("a.json", "{}", "no settings inside"),
        ("a.json", '{"contenders": [1, 2]}', "no settings inside"),
        ("a.json", json.dumps({"contenders": [FILM] * 6}), "compares 6 films"),
        ("a.json", json.dumps(FILM | {"steps": 200}), "steps is a whole number from 1 to 50"),
        ("a.json", json.dumps(FILM | {"plan": "pyramid"}), "unknown plan"),
        ("a.json", json.dumps(FILM | {"prompt": 3}), "prompt"),
        ("a.json", json.dumps(FILM | {"model": 3}), "model"),
        ("a.mp4", "no film", "not a video|no video|cannot|damaged"),
        ("a.gif", "no picture", "no GIF or WebP"),
        ("a.txt", "hello", "another one"),
    ],
)
def test_files_that_cannot_be_opened_are_explained(tmp_path, name, text, says):
    with pytest.raises(ValueError, match=says):
        read_file(write(tmp_path / name, text))


def test_a_picture_that_was_not_made_here_has_no_settings(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif", comment=b"holidays")
    with pytest.raises(ValueError, match="no settings inside"):
        read_file(tmp_path / "a.gif")


def test_the_page_fills_in_its_form(tmp_path):
    runs = Runs(make_device(), Hub())
    ((*untouched, prompt, seed, drawn, _, plan, steps, contenders, more, given, _),) = runs.open_file(
        write(tmp_path / "a.json", FILM | {"model": "somebody else's"}), Visitor()
    )
    assert untouched == [gr.skip()] * 4
    assert (prompt, seed, drawn, plan, steps.value) == ("a red ball", 11, False, "cube:4x2x2", 6)
    assert (contenders, more, given) == (gr.skip(), MORE, None)
    two = {"comparison": [FILM, FILM | {"model": "somebody else's"}]}
    ((*_, contenders, _, _, _),) = runs.open_file(write(tmp_path / "b.json", two), Visitor())
    assert contenders == [CONTENDER, CONTENDER]
    with pytest.raises(gr.Error, match="no JSON text"):
        next(runs.open_file(write(tmp_path / "c.json", "{"), Visitor()))
