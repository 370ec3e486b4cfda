"""The films of a job: those of a run that was stopped, their settings, and all of them as files for Gradio."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from app.figures import Figures
from app.hub import Job
from app.wire import Message, mp4, pictures
from videoar.events import Patch
from videoar.painting import Painting


def film_so_far(messages: Iterable[Message], pane: int = 0) -> np.ndarray | None:
    """uint8 [T, H, W, 3]: what is painted, previews included (see `Painting.film`); None before the first picture."""
    painting: Painting | None = None
    for head, body in messages:
        if head["kind"] == "clip":
            film = head["panes"][pane]
            painting = Painting(film["height"], film["width"])
        elif head["kind"] == "paint" and head["pane"] == pane and painting is not None:
            frames = np.stack(pictures(head["sizes"], body))
            x, y, width, height = head["area"]
            painting.paint(Patch(head["first"], frames, x, y, width, height, head["preview"]))
    frames_so_far = painting.film() if painting is not None else []
    return np.stack(frames_so_far) if frames_so_far else None


def keep_stopped(job: Job, figures: Figures) -> None:
    """Saves the frames of a stopped run's films that are there all over."""
    recorded = job.messages()
    for pane, contender in enumerate(figures.summary(0.0)["contenders"]):
        video_THWC = None if pane in job.films else film_so_far(recorded, pane)
        if video_THWC is not None:
            kept = {"kept_frames": len(video_THWC), "stopped_after_units": len(contender["units"])}
            settings = contender["settings"] | kept
            job.films[pane] = mp4(video_THWC, settings["fps"], settings), settings


def first_settings(job: Job) -> dict[str, Any] | None:
    """Those of a run's first film."""
    film = job.long_film or job.films.get(0)
    return film[1] if film else None


@contextmanager
def film_files(job: Job) -> Iterator[list[str] | None]:
    """The films as files, for as long as Gradio needs to copy them."""
    if job.long_film:
        yield [str(job.long_film[0])]
        return
    if not job.films:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="videoar-") as folder:
        paths = []
        for pane, (film, settings) in sorted(job.films.items()):
            number = f"-{pane + 1}" if len(job.films) > 1 or pane else ""
            kind = settings["plan"].partition("@")[0].replace(":", "-")  # digits and x: nothing of the prompt
            path = Path(folder) / (f"videoar{number}-{kind}.mp4" if number else "videoar.mp4")
            path.write_bytes(film)
            paths.append(str(path))
        yield paths
