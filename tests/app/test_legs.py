"""A long film in several calls is one film to whoever reads its messages."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from app.films import film_so_far
from app.legs import Legs
from app.wire import messages
from videoar.race import race
from videoar.request import Request

from .fake import FakeModel, generate

MODEL = FakeModel()


def legs(request: Request) -> tuple[Legs, list[Request]]:
    """The film, and the legs that were asked for so far."""
    asked: list[Request] = []

    def make(leg: Request):
        asked.append(leg)
        yield from messages(race(MODEL, [leg], generate, keep=False))

    return Legs(make, MODEL, request), asked


@pytest.mark.parametrize("start", [None, np.zeros((5, 128, 128, 3), np.uint8)])
def test_everything_counts_on(start):
    film, asked = legs(Request("a ball", "cube", seed=3, frames=149, start=start))
    sent = list(film)
    heads = [head for head, _ in sent]
    assert [head["kind"] for head in heads].count("clip") == 1
    assert heads[0]["panes"][0]["frames"] == (149 if start is None else 148)
    units = [head["unit"] for head in heads if head["kind"] == "done"]
    assert units == list(range(len(units)))
    clocks = [head["clock"] for head in heads[1:]]
    assert clocks == sorted(clocks)
    assert (heads[-1]["kind"], heads[-1]["status"]) == ("end", "done")
    assert len(film_so_far(sent)) == heads[0]["panes"][0]["frames"]
    assert len({leg.seed for leg in asked}) == len(asked) == 3
    assert [leg.start is None for leg in asked] == [start is None, False, False]


def test_the_next_leg_goes_on_from_the_last_pictures():
    film, asked = legs(Request("a ball", "frame", seed=3, frames=101))
    sent = list(film)
    shown = film_so_far(sent)
    given = asked[1].start
    assert len(given) == 29
    begun = len(shown) - 4 * (len(shown) - 61) // 4
    assert np.abs(given[-1].astype(float) - shown[begun - 1]).mean() < 1


def test_prompts_take_over_where_they_are_due():
    story = [(2.0, "at dusk"), (9.0, "at night")]
    film, asked = legs(Request("by day", "cube", seed=3, endless=True, storyboard=story))
    heads = []
    for head, _ in itertools.islice(film, 500):
        heads.append(head)
        if head["kind"] == "done" and head["unit"] == 20:
            film.switch("in the morning")
        if head["kind"] == "done" and head["unit"] == 33:
            break
    film.stop()
    assert [leg.prompt for leg in asked] == ["by day", "at dusk", "in the morning"]
    assert [[scene.prompt for scene in leg.storyboard] for leg in asked] == [["at dusk"], ["at night"], []]
    last = [head for head in heads if head["kind"] == "switch"][-1]
    assert (last["unit"], last["prompt"]) == (32, "in the morning")


def test_a_failing_leg_ends_the_film():
    film, asked = legs(Request("fail", "cube", seed=3, endless=True))
    heads = [head for head, _ in film]
    assert (heads[-1]["kind"], heads[-1]["status"]) == ("end", "failed")
    assert len(asked) == 1
