"""What only a trained model can show."""

from __future__ import annotations

import numpy as np
import pytest

from videoar.checkpoint import load_model
from videoar.generate import Request, generate


@pytest.mark.parametrize("plan", ["cube", "frame"])
def test_no_jump_where_a_film_continues_another(plan):
    """The joint is as smooth as the film around it, and nothing like a cut to another film of the same prompt."""
    model = load_model(device="cpu")
    prompt = "a red ball rolls right across a sunny meadow"

    def film(seed: int, **fields) -> np.ndarray:
        return list(generate(model, Request(prompt, plan, seed=seed, **fields), previews=False))[-1].video.astype(float)

    clip, other = film(1), film(3)
    rest = film(2, start=clip.astype(np.uint8), frames=13)
    colors = np.concatenate([clip, rest]).mean((1, 2))
    steps = np.linalg.norm(np.diff(colors, axis=0), axis=1)
    joint = steps[len(clip) - 1]
    assert joint <= 1.2 * np.delete(steps, len(clip) - 1).max()
    assert np.abs(rest[0] - clip[-1]).mean() < 0.75 * np.abs(other[0] - clip[-1]).mean()
