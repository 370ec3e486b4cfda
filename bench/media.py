"""The README's moving picture: a film as its viewer saw it, cube after cube, drawn from the events of a real run."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from videoar.checkpoint import load_model
from videoar.generate import ClipFinished, ClipStarted, Request, UnitDecoded, UnitStarted, generate

from .builtin import PROMPT

ROOT = Path(__file__).resolve().parent.parent
SCALE, SHOWN = 2, 6

# What a viewer has at a moment: caption, film so far [T, H, W, 3], and the region and frames being denoised.
State = tuple[str, np.ndarray, tuple | None]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench media", description=__doc__)
    parser.add_argument("--model", help="model folder (default: the built-in model)")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--plan", default="cube")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "media" / "cubes.webp")
    args = parser.parse_args(argv)
    model = load_model(args.model)
    states, video = record(model, Request(args.prompt, plan=args.plan, seed=args.seed))
    pictures, durations = compose(states, video, args.prompt, model.info.fps)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(
        args.out, save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=80, method=4
    )
    print(args.out, f"{args.out.stat().st_size / 1024:.0f} kB, {len(pictures)} pictures")
    return 0


def record(model, request: Request) -> tuple[list[State], np.ndarray]:
    """What a viewer's canvas holds after each unit: (caption, film so far [T, H, W, 3], region being denoised)."""
    states: list[State] = []
    film = np.zeros(0, np.uint8)
    for event in generate(model, request):
        if isinstance(event, ClipStarted):
            film = np.full((event.frames, event.height, event.width, 3), 22, np.uint8)
        elif isinstance(event, UnitStarted):
            region = (event.region, event.frame_range)
            states.append((f"unit {event.index + 1} of {event.total}: denoising", film.copy(), region))
        elif isinstance(event, UnitDecoded):
            for p in event.patches:
                for k, frame in enumerate(p.frames):
                    picture = Image.fromarray(frame).resize((p.width, p.height), Image.Resampling.BILINEAR)
                    film[p.first_frame + k, p.y : p.y + p.height, p.x : p.x + p.width] = np.asarray(picture)
            states.append((f"unit {event.index + 1} of {event.total}: done", film.copy(), None))
        elif isinstance(event, ClipFinished):
            return states, event.video
    raise ValueError("the film was not finished")


def compose(states, video, prompt: str, fps: float) -> tuple[list[Image.Image], list[int]]:
    """Each state as a strip of frames for a moment, then the finished film playing in the first place."""
    picks = np.linspace(0, len(video) - 1, SHOWN).round().astype(int)
    pictures, durations = [], []
    for caption, film, region in states:
        pictures.append(_strip(film, picks, prompt, caption, region))
        durations.append(350)
    durations[-1] = 900
    for i in range(len(video)):
        pictures.append(_strip(np.roll(video, -i, 0), np.zeros(1, int), prompt, "the film", None, big=True))
        durations.append(round(1000 / fps))
    return pictures, durations


def _strip(film, picks, prompt: str, caption: str, region, big: bool = False) -> Image.Image:
    height, width = film.shape[1:3]
    canvas = Image.new("RGB", (SHOWN * (width + 6) + 6, height * SCALE // 2 + 64), (17, 18, 24))
    draw = ImageDraw.Draw(canvas)
    draw.text((10, 8), prompt, fill=(240, 240, 245), font_size=18)
    draw.text((10, 34), caption, fill=(150, 190, 255), font_size=14)
    for column, frame in enumerate(picks):
        x = 6 + column * (width + 6) if not big else (canvas.width - width) // 2
        canvas.paste(Image.fromarray(film[frame]), (x, 58))
        if region is not None:
            (rx, ry, rw, rh), (start, stop) = region
            if start <= frame < stop:
                draw.rectangle((x + rx, 58 + ry, x + rx + rw - 1, 58 + ry + rh - 1), outline=(90, 160, 255), width=2)
    return canvas
