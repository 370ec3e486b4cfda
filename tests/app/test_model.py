"""The model is warmed up before anybody asks for a film, and a failing warm-up does not keep it away."""

from __future__ import annotations

import pytest
import torch

from app import model as model_module
from app.model import load_model
from tests.videoar.tiny import make_model


@pytest.fixture
def tiny(monkeypatch):
    model = make_model()
    monkeypatch.setattr("videoar.checkpoint.load_model", lambda path, device, **options: options or model)
    threads = torch.get_num_threads()
    yield model
    torch.set_num_threads(threads)


def test_the_model_is_warmed_up(tiny, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    tried = []
    measure = model_module._first_unit_seconds
    monkeypatch.setattr(
        model_module,
        "_first_unit_seconds",
        lambda model: tried.append(torch.get_num_threads()) or measure(model),
    )
    assert load_model() is tiny
    assert tried[1:] == [3, 1]
    assert torch.get_num_threads() in (1, 3)


@pytest.mark.parametrize(("many", "one", "chosen"), [(1.0, 2.0, 3), (1.9, 2.0, 1), (60.0, 2.0, 1)])
def test_several_threads_must_win_clearly(tiny, monkeypatch, many, one, chosen):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    times = iter((9.0, many, one))
    monkeypatch.setattr(model_module, "_first_unit_seconds", lambda model: next(times))
    load_model()
    assert torch.get_num_threads() == chosen


def test_what_the_environment_says_counts(tiny, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    load_model()
    assert torch.get_num_threads() == before


def test_a_failing_warm_up_is_logged(tiny, monkeypatch, caplog):
    def fail(model):
        raise RuntimeError("no")

    monkeypatch.setattr(model_module, "_warm_up", fail)
    assert load_model() is tiny
    assert "warming it up failed" in caplog.text


def test_without_a_warm_up_nothing_runs(tiny, monkeypatch):
    monkeypatch.setattr(model_module, "_warm_up", lambda model: pytest.fail("not wanted"))
    assert load_model(warm_up=False) is tiny


def test_options_reach_the_library(tiny):
    assert load_model(warm_up=False, offload="text", dtype="bfloat16") == {"offload": "text", "dtype": "bfloat16"}
