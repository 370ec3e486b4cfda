"""Starting and ending: ports, messages, signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from app.server import DEFAULT_PORT, free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture
def taken():
    """A port that somebody else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "app.py", *arguments]
    environment = os.environ | {"PATH": "", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def test_a_taken_port_is_refused_with_advice(taken):
    with pytest.raises(ValueError, match=rf"Port {taken} .* --port"):
        free_port("127.0.0.1", taken)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_that_do_not_exist(port):
    with pytest.raises(ValueError, match="from 1 to 65535"):
        free_port("127.0.0.1", port)


def test_without_a_wish_the_next_free_port_is_taken():
    first = free_port("127.0.0.1", None)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", first))
        other.listen()
        assert free_port("127.0.0.1", None) > first
    assert first >= DEFAULT_PORT


def test_the_script_refuses_a_taken_port(taken):
    process = start("--port", str(taken))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"Port {taken}" in error
    assert "Traceback" not in error


def test_a_model_that_is_not_there_is_said_before_a_page_is():
    process = start("--model", "/nope")
    output, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.splitlines()[-1] == "app.py: there is no model folder '/nope'"
    assert "http" not in output


def test_a_model_that_does_not_load_ends_the_page(tmp_path):
    process = start("--model", str(tmp_path))
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "The model did not load: this is not a complete model folder" in error
    assert error.splitlines()[-1] == "app.py: without a model there is nothing to serve."
    assert "Traceback" not in error


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM]])
def test_the_script_says_where_it_is_and_ends_cleanly(signals, tmp_path):
    os.mkfifo(tmp_path / "videoar.json")  # nobody writes to it: the model is loading for ever
    began = time.monotonic()
    process = start("--model", str(tmp_path))
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "VideoAR is at" in line)
        ready = time.monotonic() - began
        url = re.search(r"http://127\.0\.0\.1:\d+/", line).group()
        assert httpx.get(url).status_code == 200
        # Somebody still looks at the page: that must not keep the server from ending.
        with httpx.stream("GET", f"{url}gradio_api/heartbeat/visitor") as heartbeat:
            next(heartbeat.iter_text())
            ended = time.monotonic()
            for number in signals:
                process.send_signal(number)
            output, error = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Stopped." in output
        assert "Traceback" not in error
        assert time.monotonic() - ended < 15  # 2 s on an idle machine
        assert ready < 45  # 5 s on an idle machine; the bound is for a busy one
    finally:
        process.kill()
