"""Contenders on one device: fair at every moment, the same clips as alone, and independent of each other's failures."""

from __future__ import annotations

import time

import numpy as np
import pytest

from videoar.engine import Engine
from videoar.events import ClipFailed, ClipFinished, ClipStarted, StepDone, UnitDecoded
from videoar.generate import generate
from videoar.race import race
from videoar.request import Request

CONTENDERS = [
    Request("a red ball", "cube", seed=3),
    Request("a red ball", "frame", seed=3, window=2),
    Request("a red ball", "full", seed=3, steps=6, guidance_scale=4.0),
]


def clips(turns):
    return {turn.contender: turn.event.video for turn in turns if isinstance(turn.event, ClipFinished)}


def sleeper(seconds: dict[str, float], events: int = 6):
    """A stand-in for generate whose events take known times."""

    def run(model, request, overlap):
        for i in range(events):
            time.sleep(seconds[request.prompt])
            yield StepDone(0, 1, i, events)
        yield ClipFinished(0, 1, 0.0, 0.0, np.zeros((1, 2, 2, 3), np.uint8))

    return run


@pytest.fixture(scope="module")
def turns(tiny_model):
    return list(race(tiny_model, CONTENDERS))


def test_every_clip_is_the_one_made_alone(tiny_model, turns):
    raced = clips(turns)
    for i, request in enumerate(CONTENDERS):
        assert np.array_equal(raced[i], list(generate(tiny_model, request))[-1].video)


def test_all_are_announced_before_anybody_runs(turns):
    assert [type(turn.event) for turn in turns[:3]] == [ClipStarted] * 3
    assert [turn.contender for turn in turns[:3]] == [0, 1, 2]
    assert not any(isinstance(turn.event, ClipStarted) for turn in turns[3:])


def test_device_times_differ_by_one_event_at_most(turns):
    """Of the contenders that still run. An event is a part of a unit, so a unit's time is a generous bound."""
    used, running, longest = [0.0] * 3, {0, 1, 2}, 0.0
    for turn in turns:
        assert turn.device_s >= used[turn.contender]
        longest = max(longest, turn.device_s - used[turn.contender])
        used[turn.contender] = turn.device_s
        if isinstance(turn.event, ClipFinished):
            running.discard(turn.contender)
        times = [used[i] for i in running]
        assert not times or max(times) - min(times) <= longest + 1e-9
    assert not running


def test_what_the_timeline_shows_is_within_the_clock(turns):
    for contender in range(3):
        mine = [turn for turn in turns if turn.contender == contender]
        parts = [t.event for t in mine if isinstance(t.event, UnitDecoded)]
        assert 0 < sum(e.denoise_s + e.clean_s + e.decode_s for e in parts) <= mine[-1].device_s


def test_what_the_cache_keeps_is_reported(turns):
    cube, frame, full = (
        [t.event.cache_bytes for t in turns if t.contender == i and isinstance(t.event, UnitDecoded)] for i in range(3)
    )
    token = 2 * 48 * 4  # a key or value in two blocks, 48 wide, float32
    tokens = [12, 24, 36, 48, 56, 64, 72, 72]  # nobody follows the last cube: it is not kept
    assert cube == [2 * token * n for n in tokens]
    # A window needs a second copy of the keys, which is turned to their new places; two frames at most.
    assert frame == [3 * token * n for n in (16, 32, 32, 32, 16)]
    assert full == [0]


def test_the_slow_one_does_not_hold_the_quick_one_up():
    order = [
        turn.contender
        for turn in race(_Any(), [Request("slow"), Request("quick")], sleeper({"slow": 0.02, "quick": 0.005}))
    ]
    last_quick = max(i for i, contender in enumerate(order) if contender == 1)
    # One to be announced, and what the quick one's six steps come to.
    assert order[:last_quick].count(0) <= 4


def test_one_after_another_if_it_is_no_contest():
    turns = race(_Any(), [Request("a"), Request("b")], sleeper({"a": 0.001, "b": 0.0}, 3), one_by_one=True)
    assert [turn.contender for turn in turns][2:] == [0] * 3 + [1] * 3


def test_one_contenders_failure_leaves_the_others_going(tiny_model):
    def run(model, request, overlap):
        events = generate(model, request, overlap=overlap)
        yield next(events)
        if request.plan == "full":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        yield from events

    turns = list(race(tiny_model, CONTENDERS, run))
    failed = [turn for turn in turns if isinstance(turn.event, ClipFailed)]
    assert [(turn.contender, "out of memory" in turn.event.message) for turn in failed] == [(2, True)]
    assert set(clips(turns)) == {0, 1}


def test_leaving_early_closes_every_clip():
    closed = []

    def run(model, request, overlap):
        try:
            yield StepDone(0, 1, 0, 1)
            yield StepDone(0, 1, 0, 1)
        finally:
            closed.append(request.prompt)

    turns = race(_Any(), [Request("a"), Request("b")], run)
    next(turns), next(turns)
    turns.close()
    assert closed == ["a", "b"]


@pytest.mark.parametrize("count", [0, 6])
def test_the_number_of_contenders_is_limited(tiny_model, count):
    with pytest.raises(ValueError, match="1 to 5 contenders"):
        race(tiny_model, [Request("a")] * count)


def test_what_does_not_fit_is_refused_at_once(tiny_model):
    with pytest.raises(ValueError, match="multiple"):
        race(tiny_model, [Request("a"), Request("a", height=72)])


def test_the_engine_runs_a_race_like_a_clip(tiny_model, turns):
    engine = Engine(tiny_model)
    try:
        session = engine.race(CONTENDERS)
        raced = clips(session)
        assert session.device_s > 0
        with pytest.raises(ValueError, match="contenders"):
            engine.race([])
    finally:
        engine.close()
    assert all(np.array_equal(raced[i], video) for i, video in clips(turns).items())


class _Any:
    """A model of which nothing is asked."""


@pytest.fixture(autouse=True)
def _anything_fits_no_model(monkeypatch):
    import videoar.race

    real = videoar.race.resolve
    monkeypatch.setattr(videoar.race, "resolve", lambda model, r: None if isinstance(model, _Any) else real(model, r))
