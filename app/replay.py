"""Paints the messages of a film as the browser does, to save what is there when somebody presses Stop."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from app.wire import Message


def film_so_far(messages: Iterable[Message]) -> np.ndarray | None:
    """uint8 [T, H, W, 3]: the leading frames that are painted all over (previews included), or None without any."""
    video_THWC: np.ndarray | None = None
    painted_THW: np.ndarray | None = None
    for head, body in messages:
        if head["kind"] == "clip":
            pane = head["panes"][0]
            shape = (pane["frames"], pane["height"], pane["width"])
            video_THWC, painted_THW = np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
        elif head["kind"] == "paint" and video_THWC is not None and painted_THW is not None:
            x, y, width, height = head["at"]
            for offset, picture in enumerate(_pictures(head["sizes"], body)):
                where = head["first"] + offset, slice(y, y + height), slice(x, x + width)
                video_THWC[where] = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
                painted_THW[where] = True
    if video_THWC is None or painted_THW is None:
        return None
    whole_T = painted_THW.reshape(len(painted_THW), -1).min(axis=1)
    count = len(painted_THW) if whole_T.all() else int(whole_T.argmin())
    return video_THWC[:count] if count else None


def _pictures(sizes: list[int], body: bytes) -> Iterable[Image.Image]:
    start = 0
    for size in sizes:
        yield Image.open(io.BytesIO(body[start : start + size])).convert("RGB")
        start += size
