"""Long films read piece by piece, each as long as a clip that the model was trained on: what is lost as they go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Model
from ..plan import PICTURES_PER_LATENT, latent_count, picture_range
from ..request import Request
from .detect import detect
from .playbench import Case, append_progress, fingerprint, make, read_progress, render_of
from .score import score

SHOWN = ("scene", "color", "subject", "motion")


def drift(model: Model, cases: list[Case], request: Request, pieces: int, progress: Path) -> Iterator[dict[str, Any]]:
    """Yields for every case {"prompt", "real", "model"}, the latter two lists of scores, one for each piece.

    real: a render of the same world and length, the detector's ceiling. Cases found in `progress` are not made again.
    """
    length, fps = latent_count(model.info.frames), model.info.fps
    frames = PICTURES_PER_LATENT * (pieces * length - 1) + 1
    request = dataclasses.replace(request, frames=frames)
    key = {"drift": pieces, "weights": fingerprint(model), "request": dataclasses.asdict(request)}
    done = read_progress(progress, key)
    for case in cases:
        if case.index not in done:
            film = make(model, case, request)
            real = render_of(model, case, frames).numpy()
            rows: dict[str, Any] = {"index": case.index, "prompt": case.prompt}
            for name, video in (("real", real), ("model", film)):
                rows[name] = [
                    _read(video, case, fps, picture_range(i * length, (i + 1) * length)) for i in range(pieces)
                ]
            append_progress(progress, key, rows)
            done[case.index] = rows
        yield done[case.index]


def summarise_drift(rows: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """For every piece when it ends and the shares that are right, of renders and of films."""
    table = []
    for i in range(len(rows[0]["model"])):
        piece: dict[str, Any] = {"until_s": round((i + 1) * seconds, 2)}
        for name in ("real", "model"):
            said = {d: [r[name][i][d] for r in rows if r[name][i][d] is not None] for d in SHOWN}
            piece[name] = {d: round(float(np.mean(values)), 3) for d, values in said.items() if values}
        table.append(piece)
    return table


def _read(video: np.ndarray, case: Case, fps: float, pictures: tuple[int, int]) -> dict[str, bool | None]:
    first, end = pictures
    return score(detect(video[first:end], things=len(case.wanted.things), fps=fps, t0=first / fps), case.wanted)
