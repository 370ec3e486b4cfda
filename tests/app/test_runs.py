"""The handlers without a page: ending a film early, in every state it may be in."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import gradio as gr
import pytest

from app.device import EngineDevice
from app.hub import Hub
from app.runs import Runs

from .fake import FakeModel, make_device

ASKED = ("a ball", "cube", 4, 7, False, {})


def visitor(name: str | None = "page") -> SimpleNamespace:
    return SimpleNamespace(session_hash=name)


@pytest.fixture
def slow():
    device = make_device(0.4)
    device.start()
    yield Runs(device, Hub())
    device.close()


def job_of(runs: Runs, name: str = "page"):
    return runs._hub.of(name)[0]


def wait_for_units(job, count: int) -> None:
    end = time.monotonic() + 20
    while sum(head["kind"] == "done" for head, _ in job.messages()) < count:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_closing_a_handler_is_quick_and_ends_the_film(slow):
    handler = slow.generate(*ASKED, visitor())
    next(handler)
    job = job_of(slow)
    wait_for_units(job, 1)
    began = time.monotonic()
    handler.close()
    assert time.monotonic() - began < 0.1
    assert job.stopped
    assert job.wait(10)
    assert job.outcome["status"] == "stopped"


def test_stop_keeps_the_frames_that_are_whole(slow):
    handler = slow.generate(*ASKED, visitor())
    next(handler)
    wait_for_units(job_of(slow), 4)
    player, film, settings, _ = next(slow.stop(visitor()))
    assert player["status"] == "stopped"
    assert film.endswith(".mp4")
    assert settings["kept_frames"] == 13
    assert settings["stopped_after_units"] == len(player["summary"]["contenders"][0]["units"]) >= 4
    assert next(slow.stop(visitor()))[0] == player


def test_a_closed_page_saves_nothing(slow):
    handler = slow.generate(*ASKED, visitor())
    next(handler)
    job = job_of(slow)
    wait_for_units(job, 4)
    slow.leave(visitor())
    assert slow._hub.of("page") == []
    end = time.monotonic() + 10
    while any(thread.name == "film" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not job.films


def test_a_film_that_waits_for_the_model_can_be_stopped():
    loading = threading.Event()
    device = EngineDevice(lambda: loading.wait(30) and FakeModel())
    device.start()
    runs = Runs(device, Hub())
    handler = runs.generate(*ASKED, visitor())
    assert next(handler)[0]["status"] == "starting"
    player, film, _, _ = next(runs.stop(visitor()))
    assert player["status"] == "stopped"
    assert film is None
    loading.set()


def test_who_comes_without_a_page_shares_it_with_nobody(slow):
    handler = slow.generate(*ASKED, visitor(None))
    next(handler)
    next(slow.stop(visitor(None)))
    slow.leave(visitor(None))
    assert len(slow._hub) == 1
    handler.close()


def test_only_uploaded_files_are_read(slow):
    with pytest.raises(gr.Error, match="uploaded"):
        next(slow.generate(*ASKED, visitor(), {"path": "/etc/hostname"}))
