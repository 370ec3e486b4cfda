"""Sums a run up: who showed a picture first, who finished first, where the time went, what the clips show."""

from __future__ import annotations

import logging
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_MOST_UNITS = 1000  # of which the figures are kept, the last ones: a film may have no end


class Figures:
    """The figures of a run, gathered message by message. All seconds but `seconds` itself are device time."""

    def __init__(self) -> None:
        self._contenders: list[dict[str, Any]] = []

    def add(self, head: dict[str, Any]) -> None:
        """Takes the head of a message into account."""
        kind = head["kind"]
        if kind == "clip":
            self._contenders = [_contender(pane) for pane in head["panes"]]
            return
        if "pane" not in head or not self._contenders:
            return
        contender = self._contenders[head["pane"]]
        began_s, contender["device_s"] = contender["device_s"], head["clock"]
        if kind == "unit":
            contender["began_s"] = began_s
        elif kind == "paint":
            contender["painted"] = True
        elif kind == "done":
            parts = dict(zip(("denoise_s", "clean_s", "decode_s", "encode_s"), head["seconds"], strict=True))
            unit = {"unit": head["unit"], "began_s": contender["began_s"], "ended_s": head["clock"]}
            contender["units_made"] += 1
            contender["units"].append(unit | parts | {"cache_bytes": head["cache"]})
            contender["cache_bytes"] = max(contender["cache_bytes"], head["cache"])
            if contender["painted"] and contender["first_picture_s"] is None:
                contender["first_picture_s"] = head["clock"]
        elif kind == "end":
            contender["status"] = head["status"]

    def summary(self, seconds: float) -> dict[str, Any]:
        """The figures so far, as JSON values. seconds: how long the run took, as a viewer waits.

        `first_picture` and `first_finished` are numbers of contenders, None before anybody got that far. Whoever has
        neither finished nor failed is "stopped".
        """
        contenders = [{k: v for k, v in c.items() if k not in ("began_s", "painted")} for c in self._contenders]
        contenders = [c | {"units": list(c["units"])} for c in contenders]
        for c in contenders:
            done = c["status"] == "done"
            c["pictures_per_s"] = round(c["settings"]["frames"] / c["device_s"], 3) if done and c["device_s"] else None
        finished = {i: c["device_s"] for i, c in enumerate(contenders) if c["status"] == "done"}
        shown = {i: c["first_picture_s"] for i, c in enumerate(contenders) if c["first_picture_s"] is not None}
        return {
            "seconds": round(seconds, 3),
            "first_picture": min(shown, key=lambda i: shown[i], default=None),
            "first_finished": min(finished, key=lambda i: finished[i], default=None),
            "contenders": contenders,
        }


def _contender(pane: dict[str, Any]) -> dict[str, Any]:
    return {
        "label": pane["label"],
        "settings": pane["settings"],
        "status": "stopped",
        "units_total": pane.get("units", len(pane["plan"]["units"])),  # files from before films were long have none
        "units_made": 0,
        "first_picture_s": None,
        "device_s": 0.0,
        "cache_bytes": 0,
        "began_s": 0.0,
        "painted": False,
        "units": deque(maxlen=_MOST_UNITS),
    }


def read_back(film: bytes, prompt: str) -> list[dict[str, Any]]:
    """What a finished MP4 shows of each thing that its prompt asks for: attribute, wanted, seen and right.

    Empty for prompts that are not Playworld's.
    """
    try:
        # Here, because it loads the whole library, for which the page need not wait.
        from videoar.evaluate.score import verdict
        from videoar.playworld import parse_caption
        from videoar.video import read_video

        if parse_caption(prompt) is None:
            return []
        with tempfile.TemporaryDirectory(prefix="videoar-") as folder:
            path = Path(folder) / "film.mp4"
            path.write_bytes(film)
            video_THWC, fps = read_video(path)
        rows = verdict(video_THWC, prompt, fps)
    except Exception:  # a verdict is not worth losing the film
        log.exception("A film could not be read back.")
        return []
    return [{"attribute": r.attribute, "wanted": r.wanted, "seen": r.seen, "right": bool(r.right)} for r in rows]
