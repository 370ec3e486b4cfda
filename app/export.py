"""The film of a run: its panes side by side, made of the messages that the player got."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from app.wire import Message
from videoar.events import Patch
from videoar.montage import Montage
from videoar.takes import Begun, Done, Ended, Moment, Take


def montage(messages: Sequence[Message], sync: str = "device", speed: float = 1.0) -> Montage:
    """All contenders of a run as one film; see `videoar.montage.Montage`. Raises ValueError for a run without any."""
    return Montage(takes(messages), sync, speed)


def takes(messages: Sequence[Message]) -> list[Take]:
    """The recordings of a run's contenders; pictures are decoded when they are looked at."""
    if not messages or messages[0][0]["kind"] != "clip":
        return []
    result = []
    for number, pane in enumerate(messages[0][0]["panes"]):
        size = pane["width"], pane["height"], pane["frames"], pane["fps"]
        moments = list(_moments(messages, number))
        result.append(Take(pane["label"], *size, len(pane["plan"]["units"]), pane["settings"], moments))
    return result


class _Pictures(Sequence):
    """JPEGs as a sequence of uint8 [H, W, 3]: a run of many pictures would be large if they were all decoded."""

    def __init__(self, sizes: Sequence[int], body: bytes) -> None:
        ends = np.cumsum(sizes, dtype=int).tolist()
        self._jpegs = [body[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def __len__(self) -> int:
        return len(self._jpegs)

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(Image.open(io.BytesIO(self._jpegs[index])).convert("RGB"))


def _moments(messages: Sequence[Message], pane: int) -> Iterator[Moment]:
    for head, body in messages:
        if head.get("pane") != pane:
            continue
        what: Begun | Patch | Done | Ended
        if head["kind"] == "unit":
            what = Begun(head["unit"], tuple(head["region"]), tuple(head["frames"]))
        elif head["kind"] == "paint":
            pictures: Any = _Pictures(head["sizes"], body)
            x, y, width, height = head["area"]
            what = Patch(head["first"], pictures, x, y, width, height, head["preview"])
        elif head["kind"] == "done":
            denoise_s, clean_s, decode_s, _ = head["seconds"]
            what = Done(head["unit"], denoise_s, clean_s, decode_s, head["cache"])
        elif head["kind"] == "end":
            what = Ended(head.get("message", ""))
        else:
            continue
        yield Moment(head["at"], head["clock"], what)
