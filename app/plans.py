"""The unit types that the page offers, with the words and pictures that explain them."""

from __future__ import annotations

from typing import Any

from app.wire import plan_picture
from videoar.plan import Grid, PlanSpec

# The built-in model's token grid; for other models the proportions of the little pictures still tell the story.
_GRID = Grid(8, 8, 8)

_WORDS = {
    "cube": ("Cubes", "Eight boxes of time and space, one after another."),
    "frame": ("Frames", "One picture after another, whole screens."),
    "key_detail": ("Key frames first", "Every fourth picture, then those in between."),
    "scale": ("Scales", "The whole film, coarse first, then sharper."),
    "full": ("All at once", "One unit: what ordinary video diffusion does."),
}


def choices() -> list[dict[str, Any]]:
    """For each unit type its value, title, sentence and picture, the default first."""
    return [
        {
            "value": plan,
            "title": title,
            "sentence": sentence,
            "picture": plan_picture(PlanSpec.parse(plan).build(_GRID)),
        }
        for plan, (title, sentence) in _WORDS.items()
    ]
