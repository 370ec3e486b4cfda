"""The page under an emulation of ZeroGPU: the device API on loopback, the real wrapper, a forked process per film."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from gradio_client import Client
from gradio_client.exceptions import AppError

from app.server import free_port
from videoar.video import read_settings, read_video

from .fake import film_of

ROOT = Path(__file__).parents[2]
GOOD = {"prompt": "a ball", "plan": "cube", "steps": 2, "seed": 7, "randomise": False}


class DeviceApi:
    """What the `spaces` package talks to: it schedules every call at once, on a GPU that is not there."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.port = free_port("127.0.0.1", None)
        api = FastAPI()
        api.post("/startup-report")(self._startup)
        api.post("/schedule")(self._schedule)
        api.post("/allow")(self._allow)
        api.post("/release")(self._release)
        self._server = uvicorn.Server(uvicorn.Config(api, port=self.port, log_level="error"))
        threading.Thread(target=self._server.run, daemon=True).start()

    def count(self, name: str) -> int:
        return sum(call == name for call, _ in self.calls)

    def close(self) -> None:
        self._server.should_exit = True

    def _startup(self) -> dict:
        self.calls.append(("startup", None))
        return {}

    def _schedule(self, cgroupPath: str, taskId: int = 0, durationSeconds: int | None = None) -> dict:
        self.calls.append(("schedule", durationSeconds))
        return {"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "MIG-none", "allowToken": f"token{len(self.calls)}"}

    def _allow(self, allowToken: str, pid: int) -> dict:
        self.calls.append(("allow", pid))
        return {}

    def _release(self, allowToken: str, fail: bool = False) -> dict:
        self.calls.append(("release", fail))
        return {}


@pytest.fixture(scope="module")
def api() -> Iterator[DeviceApi]:
    api = DeviceApi()
    yield api
    api.close()


def run(kind: str, api: DeviceApi) -> Iterator[tuple[Client, subprocess.Popen]]:
    environment = os.environ | {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{api.port}",
        "OMP_NUM_THREADS": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    command = [sys.executable, "-m", "tests.app.zerogpu_server", kind]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next((line.strip() for line in process.stdout if line.startswith("http")), None)
        assert url, "the page did not start"
        yield Client(url, verbose=False), process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        finally:
            process.kill()


def wait_for(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def fake(api) -> Iterator[Client]:
    for client, _ in run("fake", api):
        yield client


def test_a_film_comes_back_from_the_other_process(fake, api):
    player, seed, film, settings = fake.predict(**GOOD, api_name="/generate")
    assert player["status"] == "done"
    assert seed == 7
    assert np.abs(read_video(film)[0].astype(float) - film_of(7)).mean() < 6
    assert read_settings(film) == settings
    assert api.count("startup") == 1
    assert api.count("schedule") == 1
    assert api.calls[-1] == ("release", False)
    # The visitor's quota is asked for a start and a little more, not for the default minute.
    assert next(seconds for call, seconds in api.calls if call == "schedule") < 30


def test_a_comparison_is_one_call(fake, api):
    before = api.count("schedule")
    contenders = [{"plan": "cube"}, {"plan": "frame"}]
    player, _, films = fake.predict("a ball", contenders, 7, False, api_name="/compare")
    assert player["status"] == "done"
    assert [len(contender["units"]) for contender in player["summary"]["contenders"]] == [8, 8]
    for film in films:
        assert np.abs(read_video(film)[0].astype(float) - film_of(7)).mean() < 6
    assert api.count("schedule") == before + 1


def test_a_long_film_is_a_chain_of_calls(fake, api):
    before = api.count("schedule")
    player, _, film, settings = fake.predict(**GOOD, more={"seconds": 12}, api_name="/generate")
    assert (player["status"], settings["frames"]) == ("done", 97)
    shown, _ = read_video(film)
    assert len(shown) == 97
    assert np.abs(shown[:29].astype(float) - film_of(7)).mean() < 6
    assert api.count("schedule") == before + 2


def test_what_does_not_fit_the_model_is_refused_before_a_gpu_is_asked_for(fake, api):
    before = api.count("schedule")
    with pytest.raises(AppError, match="fewer cubes"):
        fake.predict(**GOOD | {"plan": "cube:9x1x1"}, api_name="/generate")
    assert api.count("schedule") == before


def test_a_failing_film_says_why(fake):
    with pytest.raises(AppError, match="out of memory"):
        fake.predict(**GOOD | {"prompt": "fail"}, api_name="/generate")


def test_cancelling_gives_the_gpu_back(fake, api):
    scheduled, released = api.count("schedule"), api.count("release")
    job = fake.submit(**GOOD, api_name="/generate")
    wait_for(lambda: api.count("schedule") > scheduled)
    time.sleep(0.3)  # into the first units of eight
    job.cancel()
    wait_for(lambda: api.count("release") > released)
    assert fake.predict(**GOOD, api_name="/generate")[0]["status"] == "done"


def test_the_real_loop_runs_in_a_forked_process(api):
    for client, process in run("tiny", api):
        player, _, film, _ = client.predict(**GOOD, api_name="/generate")
        assert player["status"] == "done"
        assert read_video(film)[0].shape == (17, 64, 64, 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
