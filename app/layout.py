"""The page: prompt and choices on one side, the player on the other, the finished film below."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.limits import CONCURRENT_FILMS, MOST_STEPS
from app.opened import FILE_TYPES
from app.player import LOGO, contender_list, film_options, settings_list, unit_picker, unit_player
from app.runs import Runs, show_rows
from videoar import playworld
from videoar.request import LONGEST_PROMPT

_CONCURRENT_REPLAYS = 8  # which only wait most of the time
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
    <p>A film is a block of time and space. Cut it into <strong>units</strong> and watch them arrive, one by one.
      <a href="gradio_api/how-it-works">How it works</a></p>
  </div>
</header>
"""


# Presses the button of the tab that is open.
_START = "() => { [...document.querySelectorAll('#va-go, #va-race')].find((go) => go.offsetParent)?.click() }"


def build_app(runs: Runs, models: Sequence[str] = ()) -> gr.Blocks:
    """The Gradio page around the handlers in `runs`. models: names of those to choose from, if there are several."""
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
                # Seen while a long film is made, which the player tells the page.
                switch = gr.Button("Switch prompt (Ctrl+Enter)", size="sm", elem_id="va-switch")
                suggest = _examples(prompt)
                with gr.Tabs(elem_id="va-modes") as tabs:
                    with gr.Tab("One film", id="film", render_children=True) as one:
                        plan = unit_picker()
                        steps = gr.Slider(1, MOST_STEPS, value=8, step=1, label="Steps per unit", elem_id="va-steps")
                        go, stop = _actions("Generate", "va-go", "va-stop")
                        more = film_options()
                        with gr.Accordion("Go on from a picture or a clip", open=False, elem_id="va-from") as folded:
                            given = gr.File(label="Picture or clip", height=110, elem_id="va-start")
                    with gr.Tab("Compare", id="compare", render_children=True) as several:
                        contenders = contender_list(models)
                        race, stop_all = _actions("Compare", "va-race", "va-stop-all")
                queue = gr.HTML("", apply_default_css=False, elem_id="va-queue")  # here Gradio says whose turn it is
                with gr.Row(elem_id="va-seed-row", equal_height=True):
                    seed = gr.Number(label="Seed", value=0, precision=None, scale=1, min_width=110, elem_id="va-seed")
                    randomise = gr.Checkbox(
                        label="New seed each time", value=True, scale=1, min_width=180, elem_id="va-drawn"
                    )
                model = gr.HTML("Loading the model.", apply_default_css=False, elem_id="va-model")
                with gr.Accordion("What the built-in model understands", open=False, elem_id="va-guide"):
                    gr.HTML(_guide(), apply_default_css=False)
                with gr.Row(elem_id="va-file"):
                    opened = gr.UploadButton(
                        "Open a film, its settings or a saved run", file_types=FILE_TYPES, size="sm", elem_id="va-open"
                    )
            with gr.Column(scale=7, min_width=300, elem_id="va-stage"):
                player = unit_player(models)
                with gr.Row(visible=False, elem_id="va-film") as finished:
                    film = gr.Video(label="Film as MP4", interactive=False, buttons=["download"], elem_id="va-video")
                    settings = settings_list()
                    go_on = gr.Button("Continue this film", size="sm", elem_id="va-continue")
                with gr.Row(visible=False, elem_id="va-films") as all_finished:
                    films = gr.Files(label="Films as MP4", interactive=False, elem_id="va-files")
        private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        start: dict[str, Any] = {"concurrency_limit": CONCURRENT_FILMS, "concurrency_id": "films"}
        # Gradio trips over what is not of the type of its component; read_requests says what is.
        start |= {"preprocess": False, "trigger_mode": "once", "show_progress": "minimal", "show_progress_on": [queue]}
        making = go.click(
            runs.generate,
            [prompt, plan, steps, seed, randomise, more, given],
            [player, seed, film, settings],
            api_name="generate",
            **start,
        )
        suggest.click(runs.suggest, prompt, prompt, queue=False, preprocess=False, **private)
        # The finished film goes into the field for what a film goes on from, where it is seen and can be removed.
        continuing = go_on.click(
            lambda made: (made, gr.Accordion(open=True), gr.Tabs(selected="film")),
            film,
            [given, folded, tabs],
            queue=False,
            **private,
        )
        continuing.success(None, None, None, js="() => document.getElementById('va-go').click()", **private)
        switch.click(runs.switch, prompt, None, queue=False, preprocess=False, **private)
        prompt.submit(None, None, None, js=_START, api_visibility="private")
        comparing = race.click(
            runs.compare, [prompt, contenders, seed, randomise], [player, seed, films], api_name="compare", **start
        )
        rows, form = [finished, all_finished], [prompt, seed, randomise, tabs, plan, steps, contenders, more]
        form += [given, folded]
        replaying = opened.upload(
            runs.open_file,
            opened,
            [player, films, *rows, *form],
            trigger_mode="once",
            concurrency_limit=_CONCURRENT_REPLAYS,
            **private,
        )
        player.select(
            runs.recall, None, [film, settings, films, *rows, *form], concurrency_limit=_CONCURRENT_REPLAYS, **private
        )
        making.success(_show_film, player, rows, queue=False, **private)
        comparing.success(lambda: show_rows(one=False), None, rows, queue=False, **private)
        stopping = gr.on(
            [stop.click, stop_all.click],
            runs.stop,
            None,
            [player, film, settings, films],
            cancels=[making, comparing, replaying],
            concurrency_limit=None,
            **private,
        )
        kept = [film, films]
        stopping.success(
            lambda one, many: (gr.Row(visible=one is not None), gr.Row(visible=bool(many))),
            kept,
            rows,
            queue=False,
            **private,
        )
        for tab, mode in ((one, "film"), (several, "compare")):
            tab.select(None, None, None, js=_say_mode(mode), **private)
        page.load(runs.open_link, None, [prompt, seed, randomise, tabs, plan], **private)
        page.load(runs.greet, None, [model, steps], queue=False, **private)
        page.unload(runs.leave)
    runs.waiting = lambda: len(page._queue)
    page.queue(max_size=_MOST_WAITING, api_open=False, default_concurrency_limit=4)
    return page


def _actions(name: str, go_id: str, stop_id: str) -> tuple[gr.Button, gr.Button]:
    """A button that starts, and one that stops."""
    with gr.Row(elem_classes="va-actions"):
        go = gr.Button(name, variant="primary", size="lg", scale=3, min_width=120, elem_id=go_id)
        return go, gr.Button("Stop", size="lg", scale=1, min_width=80, elem_id=stop_id)


def _show_film(player: dict[str, Any]) -> tuple[gr.Row, gr.Row]:
    """The row of the finished film; of several the player offers each where it is seen."""
    return gr.Row(visible=len(player["summary"]["contenders"]) == 1), gr.Row(visible=False)


def _say_mode(mode: str) -> str:
    """Tells the player which tab is open."""
    return f"() => {{ document.dispatchEvent(new CustomEvent('videoar:mode', {{ detail: '{mode}' }})) }}"


def _examples(prompt: gr.Textbox) -> gr.Button:
    """Buttons that fill in a prompt, without asking the server; returns one that is to suggest any other."""
    with gr.Row(elem_id="va-examples"):
        for text in playworld.example_prompts()[:_EXAMPLES]:
            button = gr.Button(_short(text), size="sm", min_width=0, elem_classes="va-example")
            button.click(None, None, prompt, js=f"() => {json.dumps(text)}", api_visibility="private")
        return gr.Button("Suggest", size="sm", min_width=0, elem_id="va-suggest", elem_classes="va-example")


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
