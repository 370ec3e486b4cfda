"""Films are measured as they are, scaled where that is said, and given up when time is over."""

from __future__ import annotations

import pytest
import torch

from bench.budget import OutOfTime
from bench.films import Film, Films, film, summary
from bench.wan import build
from tests.bench.tiny import TINY
from videoar.generate import Request


def test_a_film_tells_of_every_unit():
    model, _ = build(TINY, torch.device("cpu"), torch.float32)
    made = film(model, Request("a ball", plan="frame", steps=2, seed=1))
    assert made.frames == TINY.frames
    assert len(made.units) == 3
    assert 0 < made.first_frame_s <= made.seconds
    assert 0 < sum(made.units) < made.seconds
    assert made.decode_s > 0


def test_a_film_is_given_up_in_the_middle():
    model, _ = build(TINY, torch.device("cpu"), torch.float32)
    steps = []

    def check():
        steps.append(1)
        if len(steps) == 4:
            raise OutOfTime

    with pytest.raises(OutOfTime):
        film(model, Request("a ball", plan="frame", seed=1), check)
    assert len(steps) == 4


def test_only_the_diffusion_is_stretched():
    short = Film(frames=9, seconds=26.0, first_frame_s=25.0, decode_s=5.0, units=(20.0,))
    assert short.stretched(100.0) == Film(frames=9, seconds=106.0, first_frame_s=105.0, decode_s=5.0, units=(100.0,))


def test_a_summary_is_of_the_films_that_there_are():
    def took(seconds, decode_s):
        return Film(8, seconds + decode_s, 1.0, decode_s, (seconds / 2, seconds / 2))

    films = Films(alone=[took(s, 0.0) for s in (2.0, 9.0, 4.0)])
    alone = summary(films, 8e12)
    assert (alone["runs"], alone["runs_end_to_end"], alone["runs_tiny_decoder"]) == (3, 0, 0)
    assert (alone["diffusion_s"], alone["diffusion_fps"], alone["unit_s_median"]) == (4.0, 2.0, 2.0)
    assert alone["achieved_tflop_per_s"] == 2.0
    assert not {"end_to_end_s", "decode_s", "peak_memory_gb", "end_to_end_fps_tiny_decoder"} & alone.keys()
    films.whole, films.peaks = [took(4.0, 6.0), took(4.0, 12.0)], [10**9, 2 * 10**9]
    decoded = summary(films, 8e12)
    assert (decoded["runs_end_to_end"], decoded["end_to_end_s"], decoded["decode_s"]) == (2, 13.0, 9.0)
    assert decoded["peak_memory_gb"] == 2.0
    films.light = [took(4.0, 0.0)]
    assert summary(films, 8e12)["end_to_end_fps_tiny_decoder"] == 2.0
