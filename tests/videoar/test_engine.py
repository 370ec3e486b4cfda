"""The engine: sharing, stopping, failing, queueing."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from videoar.engine import Busy, Engine
from videoar.events import ClipFailed, ClipFinished, PromptSwitched, StepDone, UnitDecoded
from videoar.generate import generate
from videoar.request import Request


@pytest.fixture
def make_engine(tiny_model):
    engines = []

    def make(**options):
        engines.append(Engine(tiny_model, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


class Gate:
    """A stand-in for generate that waits for a permit before each event."""

    def __init__(self):
        self.permits = threading.Semaphore(0)
        self.log = []

    def __call__(self, model, request):
        try:
            for i in range(3):
                self.permits.acquire(timeout=10)
                self.log.append(request.prompt)
                yield StepDone(0, 1, i, 3)
            yield ClipFinished(0, 1, 0.0, 0.0, np.zeros((1, 2, 2, 3), np.uint8))
        finally:
            self.log.append(f"closed {request.prompt}")


def test_clips_side_by_side_equal_clips_alone(tiny_model, make_engine):
    requests = [Request("a red ball", plan, seed=i) for i, plan in enumerate(("cube", "frame", "full"))]
    alone = [list(generate(tiny_model, request))[-1].video for request in requests]
    engine = make_engine()
    sessions = [engine.submit(request) for request in requests]
    videos = [list(session)[-1].video for session in sessions]
    assert all(np.array_equal(a, b) for a, b in zip(alone, videos, strict=True))
    assert all(session.device_s > 0 for session in sessions)
    assert engine.load() == (0, 0)


def test_stop_does_not_block_and_others_go_on(make_engine):
    gate = Gate()
    engine = make_engine(run=gate)
    first, second = engine.submit(Request("first")), engine.submit(Request("second"))
    start = time.perf_counter()
    first.stop()  # the device is busy (waiting for a permit): stopping does not care
    first.stop()
    assert time.perf_counter() - start < 0.5
    assert not any(isinstance(event, ClipFinished) for event in first)
    assert next(first, None) is None
    for _ in range(8):
        gate.permits.release()
    assert isinstance(list(second)[-1], ClipFinished)
    assert "closed second" in gate.log
    for _ in range(100):
        if "closed first" in gate.log or "first" not in gate.log:
            break
        time.sleep(0.02)
    else:
        pytest.fail("the stopped clip was never closed")


def test_a_full_queue_says_busy(make_engine):
    gate = Gate()
    engine = make_engine(active=1, waiting=1, run=gate)
    first, second = engine.submit(Request("first")), engine.submit(Request("second"))
    with pytest.raises(Busy, match="try again"):
        engine.submit(Request("third"))
    for _ in range(6):
        gate.permits.release()
    assert isinstance(list(first)[-1], ClipFinished)
    assert isinstance(list(second)[-1], ClipFinished)
    for _ in range(3):
        gate.permits.release()
    assert isinstance(list(engine.submit(Request("third")))[-1], ClipFinished)


def test_time_is_shared_fairly(make_engine):
    turns = []
    begin = threading.Event()

    def run(model, request):
        begin.wait(10)
        for i in range(6):
            time.sleep(0.02 if request.prompt == "slow" else 0.005)
            turns.append(request.prompt)
            yield StepDone(0, 1, i, 6)

    engine = make_engine(run=run)
    sessions = [engine.submit(Request(name)) for name in ("slow", "quick")]
    begin.set()
    for session in sessions:
        list(session)
    # The quick one's six steps cost less than two of the slow one's, so it is done long before the third.
    last_quick = max(i for i, name in enumerate(turns) if name == "quick")
    assert turns[:last_quick].count("slow") <= 3


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("boom"), "RuntimeError"),
        (ValueError("choose another plan"), "choose another plan"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory"),
    ],
)
def test_one_sessions_failure_does_not_affect_others(tiny_model, make_engine, error, message):
    def run(model, request):
        if request.prompt == "bad":
            yield StepDone(0, 1, 0, 1)
            raise error
        yield from generate(model, request)

    engine = make_engine(run=run)
    bad, good = engine.submit(Request("bad")), engine.submit(Request("good", "frame", seed=1))
    last = list(bad)[-1]
    assert isinstance(last, ClipFailed)
    assert message in last.message
    assert isinstance(list(good)[-1], ClipFinished)
    assert isinstance(list(engine.submit(Request("good", "frame")))[-1], ClipFinished)


def test_unusable_requests_are_refused_at_once(make_engine):
    with pytest.raises(ValueError, match="multiple"):
        make_engine().submit(Request("a", height=72))


def test_a_session_that_is_thrown_away_stops(make_engine):
    gate = Gate()
    engine = make_engine(active=1, run=gate)
    engine.submit(Request("forgotten"))  # nobody keeps it
    for _ in range(4):
        gate.permits.release()
    assert isinstance(list(engine.submit(Request("kept")))[-1], ClipFinished)


def test_closing_ends_everything(tiny_model):
    engine = Engine(tiny_model)
    session = engine.submit(Request("a red ball"))
    engine.close()
    assert not any(isinstance(event, ClipFailed) for event in session)
    with pytest.raises(Busy):
        engine.submit(Request("a red ball"))


def test_prompts_switch_while_the_engine_works(tiny_model, make_engine):
    engine = make_engine()
    session = engine.submit(Request("a red ball", "frame", seed=1, steps=1, endless=True))
    for event in session:
        if isinstance(event, UnitDecoded) and event.index == 1:
            session.switch("two fish")
        if isinstance(event, PromptSwitched):
            break
    assert (event.prompt, event.index > 1) == ("two fish", True)
    with pytest.raises(ValueError, match="empty"):
        session.switch("")
    session.stop()
    for _ in session:
        pass
    session.switch("too late")
    alone = engine.race([Request("a red ball", "frame", seed=1, steps=1, endless=True)], unread=4, keep=False)
    alone.switch("two fish")
    assert next(turn.event.prompt for turn in alone if isinstance(turn.event, PromptSwitched)) == "two fish"
    alone.stop()
    race = engine.race([Request("a red ball", "frame", seed=1)] * 2)
    with pytest.raises(ValueError, match="comparison"):
        race.switch("two fish")


def test_an_endless_film_waits_for_its_reader(tiny_model, make_engine):
    engine = make_engine()
    session = engine.submit(Request("a red ball", "frame", seed=1, steps=1, endless=True), previews=False)
    while session._job.events.qsize() < 100:
        time.sleep(0.02)
    time.sleep(0.5)
    assert session._job.events.qsize() <= 130
    first = [next(session) for _ in range(100)]
    assert sum(isinstance(event, UnitDecoded) for event in first) > 20
    session.stop()


def test_a_long_film_need_not_be_kept(make_engine):
    *_, last = make_engine().submit(Request("a red ball", "frame", seed=1, steps=1), keep=False)
    assert isinstance(last, ClipFinished)
    assert last.video.shape == (0, 64, 64, 3)
