"""The page's form, as a link, a file or an earlier run fills it in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.limits import MOST_SECONDS, MOST_STEPS
from videoar.plan import PlanSpec

# The form: prompt, seed, new seed or not, tab, plan, steps, contenders, what else one film has, the file it goes on
# from, and the fold that file is in.
Form = tuple[Any, Any, Any, Any, Any, Any, Any, Any, Any, Any]
FORM_AS_IT_IS: Form = (gr.skip(),) * 10


def filled(asked: dict[str, Any], models: Sequence[str], info: Any = None, source: str | None = None) -> Form:
    """The form with the settings that `read_link` or `read_file` gave; what they do not say stays as it is.

    models: names of those that are served, if there are several; info: of the usual one, if it is there; source: the
    file that the film goes on from, if it is at hand.
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
        gr.skip() if steps is None else gr.Slider(value=steps, maximum=most_steps(info, steps)),
        contenders if several else gr.skip(),
        asked.get("more", gr.skip()),
        source if alone else gr.skip(),  # another film would go on from what is still there
        gr.Accordion(open=True) if alone and (source or "continued_from" in asked) else gr.skip(),
    )


def missing(asked: dict[str, Any], models: Sequence[str], info: Any = None, source: str | None = None) -> str:
    """A sentence about the settings that `filled` has no place for, or ""."""
    alone, here = len(asked["contenders"]) == 1, [*models, *([info.name] if info and not models else [])]
    known = here[:1] if alone else here
    others = dict.fromkeys(each["model"] for each in asked["contenders"] if each.get("model"))
    parts = [f"the model {name}" for name in others if here and name not in known]
    if info and asked.get("size", (info.width, info.height)) != (info.width, info.height):
        parts.append("the size of {} × {} pixels".format(*asked["size"]))
    if "cut_from" in asked:
        parts.append(f"its {asked['cut_from']:g} seconds, of which {MOST_SECONDS} are possible here")
    if "negative_prompt" in asked:
        parts.append("the negative prompt")
    if "continued_from" in asked and source is None:
        name = asked["continued_from"][:80]
        parts.append(f"the file that the film goes on from: choose {name} once more, below the length")
    return f"What does not come back: {'; '.join(parts)}." if parts else ""


def most_steps(info: Any, steps: int = 0) -> int:
    """Where the slider for steps ends: it is coarse if it goes far beyond what the model needs."""
    return min(MOST_STEPS, max(8, 2 * info.steps if info else 0, int(steps)))


def _choice(plan: str) -> str:
    """A plan as the picker knows it, "cube" for "cube:2x2x2"; others stay as they are."""
    spec = PlanSpec.parse(plan)
    return spec.kind if spec == PlanSpec.parse(spec.kind) else str(spec)
