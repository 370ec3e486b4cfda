"""What a comparison is remembered by: moments in order, and the figures that follow from them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from videoar.events import ClipFailed, Patch, UnitDecoded
from videoar.generate import generate
from videoar.painting import Painting
from videoar.race import race
from videoar.request import Request
from videoar.takes import Begun, Done, Ended, Recorder, timings

CONTENDERS = [Request("a red ball", "cube:1x2x1", seed=3), Request("a red ball", "frame:3", seed=3, steps=1)]


@pytest.fixture(scope="module")
def turns(tiny_model):
    return list(race(tiny_model, CONTENDERS))


@pytest.fixture(scope="module")
def takes(turns):
    recorder = Recorder(["cubes", "frames"])
    for turn in turns:
        recorder.add(turn)
    return recorder.takes()


def test_a_recording_holds_every_picture_and_the_whole_film(tiny_model, takes):
    for take, request in zip(takes, CONTENDERS, strict=True):
        painting = Painting(take.height, take.width)
        for moment in take.moments:
            if isinstance(moment.what, Patch):
                painting.paint(moment.what)
        assert np.array_equal(np.stack(painting.film()), list(generate(tiny_model, request))[-1].video)
        assert (take.label, take.settings["plan"]) in [("cubes", "cube:1x2x1"), ("frames", "frame:3")]


def test_moments_are_in_order_and_every_unit_begins_before_it_is_done(takes):
    for take in takes:
        moments = list(take.moments)
        for axis in ("at", "clock"):
            times = [getattr(moment, axis) for moment in moments]
            assert times == sorted(times)
        marks = [(type(m.what), m.what.unit) for m in moments if isinstance(m.what, (Begun, Done))]
        assert marks == [(kind, unit) for unit in range(take.units) for kind in (Begun, Done)]
        assert moments[-1].what == Ended()


def test_the_figures_are_those_of_the_events(turns, takes):
    figures = timings(takes)
    assert json.loads(json.dumps(figures)) == figures
    for i, contender in enumerate(figures["contenders"]):
        decoded = [turn for turn in turns if turn.contender == i and isinstance(turn.event, UnitDecoded)]
        assert [unit["denoise"] for unit in contender["units"]] == [round(t.event.denoise_s, 4) for t in decoded]
        assert contender["first_picture_clock"] == round(decoded[0].device_s, 4)
        assert contender["most_cache_bytes"] == max(t.event.cache_bytes for t in decoded) > 0
        assert contender["status"] == "done"
        assert contender["finished_clock"] >= contender["units"][-1]["done_clock"]
    clocks = {c["label"]: c["finished_clock"] for c in figures["contenders"]}
    assert figures["finished_first"] == min(clocks, key=lambda label: clocks[label])


def test_stopped_and_failed_contenders_win_nothing(turns):
    recorder = Recorder(["cubes", "frames"])
    for turn in turns[:6]:
        recorder.add(turn)
    recorder.add(turns[0].__class__(1, ClipFailed("out of memory"), 1.0))
    figures = timings(recorder.takes())
    assert [contender["status"] for contender in figures["contenders"]] == ["stopped", "failed"]
    assert figures["contenders"][1]["message"] == "out of memory"
    assert figures["finished_first"] is None


def test_endless_films_are_refused(tiny_model):
    turns = race(tiny_model, [Request("a", "frame", seed=1, endless=True, window=3)])
    with pytest.raises(ValueError, match="endless films cannot be compared"):
        Recorder(["endless"]).add(next(turns))
    turns.close()
