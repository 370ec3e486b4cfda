"""The real loop behind the page: what the browser is sent is the film that the library made."""

from __future__ import annotations

import numpy as np
import pytest

from app.device import EngineDevice
from app.films import film_so_far
from app.plans import choices
from tests.videoar.tiny import make_model
from videoar.request import Request
from videoar.video import read_settings


@pytest.fixture(scope="module")
def device():
    device = EngineDevice(make_model)
    device.start()
    yield device
    device.close()


@pytest.mark.parametrize("plan", [choice["value"] for choice in choices() if choice["value"] != "scale"] + ["scale:2"])
def test_the_messages_of_a_film_repaint_it(device, plan, tmp_path):
    from videoar.generate import ClipFinished, generate

    request = Request("a ball", plan=plan, seed=5)
    sent = list(device.run([request]))
    true = next(event for event in generate(device.model(), request) if isinstance(event, ClipFinished)).video
    shown = film_so_far(sent)
    assert shown.shape == true.shape
    # The tiny model's films are noise, the worst case for JPEG; a wrong place or time would be off by 50 and more.
    assert np.abs(shown.astype(float) - true).mean() < 8
    assert not any(head["preview"] for head, _ in [m for m in sent if m[0]["kind"] == "paint"][-1:])
    head, body = next(message for message in sent if message[0]["kind"] == "film")
    (tmp_path / "film.mp4").write_bytes(body)
    assert read_settings(tmp_path / "film.mp4") == head["settings"]


def test_a_film_can_be_stopped(device):
    film = device.run([Request("a ball", plan="frame", seed=5)])
    kinds = []
    for head, _ in film:
        kinds.append(head["kind"])
        if kinds.count("done") == 1:
            film.stop()
    assert "film" not in kinds
    assert "end" not in kinds


def test_a_plan_that_does_not_fit_is_refused(device):
    with pytest.raises(ValueError, match="fewer cubes"):
        device.run([Request("a ball", plan="cube:9x1x1")])


def test_a_full_engine_says_that_it_is_busy():
    from videoar.engine import Engine

    device = EngineDevice(make_model, lambda model: Engine(model, active=1, waiting=0))
    device.start()
    films = [device.run([Request("a ball", seed=1)])]
    with pytest.raises(ValueError, match="server is busy"):
        device.run([Request("a ball", seed=2)])
    films[0].stop()
    device.close()
