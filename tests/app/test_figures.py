"""The figures of a run, and what is read back from its films."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from app.figures import Figures, read_back
from app.plans import labels
from app.wire import messages, mp4
from videoar import playworld
from videoar.events import ClipStarted
from videoar.playworld import render, world_from_attributes
from videoar.race import race
from videoar.request import Request

from .fake import FakeModel, generate

CONTENDERS = [Request("a ball", "cube", seed=3, steps=2), Request("a ball", "full", seed=3)]


def run(until: str = "end", count: int = 2):
    """The figures after so many messages of a kind."""
    figures, seen = Figures(), 0
    for head, _ in messages(race(FakeModel(), CONTENDERS, generate), len(CONTENDERS)):
        figures.add(head)
        seen += head["kind"] == until
        if seen == count:
            break
    return figures.summary(1.5)


def test_the_summary_of_a_comparison():
    summary = run()
    cube, full = summary["contenders"]
    assert [c["label"] for c in (cube, full)] == ["Cubes 2×2×2 · 2 steps", "All at once · 4 steps"]
    assert [c["status"] for c in (cube, full)] == ["done", "done"]
    assert len(cube["units"]) == cube["units_total"] == 8
    assert summary["first_picture"] in (0, 1)
    assert summary["first_finished"] == min((0, 1), key=lambda i: summary["contenders"][i]["device_s"])
    for c in (cube, full):
        assert 0 < c["first_picture_s"] <= c["device_s"]
        assert c["pictures_per_s"] == pytest.approx(29 / c["device_s"], rel=0.01)
        ends = [unit["ended_s"] for unit in c["units"]]
        assert ends == sorted(ends)
        assert all(unit["began_s"] <= unit["ended_s"] for unit in c["units"])
    assert cube["cache_bytes"] == 7000
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_summary_of_what_was_stopped():
    summary = run("done", 1)
    assert summary["first_finished"] is None
    assert {c["status"] for c in summary["contenders"]} == {"stopped"}
    assert sum(len(c["units"]) for c in summary["contenders"]) == 1
    assert Figures().summary(0.1)["contenders"] == []


def test_a_film_is_read_back():
    prompt = "a red rocket rises under a starry night sky"
    world = world_from_attributes(playworld.parse_caption(prompt), random.Random(0))
    video = render([world], frames=29, size=128, fps=8)[0].numpy()
    rows = {row["attribute"]: row for row in read_back(mp4(video, 8.0, {}), prompt)}
    assert {name: rows[name]["wanted"] for name in ("color", "subject", "motion")} == {
        "color": "red",
        "subject": "rocket",
        "motion": "rises",
    }
    assert all(row["right"] for row in rows.values())
    other = read_back(mp4(video, 8.0, {}), "a blue fish drifts left deep under the ocean")
    assert not any(row["right"] for row in other)


def test_other_prompts_are_not_read_back():
    assert read_back(b"", "zzz") == []


def test_labels_say_what_tells_contenders_apart():
    def called(*requests):
        clips = [turn.event for turn in race(FakeModel(), requests, generate) if isinstance(turn.event, ClipStarted)]
        return labels(clips)

    assert called(Request("a", "cube:4x2x2", steps=8)) == ["Cubes 4×2×2"]
    assert called(*(Request("a", "frame", steps=s) for s in (2, None))) == ["Frames · 2 steps", "Frames · 4 steps"]
    other = replace(FakeModel(), info=replace(FakeModel().info, name="other model"))
    turns = race([FakeModel(), other], [Request("a", "full")] * 2, generate)
    clips = [turn.event for turn in turns if isinstance(turn.event, ClipStarted)]
    assert labels(clips) == ["All at once · stripes", "All at once · other model"]
