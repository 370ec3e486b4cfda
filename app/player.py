"""The page's own components: the player, the choice of a unit type and the settings of a film.

Each is Gradio's HTML component with a fixed template and a script. The templates hold no value, because Gradio
evaluates what it finds in them: prompts reach the page only through `textContent` and `setAttribute`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.limits import MORE, MOST_SECONDS
from app.plans import choices, offered
from videoar import playworld

_STATIC = Path(__file__).parent / "static"
LOGO = _STATIC / "logo.svg"


def unit_player() -> gr.HTML:
    """Shows films while they are made. Its value names a job; everything else comes through that job's stream.

    Value: {"job": name, "status": "starting", "done", "stopped" or "failed", ...the figures of a finished run}.
    """
    fields = {name: {"type": "string"} for name in ("job", "status")}
    schema = {"type": "object", "properties": fields, "additionalProperties": {}}
    parts = ("stream", "frames", "block", "timeline", "verdict", "pane", "player", "long", "present")
    scripts = tuple(f"{part}.js" for part in parts)
    return _component("player", scripts, schema, plans=choices(), prompts=list(playworld.example_prompts()))


def unit_picker() -> gr.HTML:
    """A choice of unit types. Its value is a plan such as "cube"; whoever reads it must check it."""
    schema = {"type": "string", "description": "a plan: cube, frame, key_detail, scale or full, also with numbers"}
    return _component("picker", ("block.js", "picker.js"), schema, value="cube", plans=choices())


def contender_list() -> gr.HTML:
    """The contenders of a comparison. Its value is a list of dictionaries; whoever reads it must check it."""
    fields = {name: {"type": "number"} for name in ("steps", "window", "guidance")}
    item = {"type": "object", "properties": {"plan": {"type": "string"}} | fields, "required": ["plan"]}
    schema = {"type": "array", "items": item, "description": "two to five contenders, each with a plan"}
    value = [{"plan": "cube:2x2x2"}, {"plan": "frame:1"}]
    return _component("contenders", ("block.js", "contenders.js"), schema, value=value, usual=value, offered=offered())


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


def _component(name: str, scripts: tuple[str, ...], schema: dict[str, Any], **kwargs: Any) -> gr.HTML:
    component = gr.HTML(
        label=name.capitalize(),  # not shown; names the value in the API
        html_template=_read(f"{name}.html"),
        js_on_load="\n".join(map(_read, scripts)),
        apply_default_css=False,
        elem_id=f"va-{name}",
        **kwargs,
    )
    # Set on the object: Gradio writes a stub file beside the source of every subclass of a component.
    component.api_info = lambda: schema  # type: ignore[method-assign]
    return component


def _read(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")
