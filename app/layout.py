"""The page: prompt and choices on one side, the player on the other, the finished film below."""

from __future__ import annotations

import html
import json
from typing import Any

import gradio as gr

from app.limits import MOST_STEPS
from app.player import LOGO, settings_list, unit_picker, unit_player
from app.runs import Runs
from videoar import playworld
from videoar.request import LONGEST_PROMPT

_CONCURRENT_FILMS = 2
_MOST_WAITING = 24
_EXAMPLES = 6
_SPELLING = {"colors": "colours"}
# Gradio's copies of finished films: looked at every ten minutes, kept for an hour.
_DELETE_CACHE = (600, 3600)

_HEADER = f"""
<header class="va-header">
  {LOGO.read_text(encoding="utf-8")}
  <div>
    <h1>VideoAR</h1>
    <p>A film is a block of time and space. Cut it into <strong>units</strong> and watch them arrive, one by one.</p>
  </div>
</header>
"""


def build_app(runs: Runs) -> gr.Blocks:
    """The Gradio page around the handlers in `runs`."""
    with gr.Blocks(title="VideoAR", analytics_enabled=False, delete_cache=_DELETE_CACHE) as page:
        gr.HTML(_HEADER, apply_default_css=False, elem_id="va-header")
        with gr.Row(elem_id="va-main", equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_id="va-controls"):
                prompt = gr.Textbox(
                    value=playworld.example_prompts()[0],
                    label="Prompt",
                    lines=2,
                    max_lines=6,
                    max_length=LONGEST_PROMPT,
                    elem_id="va-prompt",
                )
                _examples(prompt)
                plan = unit_picker()
                with gr.Row(elem_id="va-actions"):
                    go = gr.Button("Generate", variant="primary", size="lg", scale=3, min_width=120, elem_id="va-go")
                    stop = gr.Button("Stop", size="lg", scale=1, min_width=80, elem_id="va-stop")
                queue = gr.HTML("", apply_default_css=False, elem_id="va-queue")  # here Gradio says whose turn it is
                with gr.Row(elem_id="va-seed-row", equal_height=True):
                    seed = gr.Number(label="Seed", value=0, precision=None, scale=1, min_width=110, elem_id="va-seed")
                    randomise = gr.Checkbox(label="New seed each time", value=True, scale=1, min_width=180)
                steps = gr.Slider(1, MOST_STEPS, value=8, step=1, label="Steps per unit", elem_id="va-steps")
                model = gr.HTML("Loading the model.", apply_default_css=False, elem_id="va-model")
                with gr.Accordion("What the built-in model understands", open=False, elem_id="va-guide"):
                    gr.HTML(_guide(), apply_default_css=False)
            with gr.Column(scale=7, min_width=300, elem_id="va-stage"):
                player = unit_player()
                with gr.Row(visible=False, elem_id="va-film") as finished:
                    film = gr.Video(label="Film as MP4", interactive=False, buttons=["download"], elem_id="va-video")
                    settings = settings_list()
        outputs = [player, seed, film, settings]
        show_film: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        making = gr.on(
            [go.click, prompt.submit],
            runs.generate,
            [prompt, plan, steps, seed, randomise],
            outputs,
            api_name="generate",
            preprocess=False,  # Gradio trips over what is not of the type of its component; read_request says what is
            concurrency_limit=_CONCURRENT_FILMS,
            trigger_mode="once",
            show_progress="minimal",
            show_progress_on=[queue],
        )
        making.success(lambda: gr.Row(visible=True), None, finished, **show_film)
        stopping = stop.click(
            runs.stop,
            None,
            outputs,
            cancels=[making],
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=None,
        )
        stopping.success(lambda path: gr.Row(visible=path is not None), film, finished, **show_film)
        page.load(runs.greet, None, [model, steps], queue=False, show_progress="hidden", api_visibility="private")
        page.unload(runs.leave)
    page.queue(max_size=_MOST_WAITING, api_open=False, default_concurrency_limit=4)
    return page


def _examples(prompt: gr.Textbox) -> None:
    """Buttons that fill in a prompt, without asking the server."""
    with gr.Row(elem_id="va-examples"):
        for text in playworld.example_prompts()[:_EXAMPLES]:
            button = gr.Button(_short(text), size="sm", min_width=0, elem_classes="va-example")
            button.click(None, None, prompt, js=f"() => {json.dumps(text)}", api_visibility="private")


def _short(prompt: str) -> str:
    """The things in an example prompt: "white ghost", "star and balloon"."""
    said = playworld.parse_caption(prompt)
    things = said.things if said else ()
    names = [str(thing.subject) if len(things) > 1 else f"{thing.color} {thing.subject}" for thing in things]
    return " and ".join(names) or prompt


def _guide() -> str:
    """The model's vocabulary: for each group the first word of every meaning."""
    groups = []
    for name, meanings in playworld.guide().items():
        words = "".join(f"<li>{html.escape(synonyms[0])}</li>" for synonyms in meanings.values())
        groups.append(f"<div><dt>{html.escape(_SPELLING.get(name, name))}</dt><dd><ul>{words}</ul></dd></div>")
    text = """The built-in model learned a small painted world: one or two subjects, each with a colour, a size and a
    motion, in a scene, perhaps with a moving camera. Synonyms work too."""
    return f'<div class="va-guide"><p>{text}</p><dl>{"".join(groups)}</dl></div>'
