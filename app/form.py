"""The page's form, as a link, a file or an earlier run fills it in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.limits import MOST_STEPS
from videoar.plan import PlanSpec

# The form: prompt, seed, new seed or not, tab, plan, steps, contenders, what else one film has.
Form = tuple[Any, Any, Any, Any, Any, Any, Any, Any]
FORM_AS_IT_IS: Form = (gr.skip(),) * 8


def filled(asked: dict[str, Any], models: Sequence[str]) -> Form:
    """The form with the settings that `read_link` or `read_file` gave; what they do not say stays as it is.

    models: names of those that are served.
    """
    # A film of a model that is not here is made with the one that is.
    contenders = [{k: v for k, v in each.items() if k != "model" or v in models} for each in asked["contenders"]]
    alone, several = len(contenders) == 1, len(contenders) > 1
    steps = contenders[0].get("steps") if alone else None
    return (
        gr.skip() if asked["prompt"] is None else asked["prompt"],
        gr.skip() if asked["seed"] is None else asked["seed"],
        asked["seed"] is None,
        gr.Tabs(selected="compare" if several else "film") if contenders else gr.skip(),
        _choice(contenders[0]["plan"]) if alone else gr.skip(),
        gr.skip() if steps is None else gr.Slider(value=steps, maximum=MOST_STEPS),
        contenders if several else gr.skip(),
        asked.get("more", gr.skip()),
    )


def _choice(plan: str) -> str:
    """A plan as the picker knows it, "cube" for "cube:2x2x2"; others stay as they are."""
    spec = PlanSpec.parse(plan)
    return spec.kind if spec == PlanSpec.parse(spec.kind) else str(spec)
