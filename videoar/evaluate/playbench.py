"""PlayBench in small: held-out prompts, generated and read back, beside the detector's ceiling and a control.

Rows: `model`; `real`, renders of the same worlds (the detector's ceiling); `codec`, those renders through the codec
(the ceiling of any generator); `shuffled`, the model's clips against each other's prompts (what chance reaches).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..decoder import StreamDecoder
from ..generate import ClipFinished, Request, generate
from ..playworld import Attributes, World, attributes, caption, render, sample_world
from .detect import detect
from .score import DIMENSIONS, score

ROWS = ("real", "codec", "model", "shuffled")


@dataclass(frozen=True)
class Case:
    """A held-out prompt and the world that it was written of."""

    index: int
    world: World
    prompt: str
    wanted: Attributes


def held_out_cases(count: int, seed: int = 0) -> list[Case]:
    """Prompts with a combination of subject, colour, motion and scene that training never shows."""
    rng = random.Random(f"playbench-{seed}")
    worlds = [sample_world(rng, held_out=True) for _ in range(count)]
    return [Case(i, world, caption(world), attributes(world)) for i, world in enumerate(worlds)]


def evaluate(
    model: Any, cases: list[Case], request: dict[str, Any], progress: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Yields one result per case: {"index", "prompt", "model", "real", "codec", "shuffled": scores, "video"}.

    request: fields of Request other than prompt and seed (the case's index is the seed). progress: a JSON-lines file in
    which finished cases are kept; those of the same weights and request found there are yielded without being made
    again, and without their video.
    """
    key = {"request": request, "model": model.info.name, "weights": dict(model.info.provenance), "cases": len(cases)}
    done = _read_progress(progress, key)
    for i, case in enumerate(cases):
        if case.index in done:
            yield done[case.index]
            continue
        video = make(model, case, request)
        other = cases[(i + len(cases) // 2) % len(cases)].wanted
        real = render([case.world], frames=len(video), size=video.shape[1], fps=int(model.info.fps))[0]
        result: dict[str, Any] = {"index": case.index, "prompt": case.prompt}
        result["model"] = _read(video, case.wanted, model.info.fps)
        result["shuffled"] = _read(video, other, model.info.fps)
        result["real"] = _read(real.numpy(), case.wanted, model.info.fps)
        result["codec"] = _read(through_codec(model, real), case.wanted, model.info.fps)
        if progress is not None:
            with open(progress, "a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **result}) + "\n")
        yield result | {"video": video}


def make(model: Any, case: Case, request: dict[str, Any]) -> np.ndarray:
    *_, last = generate(model, Request(prompt=case.prompt, seed=case.index, **request), previews=False)
    assert isinstance(last, ClipFinished)
    return last.video


def through_codec(model: Any, video_THWC: torch.Tensor) -> np.ndarray:
    """The clip encoded and decoded."""
    decoder = StreamDecoder(model.vae)
    latents = decoder.encode(video_THWC[None].to(model.device))
    return decoder.push(latents)[0].numpy()


def summarise(results: list[dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """For each row and dimension the share that is right, its 95% bootstrap interval and the number of clips."""
    generator = np.random.default_rng(seed)
    table: dict[str, Any] = {}
    for row in ROWS:
        table[row] = {}
        for name in DIMENSIONS:
            values = np.array([r[row][name] for r in results if r[row][name] is not None], float)
            if len(values):
                means = generator.choice(values, (1000, len(values))).mean(1)
                low, high = np.quantile(means, (0.025, 0.975))
                figures = {"share": values.mean(), "low": low, "high": high}
                table[row][name] = {k: round(float(v), 3) for k, v in figures.items()} | {"clips": len(values)}
    return table


def _read(video: np.ndarray, wanted: Attributes, fps: float) -> dict[str, bool | None]:
    return score(detect(video, things=len(wanted.things), fps=fps), wanted)


def _read_progress(path: Path | None, key: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Finished cases of the same key; a line that was cut off while it was written is passed over."""
    done: dict[int, dict[str, Any]] = {}
    if path is None or not path.exists():
        return done
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.pop("key", None) == json.loads(json.dumps(key)):
            done[row["index"]] = row
    return done
