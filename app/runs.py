"""What happens between a click on Generate and the finished file: one thread per film fills its log, handlers watch."""

from __future__ import annotations

import contextvars
import html
import logging
import re
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from app.device import Device
from app.hub import Hub, Job
from app.limits import MOST_STEPS, read_request
from app.replay import film_so_far
from app.wire import mp4
from videoar.plan import KINDS, PlanSpec
from videoar.request import Request

log = logging.getLogger(__name__)

# A handler looks up this often: closing it (Stop, a closed tab) never waits longer, however long a unit takes.
_LOOK_SECONDS = 0.25
_STOP_SECONDS = 20.0
_LOAD_SECONDS = 120.0

# What a handler returns: player, seed, film, settings.
Outputs = tuple[Any, Any, Any, Any]


class Runs:
    """The handlers of the page. Holds no state of a visitor: that lives in the jobs of the hub."""

    def __init__(self, device: Device, hub: Hub) -> None:
        self._device = device
        self._hub = hub

    def generate(
        self, prompt: str, plan: str, steps: float, seed: float, randomise: bool, request: gr.Request
    ) -> Iterator[Outputs]:
        """Makes a film of the prompt, unit by unit.

        plan: "cube", "frame", "key_detail", "scale" or "full", also with numbers, such as "cube:4x2x2". steps:
        denoising steps per unit. randomise: draw a seed instead of using the given one. Returns the job and its status,
        the seed, the film as MP4 with its settings inside, and the settings.
        """
        try:
            asked = read_request(prompt, plan, steps, seed, randomise)
        except ValueError as error:
            raise gr.Error(_sentence(error), print_exception=False) from None
        job = self._hub.new(_owner(request))
        # ZeroGPU reads the visitor's identity from the context of the request.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._work, job, asked), name="film", daemon=True).start()
        try:
            yield {"job": job.id, "status": "starting"}, asked.seed, None, None
            while not job.wait(_LOOK_SECONDS):
                yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            if job.outcome["status"] == "failed":
                raise gr.Error(job.outcome["message"], print_exception=False)
            with _film_file(job) as path:
                yield {"job": job.id} | job.outcome, asked.seed, path, job.settings
        finally:
            job.stop()

    def stop(self, request: gr.Request) -> Iterator[Outputs]:
        """Ends the film of this page and keeps what is there. A second call changes nothing."""
        jobs = self._hub.of(_owner(request))
        for job in jobs:
            job.stop()
        if not jobs or not jobs[-1].wait(_STOP_SECONDS) or jobs[-1].outcome["status"] != "stopped":
            gr.Info("No film is being made at the moment.", duration=3)
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            return
        job = jobs[-1]
        with _film_file(job) as path:
            yield {"job": job.id} | job.outcome, gr.skip(), path, job.settings

    def greet(self) -> tuple[Any, Any]:
        """Says as HTML which model answers, once it is loaded, and sets the slider to its number of steps."""
        try:
            model = self._device.model(_LOAD_SECONDS)
        except TimeoutError:
            return "The model is still loading.", gr.skip()
        except Exception as error:
            return html.escape(f"The model did not load. {_sentence(error)}"), gr.skip()
        info = model.info
        text = f"{info.name} · {info.width} × {info.height} · {info.frames} frames at {info.fps:g} fps"
        trained = {PlanSpec.parse(plan).kind for plan in info.plans}
        if trained != set(KINDS):
            text += f" · trained for {', '.join(sorted(trained))} only"
        return html.escape(text), gr.Slider(value=info.steps, maximum=min(MOST_STEPS, max(8, 2 * info.steps)))

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self._hub.drop(_owner(request))

    def _work(self, job: Job, asked: Request) -> None:
        """Fills the log of a job until the film is over; runs in the job's own thread."""
        outcome: dict[str, Any] = {
            "status": "failed",
            "message": "The film could not be made; the server's log says why.",
        }
        try:
            outcome = self._record(job, asked)
        except ValueError as error:
            outcome["message"] = _sentence(error)
        except Exception as error:
            log.exception("A film failed.")
            if isinstance(error, gr.Error):
                outcome["message"] = str(error.message)
        finally:
            if outcome["status"] != "done":
                job.put({"kind": "end", "pane": 0, **outcome})
            job.close(outcome)

    def _record(self, job: Job, asked: Request) -> dict[str, Any]:
        units, outcome = 0, {"status": "stopped"}
        if not self._model_is_there(job):
            return outcome | {"units": units}
        film = self._device.film(asked)
        job.on_stop(film.stop)
        for head, body in film:
            if head["kind"] == "film":
                job.film, job.settings = body, head["settings"]
                continue
            if head["kind"] == "end":
                outcome = {name: head[name] for name in head if name not in ("kind", "pane")}
                if head["status"] != "done":
                    continue
            units += head["kind"] == "done"
            job.put(head, body)
        if outcome["status"] == "stopped" and not job.done:  # a job of a closed page is done
            _keep(job, units)
        return outcome | {"units": units}

    def _model_is_there(self, job: Job) -> bool:
        """Waits for the model; false if the job was stopped first."""
        while not job.stopped:
            try:
                self._device.model(_LOOK_SECONDS)
            except TimeoutError:
                continue
            return True
        return False


def _owner(request: gr.Request) -> str:
    """The page a request comes from. Who comes without one shares a name with nobody."""
    return request.session_hash or secrets.token_urlsafe(24)


def _sentence(error: Exception) -> str:
    """The library's messages begin like clauses; here they stand alone. Names of plans and fields keep their form."""
    text = str(error)
    first = text[:1].upper() if re.match(r"[a-z]+(?![\w:/.])", text) else text[:1]
    return f"{first}{text[1:].rstrip('.')}."


def _keep(job: Job, units: int) -> None:
    """Saves the frames of a stopped film that are there all over."""
    recorded = job.messages()
    video_THWC = film_so_far(recorded)
    if video_THWC is not None:
        job.settings = recorded[0][0]["settings"] | {"kept_frames": len(video_THWC), "stopped_after_units": units}
        job.film = mp4(video_THWC, job.settings["fps"], job.settings)


@contextmanager
def _film_file(job: Job) -> Iterator[str | None]:
    """The film as a file, for as long as Gradio needs to copy it."""
    if job.film is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="videoar-") as folder:
        path = Path(folder) / "videoar.mp4"
        path.write_bytes(job.film)
        yield str(path)
