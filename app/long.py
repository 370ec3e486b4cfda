"""Films that are longer than a clip: written to a file while they are made, and not far ahead of who watches them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from app.hub import Job
from app.wire import pictures
from videoar.events import Patch
from videoar.painting import Painting
from videoar.video import Mp4Writer, read_pictures

# So much of an endless film is made before it is looked at: more would delay a new prompt, less would stutter.
LEAD_SECONDS = 4.0
# When an endless film ends by itself: its own length, nobody looking on, and others waiting for their turn.
LONGEST_SECONDS = 7200.0
_UNWATCHED_SECONDS = 600.0
_TURN_SECONDS = 180.0
_LOOK_SECONDS = 0.05


def is_long(pane: dict[str, Any]) -> bool:
    """Whether a pane of a `clip` message is of a film that has more than one slab, so that nobody holds it whole."""
    return pane["units"] is None or pane["units"] > len(pane["plan"]["units"])


class LongFilm:
    """One run's MP4, which grows picture by picture in constant memory from what its viewer is sent.

    path: where the film will be. pane: that of the run's `clip` message. source: a picture or clip that the film
    continues; it opens the file.
    """

    def __init__(self, path: Path, pane: dict[str, Any], source: str | None = None) -> None:
        self.settings: dict[str, Any] = dict(pane["settings"])
        self.fps: float = pane["fps"]
        self._painting = Painting(pane["height"], pane["width"])
        self._writer = Mp4Writer(path, self.fps, self.settings)
        if source is not None:
            for picture in read_pictures(source, pane["width"], pane["height"], self.fps):
                self._writer.write(picture)
            self.settings["given_frames"] = self._writer.frames
        self._given = self._writer.frames
        self._units = 0
        self._switches: list[list[Any]] = []
        self._directed = False

    def directed(self) -> None:
        """Notes that somebody gave the film another prompt on the way."""
        self._directed = True

    @property
    def seconds(self) -> float:
        """How much of the film is final, without what it continues."""
        return (self._writer.frames - self._given) / self.fps

    def add(self, head: dict[str, Any], body: bytes) -> None:
        """Takes a message of the run into account."""
        if head["kind"] == "paint":
            x, y, width, height = head["area"]
            frames = np.stack(pictures(head["sizes"], body))
            self._painting.paint(Patch(head["first"], frames, x, y, width, height, head["preview"]))
            for picture in self._painting.take():
                self._writer.write(picture)
        elif head["kind"] == "switch":
            self._switches.append([head["first"] / self.fps, head["prompt"]])
        elif head["kind"] == "done":
            self._units += 1

    def finish(self, complete: bool) -> Path | None:
        """Completes the file, previews included if the film was stopped; None for a film without a picture."""
        for picture in self._painting.film():
            self._writer.write(picture)
        if self._directed and self._switches:  # they belong to what it takes to make the film again
            self.settings["storyboard"] = self._switches
        if self._writer.frames == self._given:
            self._writer.discard()
            return None
        if not complete:
            self.settings |= {"kept_frames": self._writer.frames, "stopped_after_units": self._units}
        self._writer.finish(self.settings)
        return self._writer.path

    def discard(self) -> None:
        """Leaves nothing."""
        self._writer.discard()


class Pace:
    """Holds an endless film back until somebody has seen what there is, and says when it has to end."""

    def __init__(self, job: Job, others: Any) -> None:
        self._job, self._others = job, others
        self._began: float | None = None  # when the first picture was final

    def wait(self, film: LongFilm) -> str | None:
        """Returns None once more of the film is wanted, or why it ends here."""
        while not self._job.stopped:
            now = time.monotonic()
            if film.seconds and self._began is None:
                self._began = now
            running = now - (self._began or now)
            seen, since = self._job.seen
            if film.seconds > LONGEST_SECONDS:
                return f"The film ends after {LONGEST_SECONDS / 3600:g} hours."
            if seen is not None and now - since > _UNWATCHED_SECONDS:
                return f"Nobody has watched for {_UNWATCHED_SECONDS / 60:g} minutes, so the film ended."
            if running > _TURN_SECONDS and self._others():
                return "Others are waiting for their turn, so the film ended. It can be continued."
            # Who does not say what has been seen (the API, or the player's first moment) watches in real time.
            if film.seconds < (running if seen is None else seen / film.fps) + LEAD_SECONDS:
                return None
            time.sleep(_LOOK_SECONDS)
        return None
