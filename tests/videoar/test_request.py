"""What a request refuses, and what it comes to."""

from __future__ import annotations

import itertools
import math

import pytest

from videoar.request import LARGEST_SEED, Request, resolve

NUMBERS = ("steps", "seed", "height", "width", "frames", "window", "sink")
NOT_WHOLE = (True, False, math.nan, math.inf, -math.inf, -1, 10**30, 10**5000, 1.5, "4", [4], b"4")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", NOT_WHOLE, ids=range(len(NOT_WHOLE)))
def test_whole_numbers(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        Request("a ball", **{name: value})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [True, math.nan, math.inf, -0.1, 31, 10**400, "3", [1]], ids=range(8))
def test_guidance(value):
    with pytest.raises(ValueError, match="guidance_scale"):
        Request("a ball", guidance_scale=value)


@pytest.mark.parametrize("prompt", ["", "   ", "\x00\x07\n", "\ud800", None, 5, True, ["a"], "x" * 501, "x" * 10_000])
def test_prompts_that_cannot_be_used(prompt):
    with pytest.raises(ValueError, match="prompt"):
        Request(prompt)


def test_prompts_are_cleaned():
    assert Request("  a\x00 red\tball\n\x1b[31m rolls\u2028on ").prompt == "a red ball [31m rolls on"
    assert Request("ein roter Bäll 🎈").prompt == "ein roter Bäll 🎈"
    assert len(Request("x" * 500).prompt) == 500
    with pytest.raises(ValueError, match="negative"):
        Request("a", negative_prompt=None)


def test_plans_are_named_in_full():
    assert Request("a", "cube").plan == "cube:2x2x2"
    with pytest.raises(ValueError, match="plan"):
        Request("a", plan="spiral")


def test_extremes_are_allowed():
    Request("a", seed=0)
    assert Request("a", seed=LARGEST_SEED).seed == LARGEST_SEED


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 72}, "multiple"),
        ({"width": 8}, "multiple"),
        ({"frames": 18}, "4n"),
        ({"plan": "cube:2x8x2"}, "fit"),
        ({"plan": "scale:6"}, "needs"),
        ({"frames": 5, "plan": "key_detail:4"}, "needs"),
        ({"window": 3, "sink": 3}, "sink"),
    ],
)
def test_requests_that_do_not_fit_the_model(tiny_model, fields, message):
    with pytest.raises(ValueError, match=message):
        resolve(tiny_model, Request("a", **fields))


def test_defaults_come_from_the_model(tiny_model):
    settings = resolve(tiny_model, Request("a"))
    assert (settings.height, settings.width, settings.frames, settings.fps) == (64, 64, 17, 8)
    assert settings.sigmas == pytest.approx((1, 5 / 6))
    assert settings.window is None
    assert resolve(tiny_model, Request("a")).seed != settings.seed


@pytest.mark.parametrize(("frames", "plan"), [(17, "cube:2x2x2"), (5, "cube:2x2x2"), (1, "frame:1")])
def test_without_a_plan_the_models_best_that_fits_is_taken(tiny_model, frames, plan):
    settings = resolve(tiny_model, Request("a", frames=frames))
    assert settings.request.plan == str(settings.plan.spec) == plan


def test_a_sink_without_a_window_is_refused_and_not_forgotten(tiny_model):
    with pytest.raises(ValueError, match="a sink needs a window"):
        resolve(tiny_model, Request("a", sink=1))
    assert resolve(tiny_model, Request("a", sink=0)).sink == 0
    assert resolve(tiny_model, Request("a", sink=1, window=3)).sink == 1


def test_films_longer_than_the_models_clips_roll(tiny_model):
    settings = resolve(tiny_model, Request("a", frames=41))
    assert settings.window == 5
    assert [plan.grid.T for plan in settings.slabs()] == [4, 4, 3]
    assert settings.unit_total() == 3 * 8
    full = resolve(tiny_model, Request("a", "full", frames=41))
    assert [len(plan.units[0].frames) for plan in full.slabs()] == [2, 2, 2, 2, 2, 1]
    assert full.unit_total() == 6


@pytest.mark.parametrize("plan", ["cube", "cube:4x1x2", "frame", "frame:2", "key_detail:2", "scale:2", "full"])
@pytest.mark.parametrize(("window", "sink"), [(8, 0), (8, 3), (6, 1), (5, 2), (4, 1)])
def test_units_and_context_share_the_window(tiny_model, plan, window, sink):
    settings = resolve(tiny_model, Request("a", plan, frames=81, window=window, sink=sink))
    slabs = list(settings.slabs())
    assert sum(len(slab.units) for slab in slabs) == settings.unit_total()
    at_once = slabs[0].grid.T if plan[0] in "ksf" and plan[:2] != "fr" else len(slabs[0].units[0].frames)
    assert at_once + sink < window
    assert settings.plan == slabs[0]


def test_windows_without_room_say_what_would_do(tiny_model):
    with pytest.raises(ValueError, match="at least 7"):
        resolve(tiny_model, Request("a", "key_detail:4", frames=81, window=6, sink=2))
    resolve(tiny_model, Request("a", "key_detail:4", frames=81, window=7, sink=2))
    with pytest.raises(ValueError, match="at least 2"):
        resolve(tiny_model, Request("a", "frame", endless=True, window=1))


def test_endless_films(tiny_model):
    settings = resolve(tiny_model, Request("a", endless=True))
    assert (settings.frames, settings.unit_total(), settings.window) == (None, None, 5)
    first = list(itertools.islice(settings.slabs(), 3))
    assert first == list(resolve(tiny_model, Request("a", frames=45)).slabs())
    with pytest.raises(ValueError, match="leave one"):
        Request("a", endless=True, frames=17)
    for value in (1, "yes", None):
        with pytest.raises(ValueError, match="endless"):
            Request("a", endless=value)
