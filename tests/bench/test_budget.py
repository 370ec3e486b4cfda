"""A budget ends where it says, and expectations go by the slowest film so far."""

from __future__ import annotations

import math

import pytest

from bench.budget import MARGIN, RESERVE_S, Budget, OutOfTime, Pace


def test_a_budget_counts_from_the_start_and_keeps_a_reserve():
    now = [2.0]
    budget = Budget(10, lambda: now[0])
    assert budget.left() == 8 - RESERVE_S
    budget.check()
    now[0] = 10 - RESERVE_S
    with pytest.raises(OutOfTime):
        budget.check()


def test_without_a_budget_there_is_no_end():
    budget = Budget(None, lambda: 1e9)
    assert budget.left() == math.inf
    budget.check()


def test_the_slowest_film_sets_the_pace():
    pace = Pace()
    assert pace.expect(1e12, decoded=True) == 0  # nothing is known
    pace.learn(2e12, diffusion_s=4.0, decode_s=1.0)
    pace.learn(2e12, diffusion_s=3.0, decode_s=1.5)
    assert pace.expect(1e12) == pytest.approx(MARGIN * 2.0)
    assert pace.expect(3e12, decoded=True) == pytest.approx(MARGIN * (6.0 + 1.5))
