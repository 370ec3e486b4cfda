"""What happens between a click and the finished files: one thread per run fills its log, handlers watch."""

from __future__ import annotations

import contextvars
import html
import logging
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal

from app.device import Device, Running
from app.figures import Figures, read_back
from app.films import film_files, first_settings, keep_stopped
from app.form import FORM_AS_IT_IS, Form, filled, missing, most_steps
from app.hub import Hub, Job
from app.limits import CONCURRENT_FILMS, MORE, Wanted, read_film, read_requests
from app.link import read_link
from app.long import LongFilm, Pace, is_long
from app.opened import form_of, read_file
from app.recording import SUFFIX, Recording, read_recording, replay
from videoar import playworld
from videoar.plan import KINDS, PlanSpec

log = logging.getLogger(__name__)

# A handler looks up this often: closing it (Stop, a closed tab) never waits longer, however long a unit takes.
_LOOK_SECONDS = 0.25
_STOP_SECONDS = 20.0
_LOAD_SECONDS = 120.0
# What is kept of an endless film for a player whose connection broke.
_ENDLESS_LOG_BYTES = 16 << 20

# What the handlers return: player, seed, film and settings; player, seed and films.
Film = tuple[Any, Any, Any, Any]
Films = tuple[Any, Any, Any]


class Runs:
    """The handlers of the page. Holds no state of a visitor: that lives in the jobs of the hub."""

    def __init__(self, device: Device, hub: Hub) -> None:
        self._device = device
        self._hub = hub
        self._made: deque[tuple[float, float]] = deque(maxlen=20)  # seconds of runs; device seconds a frame and pass
        self.waiting: Callable[[], int] = lambda: 0  # how many visitors wait for their turn; the page knows

    def generate(
        self,
        prompt: str,
        plan: str,
        steps: float,
        seed: float,
        randomise: bool,
        more: dict[str, Any] | None,
        request: gr.Request,
        start: Any = None,  # with a default, so that it may be left out over the API
    ) -> Iterator[Film]:
        """Makes a film of the prompt, unit by unit.

        plan: "cube", "frame", "key_detail", "scale" or "full", also with numbers, such as "cube:4x2x2". steps:
        denoising steps per unit. randomise: draw a seed instead of using the given one. more: a dictionary of what else
        can be chosen, such as `seconds`, or `endless`, which goes on until the job is cancelled. start: a picture or
        clip that the film continues. Returns the job and its status, the seed, the film as MP4 with its settings inside
        (the first one if there are several), and the settings.
        """
        with _explained():
            wanted = read_film(prompt, plan, steps, seed, randomise, more, start)
            if wanted.source and not is_in_or_equal(wanted.source, get_upload_folder()):
                raise ValueError("a film goes on from an uploaded picture or clip")
        for player, used, films, settings in self._make(wanted, request):
            yield player, used, films[0] if isinstance(films, list) else films, settings

    def compare(
        self, prompt: str, contenders: list[dict[str, Any]], seed: float, randomise: bool, request: gr.Request
    ) -> Iterator[Films]:
        """Makes films of one prompt and seed side by side; the next step always goes to who has used the device least.

        contenders: two to five, each with a `plan` and, where it should not be the model's own, `steps`, `window` (of
        latent frames that are attended to), `guidance` and, where several are served, `model`. Returns the job, its
        status and all its figures, the seed, and the films as MP4.
        """
        with _explained():
            requests = read_requests(prompt, contenders, seed, randomise)
            wanted = Wanted(requests, models=[contender.get("model") for contender in contenders])
        for player, used, films, _ in self._make(wanted, request):
            yield player, used, films

    def stop(self, request: gr.Request) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Ends the run of this page and keeps what is there: player, film, settings, films of a comparison."""
        jobs = self._hub.of(_owner(request))
        for job in jobs:
            job.stop()
        if not jobs or not jobs[-1].wait(_STOP_SECONDS) or jobs[-1].outcome["status"] != "stopped":
            gr.Info("No film is being made at the moment.", duration=3)
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            return
        job = jobs[-1]
        with film_files(job) as paths:
            alone = len(job.outcome["summary"]["contenders"]) < 2
            film, settings = (paths[0], first_settings(job)) if alone and paths else (None, None)
            yield {"job": job.id} | job.outcome, film, settings, None if alone else paths

    def state(self) -> dict[str, Any]:
        """What tells a visitor how long it will take, and what the model's own choices are, as JSON values."""
        try:
            model = self._device.model(0)
        except Exception:  # it is not there yet, or never will be, which `greet` says
            return {"model": None}
        info = model.info
        window = info.window or model.grid(info).T
        own = {name: getattr(info, name) for name in ("frames", "fps", "steps", "sink")}
        own |= {"window": window, "guidance": info.guidance_scale}
        seconds, rates = zip(*self._made, strict=True) if self._made else ((), ())
        times = {"typical": median(seconds), "rate": median(rates)} if self._made else {"typical": 0.0, "rate": None}
        load = {"waiting": self.waiting(), "making": self._hub.busy(), "slots": CONCURRENT_FILMS}
        return {"model": own} | load | times

    def switch(self, prompt: str, request: gr.Request) -> None:
        """Gives the film that this page is making another prompt."""
        directed = next((job.direct for job in reversed(self._hub.of(_owner(request))) if job.direct), None)
        if directed is None:
            raise gr.Error("No long film is being made at the moment, so there is no prompt to switch.", duration=5)
        with _explained():
            directed(prompt)

    def suggest(self, prompt: str) -> str:
        """A prompt that the built-in model understands: what is written, completed at random."""
        suggested = playworld.complete(prompt if isinstance(prompt, str) else "")
        if suggested is None:
            gr.Info("Nothing in this prompt can be completed: clear it for a surprise.", duration=5)
            return prompt
        return suggested

    def _make(self, wanted: Wanted, request: gr.Request) -> Iterator[tuple[Any, Any, Any, Any]]:
        """A run from the click to the files: player, seed, paths of the films, settings of the first one."""
        job = self._hub.new(_owner(request))
        job.source = wanted.source
        # ZeroGPU reads the visitor's identity from the context of the request.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._work, job, wanted), name="film", daemon=True).start()
        yield from self._watch(job, wanted.requests[0].seed)

    def _watch(self, job: Job, seed: Any) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Waits for the end of a run; ends it if nobody waits any more."""
        try:
            yield {"job": job.id, "status": "starting"}, seed, None, None
            while not job.wait(_LOOK_SECONDS):
                yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            if job.outcome["status"] == "failed":
                raise gr.Error(job.outcome["message"], print_exception=False)
            with film_files(job) as paths:
                yield {"job": job.id} | job.outcome, seed, paths, first_settings(job)
        finally:
            job.stop()

    def open_file(self, path: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Takes the settings of a file into the form; a saved run is also shown once more, with its true timing.

        Needs no model. Player, films, the rows of one and of several films, form.
        """
        with _explained():
            recording = read_recording(path) if path.lower().endswith(SUFFIX) else None
            form = FORM_AS_IT_IS if recording else self._filled(read_file(path))
        if recording is None:
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip(), *form
            return
        with suppress(ValueError):  # a run that could not be made here is shown all the same
            form = self._filled(form_of(_settings_of(recording)))
        job = self._hub.new(_owner(request))
        threading.Thread(target=self._play, args=(job, recording), name="replay", daemon=True).start()
        for player, _, films, _ in self._watch(job, None):
            rows = show_rows(one=False) if films else (gr.skip(), gr.skip())
            yield player, films, *rows, *form
            form = FORM_AS_IT_IS

    def recall(self, event: gr.EventData, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """An earlier run of this page: its film, settings and films as far as the server still has them, rows, form.

        The event says the job and, because the job may be forgotten, the settings of its films.
        """
        said = event._data if isinstance(event._data, dict) else {}
        asked = [film for film in _list(said.get("films")) if isinstance(film, dict)]
        form = FORM_AS_IT_IS
        job = self._hub.get(str(said.get("job")))
        job = job if job and job.owner == request.session_hash else None
        source = job.source if job and job.source and Path(job.source).is_file() else None
        with suppress(ValueError):  # a run that could not be made here is shown all the same
            form = self._filled(form_of(asked), source)
        if job is None or not (job.films or job.long_film):
            yield None, None, None, gr.Row(visible=False), gr.Row(visible=False), *form
            return
        alone = len(asked) < 2
        with film_files(job) as paths:
            assert paths, "there are films"
            film, settings, films = (paths[0], first_settings(job), None) if alone else (None, None, paths)
            yield film, settings, films, *show_rows(one=alone), *form

    def _play(self, job: Job, recording: Recording) -> None:
        """Fills the log of a job with a recorded run, at the pace it had."""
        stop, figures = threading.Event(), Figures()
        job.on_stop(stop.set)
        outcome: dict[str, Any] = {"status": "stopped"}
        reads: list[Any] = []
        try:
            for head, body in replay(recording.messages, stop.wait):
                if head["kind"] == "over":
                    said = str(head.get("message", "The run that was saved had failed."))
                    outcome = {"status": head["status"]} | ({"message": said} if head["status"] == "failed" else {})
                    reads = [_reads(contender) for contender in _list(head["summary"].get("contenders"))]
                    job.films |= recording.films
                else:
                    figures.add(head)
                    job.put(head, body)
        finally:
            # Counted anew, rather than believed: the file may come from anywhere.
            outcome["summary"] = figures.summary(time.monotonic() - job.began)
            for i, contender in enumerate(outcome["summary"]["contenders"]):
                contender["reads"] = reads[i] if i < len(reads) else []
            job.put({"kind": "over", **outcome})
            job.close(outcome)

    def open_link(self, request: gr.Request) -> tuple[Any, Any, Any, Any, Any]:
        """Fills in what the page's address asks for: prompt, seed, new seed or not, tab, plan.

        The contenders read the address themselves: their tab may not be there yet.
        """
        unchanged = (gr.skip(),) * 5
        try:
            link = _link(request)
        except ValueError as error:
            gr.Warning(f"The link could not be followed: {error}.", title="Link")
            return unchanged
        if link is None:
            return unchanged
        return self._filled(link)[:5]

    def greet(self, request: gr.Request) -> tuple[Any, Any]:
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
        steps = info.steps
        with suppress(ValueError):  # of which `open_link` speaks
            if (link := _link(request)) and len(link["contenders"]) == 1:
                steps = int(link["contenders"][0].get("steps") or steps)
        if others := self._device.names[1:]:
            text += f" · to compare with it: {', '.join(others)}"
        return html.escape(text), gr.Slider(value=steps, maximum=most_steps(info, steps))

    def _filled(self, asked: dict[str, Any], source: str | None = None) -> Form:
        """The form with these settings; says what it cannot hold. source: what the film goes on from."""
        info = None
        with suppress(Exception):  # of a model that is not there `greet` speaks
            info = self._device.model(0).info
        if said := missing(asked, self._device.names, info, source):
            gr.Info(html.escape(said), title="Settings", duration=10)
        return filled(asked, self._device.names, info, source)

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self._hub.drop(_owner(request))

    def _work(self, job: Job, wanted: Wanted) -> None:
        """Fills the log of a job until the run is over; runs in the job's own thread."""
        figures = Figures()
        outcome: dict[str, Any] = {
            "status": "failed",
            "message": "The film could not be made; the server's log says why.",
        }
        try:
            outcome = self._record(job, wanted, figures)
        except ValueError as error:
            outcome["message"] = _sentence(error)
        except Exception as error:
            log.exception("A film failed.")
            if isinstance(error, gr.Error):
                outcome["message"] = str(error.message)
        finally:
            outcome["summary"] = figures.summary(time.monotonic() - job.began)
            for pane, contender in enumerate(outcome["summary"]["contenders"]):
                finished = pane in job.films and contender["status"] == "done" and not job.done
                contender["reads"] = read_back(job.films[pane][0], wanted.requests[pane].prompt) if finished else []
                if job.long_film:  # which knows what prompts it was given on the way
                    contender["settings"] = job.long_film[1]
            self._note(outcome)
            job.put({"kind": "over", **outcome})
            job.close(outcome)

    def _note(self, outcome: dict[str, Any]) -> None:
        """Remembers how long a run took, for the estimates."""
        films = [c for c in outcome["summary"]["contenders"] if c["status"] == "done"]
        passes = sum(c["settings"]["frames"] * (c["settings"]["steps"] + 1) for c in films)
        if passes:
            self._made.append((outcome["summary"]["seconds"], sum(c["device_s"] for c in films) / passes))

    def _record(self, job: Job, wanted: Wanted, figures: Figures) -> dict[str, Any]:
        outcome: dict[str, Any] = {"status": "stopped"}
        if not self._model_is_there(job):
            return outcome
        requests = wanted.settle(self._device.model())
        running = self._device.run(requests, wanted.models, one_by_one=not wanted.contest)
        job.on_stop(running.stop)
        ended: list[dict[str, Any]] = []
        film: LongFilm | None = None
        pace: Pace | None = None
        try:
            for head, body in running:
                if head["kind"] == "clip" and wanted.source:
                    head["panes"][0]["settings"]["continued_from"] = Path(wanted.source).name[:80]
                figures.add(head)
                if head["kind"] == "film":
                    job.films[head["pane"]] = body, head["settings"]
                    continue
                if head["kind"] == "clip" and (wanted.source or is_long(head["panes"][0])):
                    film = LongFilm(job.folder() / "videoar.mp4", head["panes"][0], wanted.source)
                    job.direct = _direct(running, film)
                    if head["panes"][0]["frames"] is None:
                        pace = Pace(job, self.waiting)
                        job.most_bytes = _ENDLESS_LOG_BYTES
                if head["kind"] == "end":
                    ended.append(head)
                job.put(head, body)
                if film:
                    film.add(head, body)
                if film and pace and (reason := pace.wait(film)):
                    outcome["message"] = reason
                    break
        finally:
            job.direct = None
            running.stop()
            if film and job.done:  # a job of a closed page is done
                film.discard()
            elif film and (path := film.finish(complete=bool(ended) and ended[0]["status"] == "done")):
                job.long_film = path, film.settings
        if len(ended) == len(wanted.requests):
            # A comparison in which somebody came through is one all the same.
            failures = [head["message"] for head in ended if head["status"] == "failed"]
            if len(failures) == len(ended):
                # What there is of a long film is kept, as if it had been stopped.
                status = "stopped" if job.long_film else "failed"
                return {"status": status, "message": _sentence(failures[0])}
            return {"status": "done"}
        if not job.done and not film:
            keep_stopped(job, figures)
        return outcome

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


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _settings_of(recording: Recording) -> list[Any]:
    """Those of a saved run's films, as they were known in the end, or at its beginning."""
    films = _list(recording.messages[-1][0]["summary"].get("contenders"))
    settings = [film.get("settings") for film in films if isinstance(film, dict)]
    if settings and all(isinstance(each, dict) for each in settings):
        return settings
    return [pane["settings"] for pane in recording.messages[0][0]["panes"]]


def _reads(contender: Any) -> list[dict[str, Any]]:
    """What was read from a recorded clip, as far as it can be shown."""
    rows = _list(contender.get("reads")) if isinstance(contender, dict) else []
    names = ("attribute", "wanted", "seen")
    return [
        {name: str(row.get(name)) for name in names} | {"right": row.get("right") is True}
        for row in rows
        if isinstance(row, dict)
    ]


def show_rows(one: bool) -> tuple[gr.Row, gr.Row]:
    """The rows below the player: of one finished film, or of several."""
    return gr.Row(visible=one), gr.Row(visible=not one)


def _link(request: gr.Request) -> dict[str, Any] | None:
    """The settings in the page's address."""
    said = request.query_params
    more = {name: said[name] for name in (*MORE, "continued_from") if name in said}
    return read_link(said.get("prompt"), said.get("seed"), said.getlist("units"), more)


def _sentence(error: Exception | str) -> str:
    """The library's messages begin like clauses; here they stand alone. Names of plans and fields keep their form."""
    text = str(error)
    first = text[:1].upper() if re.match(r"[a-z]+(?![\w:/.])", text) else text[:1]
    return f"{first}{text[1:].rstrip('.')}."


@contextmanager
def _explained() -> Iterator[None]:
    """What a person got wrong is said on the page."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(_sentence(error), print_exception=False) from None


def _direct(running: Running, film: LongFilm) -> Callable[[str], None]:
    def direct(prompt: str) -> None:
        running.switch(prompt)
        film.directed()

    return direct
