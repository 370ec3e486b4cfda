"""Storyboards: what files say, what is refused, and when a scene begins."""

from __future__ import annotations

import math

import pytest

from videoar.events import ClipStarted, PromptSwitched, UnitStarted
from videoar.generate import generate
from videoar.request import Request, Scene, resolve
from videoar.storyboard import parse_storyboard, read_storyboard

TEXT = """
# a comment
0 a red ball rolls

12.5\ttwo  fish\u2028swim
1:05   at night: 3 fish
1:00:00s the end
"""


def test_text_and_json_say_the_same(tmp_path):
    scenes = (Scene(0, "a red ball rolls"), Scene(12.5, "two fish swim"), Scene(65, "at night: 3 fish"))
    assert parse_storyboard(TEXT) == (*scenes, Scene(3600, "the end"))
    path = tmp_path / "story.json"
    path.write_text('[[0, "a red ball rolls"], [12.5, "two fish swim"],\n [65, "at night: 3 fish"]]', "utf-8-sig")
    assert read_storyboard(path) == scenes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: there is no scene"),
        ("# nothing\n", "line 1: there is no scene"),
        ("3 a red ball", "line 1: the first scene begins at time 0"),
        ("0 a\n\nlater b", "line 3: begins with a time, .* not 'later'"),
        ("0 a\n-1 b", "line 2: begins with a time"),
        ("0 a\n5 b\n5 c", "line 3: .* 5 s does not follow 5 s"),
        ("0 a\n5", "line 2: the prompt is empty"),
        ("0 " + "x" * 501, "line 1: .*501 characters"),
        ("0 a\n99:99:99:99 b", "line 2: begins with a time"),
        ("0 a\n999999999 b", "line 2: the time of a scene"),
        ('[[0, "a"],\n [5 "b"]]', "line 2: this is not JSON"),
        ('[[0, "a"], {"time": 5}]', "scene 2: is a pair"),
        ('[[0, "a"], ["5", "b"]]', "scene 2: the time of a scene is a number"),
        ('[[0, "a"], [NaN, "b"]]', "scene 2: the time of a scene is a number"),
        ('[[0, "a"], [5, 7]]', "scene 2: the prompt is text"),
        ("[]", "line 1: there is no scene"),
    ],
)
def test_errors_name_line_and_reason(tmp_path, text, message):
    path = tmp_path / "story.txt"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=f"^story.txt, {message}") as caught:
        read_storyboard(path)
    assert len(str(caught.value)) < 250


def test_files_that_are_no_storyboards(tmp_path):
    path = tmp_path / "story.txt"
    path.write_bytes(b"0 a\n5 caf\xe9")
    with pytest.raises(ValueError, match=r"line 2: .* UTF-8"):
        read_storyboard(path)
    path.write_bytes(b"0 a\n" * 300_000)
    with pytest.raises(ValueError, match="too large"):
        read_storyboard(path)
    for unreadable in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(ValueError, match="cannot read the storyboard"):
            read_storyboard(unreadable)


@pytest.mark.parametrize(
    "storyboard", [5, "0 a", [5], [(1, "a", 2)], [(1, "a"), (1, "b")], [(0, "a")], [(math.inf, "a")], [(True, "a")]]
)
def test_unusable_storyboards_of_requests(storyboard):
    with pytest.raises(ValueError, match=r"storyboard|scene"):
        Request("a", storyboard=storyboard)


def test_films_are_long_enough_for_their_storyboard(tiny_model):
    request = Request("a", storyboard=[[5.2, "b"]])  # at 8 frames a second: picture 42, rounded up to 1 + 4n
    assert resolve(tiny_model, request).frames == 45 + 16
    with pytest.raises(ValueError, match=r"at 5\.2 s begins after the film ends, at 5\.125 s"):
        resolve(tiny_model, Request("a", frames=41, storyboard=[[5.2, "b"]]))
    resolve(tiny_model, Request("a", endless=True, storyboard=[[500, "b"]]))


@pytest.mark.parametrize("plan", ["frame", "frame:2", "cube", "key_detail:2", "scale:2"])
def test_scenes_begin_at_the_first_border_after_their_time(tiny_model, plan):
    story = [(1.0, "two fish"), (1.01, "a ball"), (4.0, "a ball"), (5.0, "fish at night")]
    request = Request("a red ball", plan, seed=1, steps=1, frames=81, storyboard=story)
    switched, begun, borders = [], 0, {}
    for event in generate(tiny_model, request, previews=False, keep=False):
        if isinstance(event, ClipStarted):
            assert event.settings()["storyboard"] == [list(scene) for scene in story]
        elif isinstance(event, PromptSwitched):
            switched.append(event)
        elif isinstance(event, UnitStarted):
            first, end = event.frame_range
            if first >= begun:  # no picture before this unit is half done, none after it has begun
                borders[event.index] = first
            begun = max(begun, end)
    if plan == "cube":  # of a half's four cubes the first one is a border
        borders = {index: first for index, first in borders.items() if index % 4 == 0}
    # The second scene follows too soon for the first one to be seen; the third one changes nothing.
    assert [event.prompt for event in switched] == ["a ball", "fish at night"]
    for event, due in zip(switched, (8, 40), strict=True):
        assert event.first_frame == min(first for first in borders.values() if first >= due)
        assert borders[event.index] == event.first_frame
        assert event.seconds > 0


def test_a_prompt_can_rule_until_the_first_scene():
    assert parse_storyboard("4 at night", "by day") == (Scene(0, "by day"), Scene(4, "at night"))
    assert parse_storyboard("0 at night", "by day") == (Scene(0, "at night"),)
