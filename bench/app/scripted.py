"""A page whose films come from a script instead of a model: `python -m bench.app.scripted`.

Every picture carries a stamp, four flat squares in its upper left corner, for whoever looks at a screen to say what is
on it: the seed and the number of the picture, or with --revise the contender and the number of the unit. With --marks
the server notes, one JSON line each, when a unit was yielded, when its pictures were encoded and when they were given
to the connection.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.device import EngineDevice
from app.hub import Job
from app.server import free_port, launch, serve_forever
from app.wire import unpack
from videoar.checkpoint import ModelInfo
from videoar.engine import Engine
from videoar.events import ClipFinished, ClipStarted, Event, Patch, StepDone, UnitDecoded, UnitStarted
from videoar.plan import Grid, latent_count, picture_range
from videoar.request import resolve

SQUARE, LEVELS = 8, 16
NUMBERS = 256  # after so many they begin again
_TOKEN = 16  # pixels a side
TEXTURES = 8  # different pictures of a film, apart from their stamps

Mark = Callable[[dict[str, Any]], None]


@dataclass
class ScriptedModel:
    """What the page needs of a model. unit_s: how long a unit seems to take; revise: every unit repaints the first four
    pictures, which are those on the screen, instead of adding its own."""

    width: int = 128
    height: int = 128
    frames: int = 29
    fps: float = 8.0
    steps: int = 4
    unit_s: float = 0.1
    revise: bool = False
    mark: Mark | None = None
    clips: Iterator[int] = field(default_factory=itertools.count)

    @property
    def info(self) -> ModelInfo:
        size: dict[str, Any] = {name: getattr(self, name) for name in ("width", "height", "frames", "fps", "steps")}
        return ModelInfo("scripted", ("frame",), "few_step", timesteps=(1000.0,), guidance_scale=1.0, **size)

    def grid(self, request: Any) -> Grid:
        return Grid(latent_count(request.frames or self.frames), self.height // _TOKEN, self.width // _TOKEN)

    def multiples(self) -> tuple[int, int]:
        return _TOKEN, _TOKEN


def generate(model: ScriptedModel, request: Any, **options: bool) -> Iterator[Event]:
    """The events of a film whose units are whole latent frames, at the pace of the script."""
    del options  # there is nothing to overlap
    settings, began, first_s = resolve(model, request), time.perf_counter(), 0.0  # type: ignore[arg-type]
    total, clip = settings.unit_total(), next(model.clips) if model.revise else settings.seed
    size: dict[str, Any] = {"width": settings.width, "height": settings.height}
    sampling: dict[str, Any] = {"steps": len(settings.sigmas), "guidance_scale": 1.0, "sink": settings.sink}
    yield ClipStarted(
        request=settings.request,
        plan=settings.plan,
        frames=settings.frames,
        fps=settings.fps,
        seed=settings.seed,
        unit_total=total,
        window=settings.window,
        model=model.info.name,
        **size,
        **sampling,
    )
    textures = make_textures(settings.seed, settings.width, settings.height)
    film: list[np.ndarray] = []
    units = (unit for slab in settings.slabs() for unit in slab.units)
    for index, unit in enumerate(units):
        first, end = (0, 4) if model.revise else picture_range(unit.frames[0], unit.frames[-1] + 1)
        yield UnitStarted(index, total, unit, (0, 0, settings.width, settings.height), (first, end))
        for step in range(len(settings.sigmas)):
            time.sleep(model.unit_s / len(settings.sigmas))
            yield StepDone(index, total, step, len(settings.sigmas))
        pictures = np.stack(
            [stamped(textures[t % TEXTURES], clip, index if model.revise else t) for t in range(first, end)]
        )
        if total and not model.revise:
            film.append(pictures)
        first_s = first_s or time.perf_counter() - began
        patch = Patch(first, pictures, 0, 0, settings.width, settings.height, preview=model.revise)
        if model.mark:
            model.mark({"what": "yielded", "clip": clip, "unit": index, "at": time.time()})
        yield UnitDecoded(index, total, (patch,), model.unit_s, 0.0, 0.0)
    video = np.concatenate(film or [pictures[:1]])
    yield ClipFinished(settings.seed, index + 1, time.perf_counter() - began, first_s, video)


def make_textures(seed: int, width: int, height: int) -> np.ndarray:
    """uint8 [8, H, W, 3] of soft clouds with a grain, so that they cost about what photographs do. Each seed's own."""
    rng, pictures = np.random.default_rng(seed), []
    for _ in range(TEXTURES):
        soft = rng.integers(30, 226, (max(2, height // 16), max(2, width // 16), 3), np.uint8)
        cloud = np.asarray(Image.fromarray(soft).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        pictures.append(np.clip(cloud + rng.integers(-6, 7, cloud.shape, np.int16), 0, 255).astype(np.uint8))
    return np.stack(pictures)


def stamped(picture_HW3: np.ndarray, clip: int, number: int) -> np.ndarray:
    """A copy with a stamp: the clip modulo 16, the number modulo 256 in two digits, and a check digit."""
    picture = picture_HW3.copy()
    digits = clip % LEVELS, number % NUMBERS // LEVELS, number % LEVELS
    for place, digit in enumerate((*digits, sum(digits) % LEVELS)):
        picture[:SQUARE, place * SQUARE : (place + 1) * SQUARE] = digit * LEVELS + LEVELS // 2
    return picture


def note_times(mark: Mark) -> None:
    """Has the log of every job from now on say when pictures come into it, and when they leave it."""
    put, read = Job.put, Job.read

    def put_and_mark(job: Job, head: dict[str, Any], body: bytes = b"") -> None:
        put(job, head, body)
        if head["kind"] == "paint":
            mark({"what": "encoded", "pane": head["pane"], "unit": head["unit"], "at": time.time()})
        elif head["kind"] == "done":
            mark({"what": "cost", "pane": head["pane"], "unit": head["unit"], "encode_s": head["seconds"][-1]})

    async def read_and_mark(job: Job, *args: Any) -> Any:
        sent = 0  # bytes of this connection
        async for batch in read(job, *args):
            now = time.time()
            for head, body in unpack(batch):
                sent += 8 + len(json.dumps(head, separators=(",", ":")).encode()) + len(body)
                if head["kind"] == "paint":
                    what = {"what": "sent", "pane": head["pane"], "unit": head["unit"], "pictures": len(head["sizes"])}
                    mark(what | {"at": now, "bytes": sent})
            yield batch

    Job.put, Job.read = put_and_mark, read_and_mark  # type: ignore[assignment,method-assign]


def command(model: ScriptedModel, marks: Path | None = None) -> list[str]:
    """The command that serves this model."""
    size, pace = f"{model.width}x{model.height}", ["--fps", str(model.fps), "--unit-seconds", str(model.unit_s)]
    options = [*pace, *(["--revise"] if model.revise else []), *(["--marks", str(marks)] if marks else [])]
    return [sys.executable, "-u", "-m", "bench.app.scripted", "--size", size, "--frames", str(model.frames), *options]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.app.scripted", description=__doc__)
    parser.add_argument("--size", default="128x128", help="width x height (default: 128x128)")
    parser.add_argument("--frames", type=int, default=29)
    parser.add_argument("--fps", type=float, default=8.0)
    parser.add_argument("--unit-seconds", type=float, default=0.1)
    parser.add_argument("--revise", action="store_true", help="every unit repaints the first four pictures")
    parser.add_argument("--marks", type=Path, metavar="FILE", help="note times here")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    model = ScriptedModel(width, height, args.frames, args.fps, unit_s=args.unit_seconds, revise=args.revise)
    if args.marks:
        file = args.marks.open("w", buffering=1)
        model.mark = lambda mark: print(json.dumps(mark), file=file)
        note_times(model.mark)
    device = EngineDevice(lambda: model, lambda model: Engine(model, run=generate))
    server = launch(device, port=free_port("127.0.0.1", None))
    print(server.url, flush=True)
    serve_forever(server)


if __name__ == "__main__":
    main()
