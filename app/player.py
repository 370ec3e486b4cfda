"""The page's own components: the player, the choice of a unit type and the settings of a film.

Each is Gradio's HTML component with a fixed template and a script. The templates hold no value, because Gradio
evaluates what it finds in them: prompts reach the page only through `textContent` and `setAttribute`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.limits import MORE, MOST_SECONDS
from app.plans import choices, kinds
from videoar import playworld

_STATIC = Path(__file__).parent / "static"
LOGO = _STATIC / "logo.svg"
# The player's script, in parts that share one scope.
_PLAYER = (
    *("stream", "archive", "frames", "block", "timeline", "verdict", "pane", "player", "long"),
    *("share", "history", "drop", "blind", "present"),
)


def unit_player(models: Sequence[str] = ()) -> gr.HTML:
    """Shows films while they are made. Its value names a job; everything else comes through that job's stream.

    models: names of what is served, if there are several.
    Value: {"job": name, "status": "starting", "done", "stopped" or "failed", ...the figures of a finished run}.
    """
    fields = {name: {"type": "string"} for name in ("job", "status")}
    schema = {"type": "object", "properties": fields, "additionalProperties": {}}
    scripts = tuple(f"{part}.js" for part in _PLAYER)
    prompts = list(playworld.example_prompts())
    return _component("player", scripts, schema, plans=choices(), prompts=prompts, models=list(models))


def unit_picker() -> gr.HTML:
    """A choice of unit types. Its value is a plan such as "cube"; whoever reads it must check it."""
    schema = {"type": "string", "description": "a plan: cube, frame, key_detail, scale or full, also with numbers"}
    return _component("picker", ("block.js", "picker.js"), schema, value="cube", plans=choices())


def contender_list(models: Sequence[str] = ()) -> gr.HTML:
    """The contenders of a comparison. Its value is a list of dictionaries; whoever reads it must check it.

    models: names of what is served, the usual one first, if there are several.
    """
    fields = {name: {"type": "number"} for name in ("steps", "window", "guidance")}
    fields |= {name: {"type": "string"} for name in ("plan", "model")}
    item = {"type": "object", "properties": fields, "required": ["plan"]}
    schema = {"type": "array", "items": item, "description": "two to five contenders, each with a plan"}
    value = [{"plan": "cube:2x2x2"}, {"plan": "frame:1"}]
    # In the script: if its value comes before its tab is opened, Gradio forgets what else a component was given.
    offered = json.dumps({"usual": value, "kinds": kinds(), "models": list(models)})
    return _component("contenders", ("block.js", "contenders.js"), schema, f"const offered = {offered};", value=value)


def film_options() -> gr.HTML:
    """What else a film has beside prompt, plan, steps and seed. Its value is a dictionary, to be checked."""
    fields = {name: {"type": kind, "description": text} for name, (kind, text) in MORE.items()}
    schema = {"type": "object", "properties": fields, "additionalProperties": {}}
    return _component("options", ("options.js",), schema, value={}, most_seconds=MOST_SECONDS)


def settings_list() -> gr.HTML:
    """What it takes to make a film again. Its value is the settings as a dictionary."""
    return _component("settings", ("settings.js",), {"type": "object", "additionalProperties": {}})


def head() -> str:
    """What goes into the page's head, the style sheet among it: Gradio would rewrite it if it were given as `css`."""
    return f"{_read('head.html')}<style>{_read('style.css')}</style>"


def _component(name: str, scripts: tuple[str, ...], schema: dict[str, Any], script: str = "", **kwargs: Any) -> gr.HTML:
    component = gr.HTML(
        label=name.capitalize(),  # not shown; names the value in the API
        html_template=_read(f"{name}.html"),
        js_on_load="\n".join([script, *map(_read, scripts)]),
        apply_default_css=False,
        elem_id=f"va-{name}",
        **kwargs,
    )
    # Set on the object: Gradio writes a stub file beside the source of every subclass of a component.
    component.api_info = lambda: schema  # type: ignore[method-assign]
    return component


def _read(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")
