"""The unit types that the page offers, with the words and pictures that explain them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from videoar.events import ClipStarted
from videoar.plan import Grid, Plan, PlanSpec, runs

# The built-in model's token grid; for other models the proportions of the little pictures still tell the story.
USUAL_GRID = Grid(8, 8, 8)

_WORDS = {
    "cube": ("Cubes", "Eight boxes of time and space, one after another."),
    "frame": ("Frames", "One picture after another, whole screens."),
    "key_detail": ("Key frames first", "Every fourth picture, then those in between."),
    "scale": ("Scales", "The whole film, coarse first, then sharper."),
    "full": ("All at once", "One unit: what ordinary video diffusion does."),
}


# What a comparison offers: for every kind of plan its name and what its numbers say.
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cube": ("Cubes", ("parts in time", "parts in height", "parts in width")),
    "frame": ("Frames", ("frames per unit",)),
    "key_detail": ("Key frames", ("one key frame in",)),
    "scale": ("Scales", ("scales",)),
    "full": ("All at once", ()),
}


def choices() -> list[dict[str, Any]]:
    """For each unit type its value, title, sentence and picture, the default first."""
    return [
        {
            "value": plan,
            "title": title,
            "sentence": sentence,
            "picture": plan_picture(PlanSpec.parse(plan).build(USUAL_GRID)),
        }
        for plan, (title, sentence) in _WORDS.items()
    ]


def kinds() -> list[dict[str, Any]]:
    """For each kind of plan its name, the names of its numbers and their usual values."""
    return [
        {"kind": kind, "name": called, "numbers": list(numbers), "usual": list(PlanSpec.parse(kind).args)}
        for kind, (called, numbers) in _KINDS.items()
    ]


def name(plan: PlanSpec) -> str:
    """What a plan is called beside others, such as "Cubes 2×2×2"."""
    size = "×".join(map(str, plan.args))
    return {
        "cube": f"Cubes {size}",
        "frame": "Frames" if plan.args == (1,) else f"Chunks of {size} frames",
        "key_detail": f"Key frames, 1 in {size}",
        "scale": f"{size} scales",
        "full": "All at once",
    }[plan.kind] + (", reordered" if plan.order else "")


def labels(clips: Sequence[ClipStarted]) -> list[str]:
    """What the contenders of a run are called: their plans, and what else tells them apart."""

    def said(clip: ClipStarted) -> dict[str, str]:
        window = "all" if clip.window is None else f"{clip.window} latent frames"
        return {
            "steps": f"{clip.steps} steps",
            "window": f"context {window}",
            "guidance_scale": f"guidance {clip.guidance_scale:g}",
            "model": clip.model,
            "seed": f"seed {clip.seed}",
        }

    fields = ("steps", "window", "guidance_scale", "model")
    differ = [field for field in fields if len({getattr(c, field) for c in clips}) > 1]
    if not differ and len(clips) > len({clip.plan.spec for clip in clips}):
        differ = ["seed"]
    return [" · ".join([name(clip.plan.spec), *(said(clip)[field] for field in differ)]) for clip in clips]


def plan_picture(plan: Plan) -> dict[str, Any]:
    """What the page draws of a plan: the grid and every unit as boxes, in finest-level tokens.

    A unit whose frames are not neighbours (key-detail) has one run `[start, stop)` of frames per box.
    """
    units = []
    for unit in plan.units:
        scale = plan.scales[unit.level]
        rows = [min(row * scale, plan.grid.H) for row in unit.rows]
        cols = [min(col * scale, plan.grid.W) for col in unit.cols]
        frames = [frame - plan.start for frame in unit.frames]
        box = {"level": unit.level, "runs": [list(run) for run in runs(frames)], "rows": rows, "cols": cols}
        units.append(box | {"tokens": unit.size()})
    return {"grid": list(plan.grid), "scales": list(plan.scales), "units": units}
