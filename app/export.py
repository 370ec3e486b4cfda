"""A run to take home: the file that replays it, and a film of its panes side by side, as downloads of the page."""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.hub import Hub, Job
from app.recording import SUFFIX, save_recording
from app.wire import Message
from videoar.events import Patch
from videoar.montage import SUFFIXES, Montage
from videoar.takes import Begun, Done, Ended, Moment, Take

_LONGEST_RACE_S = 30.0
_PATIENCE_S = 20.0


def export_routes(hub: Hub) -> list[Route]:
    """`/gradio_api/units/{job}/run.videoar`, `film.mp4`, `film.gif` or `film.webp` with an optional `sync`, and the
    finished films one by one: `film-1.mp4`, `film-2.mp4` ...
    """
    drawing = threading.Semaphore()  # one film at a time: drawing takes a core

    def export(request: Request) -> Response:
        name, suffix = request.path_params["name"], Path(request.path_params["name"]).suffix
        job = hub.get(request.path_params["job"])
        if job is not None and name in (single := {f"film-{pane + 1}.mp4": pane for pane in dict(job.films)}):
            return _attachment(job.films[single[name]][0], name)
        if job is None or name not in (f"run{SUFFIX}", *(f"film{known}" for known in SUFFIXES)):
            return JSONResponse({"error": "there is no such file"}, 404)
        try:
            if suffix == SUFFIX:
                data = _recording(job)
            elif drawing.acquire(timeout=_PATIENCE_S):
                try:
                    data = _film(job, suffix, request.query_params.get("sync", "device"))
                finally:
                    drawing.release()
            else:
                return JSONResponse({"error": "other films are being drawn: try again in a minute"}, 503)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 409)
        return _attachment(data, name)

    return [Route("/gradio_api/units/{job}/{name}", export, methods=["GET"])]


def _attachment(data: bytes, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="videoar-{name}"', "Cache-Control": "no-store"}
    return Response(data, media_type="application/octet-stream", headers=headers)


def _recording(job: Job) -> bytes:
    file = io.BytesIO()
    save_recording(file, job.messages(), job.films)
    return file.getvalue()


def _film(job: Job, suffix: str, sync: str) -> bytes:
    messages = job.messages()
    if not messages or messages[-1][0]["kind"] != "over":
        raise ValueError("the run is not over yet")
    if any(pane["frames"] is None for pane in messages[0][0].get("panes", [])):
        raise ValueError("an endless film has no film of its making: keep its MP4")
    # A long race is shown faster: nobody watches a film of minutes, and drawing it would take as long.
    speed = max(1.0, max(head.get("at" if sync == "real" else "clock", 0.0) for head, _ in messages) / _LONGEST_RACE_S)
    with tempfile.TemporaryDirectory(prefix="videoar-") as folder:
        path = Path(folder) / f"film{suffix}"
        montage(messages, sync, round(speed, 1)).write(path)
        return path.read_bytes()


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
        units = pane.get("units") or len(pane["plan"]["units"])
        result.append(Take(pane["label"], *size, units, pane["settings"], moments))
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
