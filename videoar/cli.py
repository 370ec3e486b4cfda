"""The command line: `python -m videoar generate "a red ball bounces"`, `info`, `import`, `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__

if TYPE_CHECKING:
    import torch

    from .checkpoint import Model
    from .events import ClipStarted
    from .request import Request

INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended
UNUSABLE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 2 for input that cannot be used, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["evaluate"]:
        from .evaluate import main as evaluate

        return evaluate(argv[1:]) or 0
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except ValueError as error:
        print(f"videoar: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="videoar", description="Text to video, unit after unit.")
    parser.add_argument("--version", action="version", version=f"videoar {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    generate = commands.add_parser("generate", help="make a clip from a prompt")
    generate.set_defaults(run=_generate)
    generate.add_argument("prompt", help="what the film shows")
    generate.add_argument("--out", type=Path, default=Path("clip.mp4"), help="the MP4 to write (default: clip.mp4)")
    generate.add_argument("--no-overwrite", action="store_true", help="stop if the file exists")
    generate.add_argument(
        "--plan", help="frame, frame:3, key_detail:4, cube:2x2x2, scale:3, full (default: the model's best)"
    )
    generate.add_argument("--negative-prompt", default="", metavar="TEXT", help="what to avoid (with guidance)")
    generate.add_argument("--guidance", type=float, dest="guidance_scale", metavar="G", help="guidance scale, 1 is off")
    for name, help_ in (
        ("steps", "denoising steps per unit"),
        ("seed", "repeats a film; drawn and printed if left out"),
        ("height", "pixels"),
        ("width", "pixels"),
        ("frames", "length of the film, 1 + 4n"),
        ("window", "latent frames of context"),
        ("sink", "first latent frames that are never forgotten"),
    ):
        generate.add_argument(f"--{name}", type=int, metavar="N", help=help_)
    generate.add_argument("--endless", action="store_true", help="go on until Ctrl-C")
    generate.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_model_options(generate)

    info = commands.add_parser("info", help="show what a model is and how it wants to be used")
    info.set_defaults(run=_info)
    _add_model_options(info)

    import_ = commands.add_parser("import", help="make a model folder from a released few-step checkpoint or a LoRA")
    import_.set_defaults(run=_import)
    import_.add_argument("file", type=Path, help=".pt, .pth or .safetensors: a Wan-shaped generator, or a LoRA alone")
    import_.add_argument("--base", required=True, metavar="DIR", help="model folder or hub id it was made from")
    import_.add_argument("--out", required=True, type=Path, metavar="DIR", help="the model folder to write")
    import_.add_argument(
        "--lora", type=Path, action="append", default=[], metavar="FILE", help="merge this one as well"
    )
    import_.add_argument(
        "--recipe",
        default="self-forcing",
        metavar="NAME",
        help="how it was trained: self-forcing (default), causal-forcing, causal-forcing-frame, causvid, longlive",
    )
    import_.add_argument("--timesteps", metavar="LIST", help="not yet warped, such as 1000,750,500,250")
    import_.add_argument("--shift", type=float, metavar="S", help="how far timesteps are warped towards noise")
    import_.add_argument("--plan", help="the plan it was trained for, such as frame:3")
    import_.add_argument("--window", type=int, metavar="N", help="latent frames of context")
    import_.add_argument("--sink", type=int, metavar="N", help="first latent frames that are never forgotten")
    import_.add_argument("--dtype", help="how weights are kept: float32, bfloat16, float16 (default: as in the file)")

    commands.add_parser("evaluate", help="measure a model (see `videoar evaluate --help`)")
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="DIR", help="model folder or hub id (default: the built-in model)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps ... (default: an accelerator if there is one)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the transformer")


def _load(arguments: argparse.Namespace) -> Model:
    import torch

    from .checkpoint import load_model

    if arguments.threads is not None and arguments.threads < 1:
        raise ValueError("--threads is at least 1")
    if arguments.threads or "OMP_NUM_THREADS" not in os.environ:
        # One core is left to the decoder, which runs beside the transformer.
        torch.set_num_threads(arguments.threads or max(1, (os.cpu_count() or 2) - 1))
    try:
        device = torch.device(arguments.device) if arguments.device else None
        return load_model(arguments.model, device)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say that there is no such device
        raise ValueError(f"device {arguments.device!r} cannot be used: {str(error).splitlines()[0]}") from error


def _generate(arguments: argparse.Namespace) -> int:
    from .request import Request

    fields = {item.name: getattr(arguments, item.name) for item in dataclasses.fields(Request)}
    # Checked before the model is loaded, which takes a while.
    request = Request(**fields | {"plan": arguments.plan or "full"})
    out: Path = arguments.out
    if out.suffix.lower() != ".mp4":
        raise ValueError(f"the clip is an MP4: call it {out.with_suffix('.mp4')}")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ValueError(f"there is no writable folder {str(out.parent)!r}")
    if arguments.no_overwrite and out.exists():
        raise ValueError(f"{out} exists already")
    model = _load(arguments)
    if arguments.plan is None:
        request = dataclasses.replace(request, plan=model.info.plans[0])
    return _make(model, request, out, arguments.quiet)


def _make(model: Model, request: Request, out: Path, quiet: bool) -> int:
    """Runs the loop, writes the clip and its settings; after Ctrl-C, what is there so far."""
    from tqdm import tqdm

    from .events import ClipFinished, ClipStarted, StepDone, UnitDecoded
    from .generate import generate

    started: ClipStarted | None = None
    pictures: list[Any] = []
    report: dict[str, Any] = {"units": []}
    events = generate(model, request, previews=False)
    interrupted = False
    with tqdm(disable=quiet, unit="step", dynamic_ncols=True, leave=False) as bar:
        try:
            for event in events:
                if isinstance(event, ClipStarted):
                    started = event
                    bar.reset(total=event.unit_total and event.unit_total * event.steps)
                elif isinstance(event, StepDone):
                    bar.set_description(f"unit {event.index + 1}/{event.total}")
                    bar.update()
                elif isinstance(event, UnitDecoded):
                    pictures.extend(picture for patch in event.patches for picture in patch.frames)
                    times = {"denoise_s": event.denoise_s, "clean_s": event.clean_s, "decode_s": event.decode_s}
                    report["units"].append({key: round(value, 4) for key, value in times.items()})
                elif isinstance(event, ClipFinished):
                    report |= {"seconds": round(event.seconds, 3), "first_frame_s": round(event.first_frame_s, 3)}
        except KeyboardInterrupt:
            interrupted = True
            events.close()  # type: ignore[attr-defined]
    if started is None or not pictures:
        print("videoar: stopped before the first picture", file=sys.stderr)
        return INTERRUPTED
    _write(out, started, pictures, report | {"complete": not interrupted})
    print(
        f"{out}: {len(pictures)} frames, {started.width}x{started.height}, {started.request.plan}, seed {started.seed}"
    )
    return INTERRUPTED if interrupted else 0


def _write(out: Path, started: ClipStarted, pictures: list[Any], report: dict[str, Any]) -> None:
    from .video import write_mp4

    settings = started.settings() | {"frames": len(pictures)}
    try:
        write_mp4(out, pictures, started.fps, settings)
        out.with_suffix(".json").write_text(
            json.dumps(settings | report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror or error}") from error


def _import(arguments: argparse.Namespace) -> int:
    from .importers import import_checkpoint

    changes = {name: getattr(arguments, name) for name in ("shift", "window", "sink")}
    changes = {name: value for name, value in changes.items() if value is not None}
    if arguments.plan is not None:
        changes["plans"] = (arguments.plan,)
    if arguments.timesteps is not None:
        try:
            changes["timesteps"] = tuple(float(part) for part in arguments.timesteps.split(","))
        except ValueError:
            raise ValueError(f"--timesteps are numbers with commas between, not {arguments.timesteps[:80]!r}") from None
    dtype = _dtype(arguments.dtype)
    recipe, loras = arguments.recipe, arguments.lora
    out = import_checkpoint(arguments.file, arguments.base, arguments.out, recipe, loras, dtype, **changes)
    print(f'{out}: try `python -m videoar generate "..." --model {out}`')
    return 0


def _dtype(name: str | None) -> torch.dtype | None:
    import torch

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is not None and name not in kinds:
        raise ValueError(f"--dtype is one of {', '.join(kinds)}, not {name!r}")
    return kinds[name] if name else None


def _info(arguments: argparse.Namespace) -> int:
    model = _load(arguments)
    step_y, step_x = model.multiples()
    parts = {"transformer": model.transformer, "codec": model.vae, "text_encoder": model.text.encoder}
    shown = dataclasses.asdict(model.info) | {
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "codec": type(model.vae).__name__,
        "size_is_multiple_of": {"height": step_y, "width": step_x},
        "device": str(model.device),
        "dtype": str(model.transformer.dtype).removeprefix("torch."),
    }
    print(json.dumps(shown, indent=2, ensure_ascii=False))
    return 0
