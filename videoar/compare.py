"""`python -m videoar compare "a red ball" --plans cube frame --out compare.mp4`: a fair race, filmed side by side."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli import INTERRUPTED, UNUSABLE, add_model_options, first_ctrl_c_asks, load, number, target, whole

if TYPE_CHECKING:
    from .checkpoint import Model
    from .request import Request
    from .takes import Take

_FASTEST = 1000


def add_compare(commands: Any) -> None:
    """Adds the command to the parsers of the command line."""
    parser = commands.add_parser("compare", help="race several plans on one device and film it side by side")
    parser.set_defaults(run=_compare)
    parser.add_argument("prompt", help="what all films show")
    parser.add_argument("--plans", nargs="+", required=True, metavar="PLAN", help="up to 5, as for generate --plan")
    parser.add_argument(
        "--out",
        nargs="+",
        default=["compare.mp4"],
        metavar="FILE",
        help="MP4, GIF or WebP files, with all timings as .json beside the first (default: compare.mp4)",
    )
    parser.add_argument("--no-overwrite", action="store_true", help="stop if one of the files exists")
    parser.add_argument(
        "--sync",
        choices=("device", "real", "film"),
        default="device",
        help="show each film by its own device time (default), as it was seen live, or only the finished films",
    )
    parser.add_argument("--speed", type=number, default=1.0, metavar="X", help="show the race so many times faster")
    for name, help_ in (("steps", "denoising steps per unit"), ("window", "latent frames of context")):
        help_ = f"{help_}: one number for all, or one for each plan"
        parser.add_argument(f"--{name}", nargs="+", type=whole, metavar="N", help=help_)
    for name, help_ in (("seed", "the same for all"), ("height", "pixels"), ("width", "pixels"), ("frames", "1 + 4n")):
        parser.add_argument(f"--{name}", type=whole, metavar="N", help=help_)
    parser.add_argument("--guidance", type=number, dest="guidance_scale", metavar="G", help="guidance scale, 1 is off")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_model_options(parser)


def _compare(arguments: argparse.Namespace) -> int:
    from .montage import SUFFIXES

    # Checked before the model is loaded, which takes a while.
    requests = _contenders(arguments)
    outs = [target(text, arguments.no_overwrite, SUFFIXES) for text in arguments.out]
    if not 0 < arguments.speed <= _FASTEST:  # NaN is in no range
        raise ValueError(f"--speed is a number above 0 and up to {_FASTEST}, not {arguments.speed}")
    takes, complete = _record(load(arguments), requests, arguments.quiet)
    written = _write(takes, outs, arguments.sync, arguments.speed)
    return (0 if written else UNUSABLE) if complete else INTERRUPTED


def _contenders(arguments: argparse.Namespace) -> list[Request]:
    """One request for each plan, all of the same seed. Raises ValueError."""
    from .race import MOST_CONTENDERS
    from .request import LARGEST_SEED, Request

    count = len(arguments.plans)
    if count > MOST_CONTENDERS:
        raise ValueError(f"a comparison has up to {MOST_CONTENDERS} plans, not {count}")
    each: dict[str, list[int | None]] = {}
    for name in ("steps", "window"):
        values = getattr(arguments, name) or [None]
        if len(values) not in (1, count):
            raise ValueError(f"--{name} takes one number for all plans or one for each of the {count}")
        each[name] = values * count if len(values) == 1 else values
    seed = secrets.randbelow(LARGEST_SEED + 1) if arguments.seed is None else arguments.seed
    shared = {name: getattr(arguments, name) for name in ("height", "width", "frames", "guidance_scale")}
    return [
        Request(arguments.prompt, plan, seed=seed, steps=steps, window=window, **shared)
        for plan, steps, window in zip(arguments.plans, each["steps"], each["window"], strict=True)
    ]


def _record(model: Model, requests: Sequence[Request], quiet: bool) -> tuple[list[Take], bool]:
    """Runs the race; also what there is of it when Ctrl-C came, and whether it did not."""
    from tqdm import tqdm

    from .events import StepDone
    from .race import race
    from .takes import Recorder

    turns, recorder = race(model, requests), Recorder([_label(request, requests) for request in requests])
    with first_ctrl_c_asks() as asked, tqdm(disable=quiet, unit="step", leave=False) as bar:
        for turn in turns:
            recorder.add(turn)
            bar.update(isinstance(turn.event, StepDone))
            if asked:
                break
    return recorder.takes(), not asked


def _label(request: Request, among: Sequence[Request]) -> str:
    """What sets a contender apart: its plan, and its steps and window where they differ."""
    parts = [str(request.plan)]
    for name, words in (("steps", "{} steps"), ("window", "window {}")):
        value = getattr(request, name)
        if value is not None and len({getattr(other, name) for other in among}) > 1:
            parts.append(words.format(value))
    return ", ".join(parts)


def _write(takes: Sequence[Take], outs: Sequence[Path], sync: str, speed: float) -> bool:
    """Writes the files and says who was how fast; false if there is no picture to show."""
    from .montage import Montage
    from .takes import timings

    figures = timings(takes)
    for contender in figures["contenders"]:
        first, end = (contender[f"{name}_clock"] for name in ("first_picture", "finished"))
        said = [contender.get("message") or contender["status"]] if end is None else [f"finished after {end:.2f} s"]
        said += [] if first is None else [f"first picture after {first:.2f} s"]
        print(f"{contender['label']}: {', '.join(said)}")
    if figures["first_picture"] is None:
        print("videoar: nobody got as far as a first picture", file=sys.stderr)
        return False
    montage = Montage(takes, sync, speed)
    for out in outs:
        montage.write(out)
    text = json.dumps(montage.settings() | figures, indent=2, ensure_ascii=False)
    outs[0].with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    print(*outs)
    return True
