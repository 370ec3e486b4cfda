"""Paints the messages of a film as the browser does, to save what is there when somebody presses Stop."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from app.wire import Message, pictures
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
