"""The README's moving picture: a film as its viewer saw it, cube after cube, drawn from the events of a real run."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from videoar.checkpoint import load_model
from videoar.generate import ClipFinished, ClipStarted, Request, UnitDecoded, UnitStarted, generate

from .builtin import PROMPT

ROOT = Path(__file__).resolve().parent.parent
SCALE, SHOWN, GAP, TICKS = 2, 6, 6, 2

# What a viewer has at a moment: caption, film so far [T, H, W, 3], and the region and frames being denoised.
State = tuple[str, np.ndarray, tuple | None]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench media", description=__doc__)
    parser.add_argument("--model", help="model folder (default: the built-in model)")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--plan", default="cube")
    parser.add_argument("--seed", type=int, default=5, help="default: 5, the best of the first eight")
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
            assert event.frames is not None, "an endless film cannot be drawn"
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


def compose(states: list[State], video: np.ndarray, prompt: str, fps: float) -> tuple[list[Image.Image], list[int]]:
    """The player over a strip of frames: a few ticks for each state of the film, then the whole film once."""
    ticks = [state for state in states for _ in range(TICKS)]
    ticks += [("the film", video, None)] * len(video)
    pictures = [
        _page(caption, film, region, prompt, tick % len(video)) for tick, (caption, film, region) in enumerate(ticks)
    ]
    return pictures, [round(1000 / fps)] * len(pictures)


def _page(caption: str, film: np.ndarray, region: tuple | None, prompt: str, playing: int) -> Image.Image:
    height, width = film.shape[1:3]
    page = Image.new("RGB", (SHOWN * (width + GAP) + GAP, height * (SCALE + 1) + 3 * GAP + 4), (17, 18, 24))
    draw = ImageDraw.Draw(page)
    big = Image.fromarray(film[playing]).resize((width * SCALE, height * SCALE), Image.Resampling.BICUBIC)
    page.paste(big, (GAP, GAP))
    _outline(draw, region, playing, GAP, GAP, SCALE)
    left = GAP * 4 + width * SCALE
    for i, line in enumerate(textwrap.wrap(prompt, 36)):
        draw.text((left, 40 + 32 * i), line, fill=(240, 240, 245), font_size=26)
    draw.text((left, 150), caption, fill=(150, 190, 255), font_size=22)
    draw.text((left, 190), f"frame {playing + 1} of {len(film)}", fill=(150, 152, 165), font_size=18)
    for column, frame in enumerate(np.linspace(0, len(film) - 1, SHOWN).round().astype(int)):
        x, y = GAP + column * (width + GAP), height * SCALE + 2 * GAP + 4
        page.paste(Image.fromarray(film[frame]), (x, y))
        _outline(draw, region, frame, x, y, 1)
    return page


def _outline(draw: ImageDraw.ImageDraw, region: tuple | None, frame: int, left: int, top: int, scale: int) -> None:
    """The box of the unit that is being denoised, where this frame is part of it."""
    if region is None or not region[1][0] <= frame < region[1][1]:
        return
    x, y, w, h = (value * scale for value in region[0])
    draw.rectangle((left + x, top + y, left + x + w - 1, top + y + h - 1), outline=(90, 160, 255), width=2)
