"""Long films: whether time per unit and memory stay flat, and whether the picture drifts.

One film for each window and sink, made as `videoar generate --seconds` makes it: nothing of it is kept but figures, and
the file if --video asks for it. Every few seconds of film a sample is taken: the time of its units (as a viewer waits,
and as processor time, which other programs disturb less), the resident memory of the process, and of its pictures
saturation, sharpness, motion, colour and the scene that the evaluation reads. Films that are done stand in the result
already and are not made again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from videoar.checkpoint import load_model
from videoar.evaluate.scene import read_scene
from videoar.generate import Generation, Request, UnitDecoded, generate
from videoar.playworld import parse_caption
from videoar.request import frames_for, resolve
from videoar.video import Mp4Writer, fit

from .drift import plot
from .machine import machine, read_result, write_result

PROMPT = "a red ball rolls right across a sunny meadow"
# What a sample says of the pictures, beside the scene.
LOOKS = ("saturation", "sharpness", "motion", "red", "green", "blue")

Sample = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench long", description=__doc__)
    parser.add_argument("--model", help="model folder (default: the built-in model)")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--plan", help="unit type (default: the model's best)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="denoising steps per unit (default: the model's)")
    parser.add_argument("--seconds", type=float, default=1000.0, help="length of each film (default: 1000)")
    parser.add_argument("--window", type=int, nargs="+", metavar="N", help="latent frames of context (default: a clip)")
    parser.add_argument("--sink", type=int, nargs="+", default=[0, 1], metavar="N", help="default: 0 1")
    parser.add_argument("--every", type=float, default=5.0, metavar="S", help="film seconds per sample (default: 5)")
    parser.add_argument("--video", type=Path, metavar="DIR", help="keep the films here")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw the samples")
    parser.add_argument("--out", type=Path, help="default: bench/results/long.json")
    args = parser.parse_args(argv)
    model = load_model(args.model)
    frames = frames_for(args.seconds, model.info.fps)
    requests = [
        Request(args.prompt, args.plan, args.steps, args.seed, frames=frames, window=window, sink=sink)
        for window in args.window or [model.grid(model.info).T]
        for sink in args.sink
    ]
    for request in requests:
        resolve(model, request)  # all of them, before hours are spent on the first
    head = {**machine(), "model": model.info.name, "weights": dict(model.info.provenance), "every_s": args.every}
    films = _made(read_result("long", args.out), head)
    for request in requests:
        settings = resolve(model, request)
        asked: dict[str, Any] = {"prompt": request.prompt, "plan": settings.request.plan, "seed": request.seed}
        asked |= {"steps": len(settings.sigmas), "guidance_scale": settings.guidance_scale}
        asked |= {"frames": frames, "window": request.window, "sink": request.sink}
        if any(asked.items() <= film.items() for film in films):
            continue
        samples: list[Sample] = []
        for sample in measure(model, request, args.every, _writer(args.video, request, model.info.fps)):
            samples.append(sample)
            print(_line(asked, sample), flush=True)
        films.append(asked | {"summary": summarise(samples, _window_s(model, request)), "samples": samples})
        print(write_result("long", head | {"films": films}, args.out))
    for film in films:
        print(f"window {film['window']}, sink {film['sink']}: {film['summary']}")
    if args.plot:
        args.plot.write_text(plot(films), encoding="utf-8")
        print(args.plot)
    return 0


def measure(model: Any, request: Request, every: float, writer: Mp4Writer | None = None) -> Iterator[Sample]:
    """Makes the film and yields a sample for every so many seconds of it; what is left over at the end is left out."""
    info, process = model.info, psutil.Process()
    wanted = parse_caption(request.prompt)
    size = max(1, round(every * info.fps))  # pictures of a sample
    pictures: list[np.ndarray] = []
    waited: list[float] = []
    done, since, worked = 0, time.perf_counter(), time.process_time()
    events: Generation = generate(model, request, previews=False, keep=False)
    try:
        for event in events:
            if not isinstance(event, UnitDecoded):
                continue
            waited.append(time.perf_counter() - since)
            since = time.perf_counter()
            for picture in (picture for patch in event.patches for picture in patch.frames):
                pictures.append(picture)
                if writer:
                    writer.write(picture)
            if len(pictures) < size:
                continue
            done, worked = done + len(pictures), time.process_time() - worked
            scene = read_scene(np.stack([fit(picture, 64, 64) for picture in pictures])).scene
            yield {
                "film_s": round(done / info.fps, 2),
                "units": len(waited),
                "unit_s": round(statistics.median(waited), 4),
                "unit_s_p95": round(float(np.quantile(waited, 0.95)), 4),
                "cpu_s": round(worked / len(waited), 4),
                "rss_mb": round(process.memory_info().rss / 2**20, 1),
                **looks(np.stack(pictures)),
                "scene": scene,
                "scene_right": wanted.scene == scene if wanted and wanted.scene else None,
            }
            pictures, waited = [], []
            since, worked = time.perf_counter(), time.process_time()  # measuring is nobody's wait
        if writer:
            writer.finish()
    finally:
        events.close()


def looks(video_THWC: np.ndarray) -> dict[str, float]:
    """Saturation (0 grey, 1 pure), sharpness (mean step between neighbouring pixels) and motion (mean step between
    successive pictures), both of luma in 0..255, and the mean colour in 0..255."""
    video = video_THWC.astype(np.float32)
    most, least = video.max(-1), video.min(-1)
    luma = video @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    steps = [np.abs(np.diff(luma, axis=axis)).mean() for axis in (1, 2, 0)]
    figures = ((most - least) / np.maximum(most, 1)).mean(), (steps[0] + steps[1]) / 2, steps[2], *video.mean((0, 1, 2))
    return {name: round(float(figure), 4) for name, figure in zip(LOOKS, figures, strict=True)}


def summarise(samples: list[Sample], window_s: float) -> dict[str, Any]:
    """The end of a film beside its beginning: its last fifth and the first fifth after the first window.

    Ratios of medians for time and looks; the growth of the most memory in percent; the distance of the mean colours in
    0..255; and the share of all samples with the right scene.
    """
    after = [sample for sample in samples if sample["film_s"] > window_s]
    fifth = len(after) // 5
    if not fifth:
        return {"too_short": True}

    def ends(name: str) -> tuple[float, float]:
        first, last = (statistics.median(s[name] for s in part) for part in (after[:fifth], after[-fifth:]))
        return first, last

    ratios = {}
    for name in ("unit_s", "cpu_s", "saturation", "sharpness", "motion"):
        first, last = ends(name)
        ratios[f"{name}_ratio"] = round(last / first, 4) if first else None
    steps = [last - first for first, last in map(ends, ("red", "green", "blue"))]
    early, late = (max(s["rss_mb"] for s in part) for part in (after[:fifth], after[-fifth:]))
    right = [s["scene_right"] for s in samples if s["scene_right"] is not None]
    return ratios | {
        "unit_s": round(statistics.median(s["unit_s"] for s in after), 4),
        "memory_growth_percent": round(100 * (late / early - 1), 3),
        "color_shift": round(float(np.linalg.norm(steps)), 2),
        "scene_right": round(sum(right) / len(right), 3) if right else None,
    }


def _window_s(model: Any, request: Request) -> float:
    window = resolve(model, request).window or model.grid(model.info).T
    return 4 * window / model.info.fps


def _writer(folder: Path | None, request: Request, fps: float) -> Mp4Writer | None:
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return Mp4Writer(folder / f"long-window{request.window}-sink{request.sink}.mp4", fps)


def _made(result: dict[str, Any] | None, head: dict[str, Any]) -> list[dict[str, Any]]:
    """The films of an earlier result, if it is of the same weights and machine."""
    same = ("hardware", "torch", "model", "weights", "every_s")
    return [] if result is None or any(result.get(name) != head[name] for name in same) else result["films"]


def _line(asked: dict[str, Any], sample: Sample) -> str:
    total = asked["frames"]
    text = f"window {asked['window']} sink {asked['sink']}: {sample['film_s']:7.1f} s of film ({total} frames), "
    text += f"{sample['unit_s']:.3f} s a unit, {sample['rss_mb']:.0f} MB, saturation {sample['saturation']:.3f}, "
    return text + f"sharpness {sample['sharpness']:.2f}, {sample['scene']}"
