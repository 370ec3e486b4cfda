"""The command line: `python -m videoar generate "a red ball bounces"`, `compare`, `info`, `import`, `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__

if TYPE_CHECKING:
    from .checkpoint import Model
    from .events import ClipStarted
    from .request import Request
    from .video import Mp4Writer

_MOST_UNITS = 1000  # whose times are kept for the report, the last ones
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
    except (MemoryError, RuntimeError) as error:  # torch's own error for a full device is a RuntimeError
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        print("videoar: out of memory: choose a smaller size, fewer frames or a smaller window", file=sys.stderr)
        return UNUSABLE
    except OSError as error:
        print(f"videoar: {error.filename or 'a file'} cannot be used: {error.strerror or error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    from .compare import add_compare

    parser = argparse.ArgumentParser(prog="videoar", description="Text to video, unit after unit.")
    parser.add_argument("--version", action="version", version=f"videoar {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    generate = commands.add_parser("generate", help="make a clip from a prompt")
    generate.set_defaults(run=_generate)
    generate.add_argument("prompt", nargs="?", help="what the film shows")
    generate.add_argument(
        "--out", default="clip.mp4", help="the MP4 to write, with a .json beside it (default: %(default)s)"
    )
    generate.add_argument("--no-overwrite", action="store_true", help="stop if one of the two files exists")
    generate.add_argument(
        "--plan", help="frame, frame:3, key_detail:4, cube:2x2x2, scale:3, full (default: the model's best that fits)"
    )
    generate.add_argument("--negative-prompt", default="", metavar="TEXT", help="what to avoid (with guidance)")
    generate.add_argument(
        "--guidance", type=number, dest="guidance_scale", metavar="G", help="guidance scale, 1 is off"
    )
    for name, help_ in (
        ("steps", "denoising steps per unit"),
        ("seed", "repeats a film; drawn and printed if left out"),
        ("height", "pixels"),
        ("width", "pixels"),
        ("window", "latent frames of context: more is more coherent, less is faster"),
        ("sink", "first latent frames that are never forgotten"),
    ):
        generate.add_argument(f"--{name}", type=whole, metavar="N", help=help_)
    length = generate.add_mutually_exclusive_group()
    length.add_argument("--frames", type=whole, metavar="N", help="length of the film, 1 + 4n")
    length.add_argument("--seconds", type=number, metavar="S", help="length of the film, rounded up")
    length.add_argument("--endless", action="store_true", help="go on until Ctrl-C")
    generate.add_argument(
        "--storyboard", metavar="FILE", help='prompts with times, a line each: "0:12 a red ball at night"'
    )
    generate.add_argument(
        "--continue-from", metavar="FILE", help="a picture or clip that the film goes on from; it opens the MP4"
    )
    generate.add_argument("--quiet", action="store_true", help="no progress bar")
    add_model_options(generate)

    add_compare(commands)

    info = commands.add_parser("info", help="show what a model is and how it wants to be used")
    info.set_defaults(run=_info)
    add_model_options(info)

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
    import_.add_argument("--shift", type=number, metavar="S", help="how far timesteps are warped towards noise")
    import_.add_argument("--plan", help="the plan it was trained for, such as frame:3")
    import_.add_argument("--window", type=whole, metavar="N", help="latent frames of context")
    import_.add_argument("--sink", type=whole, metavar="N", help="first latent frames that are never forgotten")
    import_.add_argument("--dtype", help="how weights are kept: float32, bfloat16, float16 (default: as in the file)")

    commands.add_parser("evaluate", help="measure a model (see `videoar evaluate --help`)")
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="DIR", help="model folder or hub id (default: the built-in model)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps ... (default: an accelerator if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on a CPU, else bfloat16)")
    parser.add_argument(
        "--offload",
        default="none",
        metavar="WHAT",
        help="for small GPUs: text keeps the text encoder in CPU memory, blocks the transformer as well",
    )
    parser.add_argument("--decoder", type=Path, metavar="FILE", help="decode with this tiny decoder (taew2_1)")
    parser.add_argument("--compile", action="store_true", help="fuse operations (takes a minute, and a C++ compiler)")
    parser.add_argument("--threads", type=whole, metavar="N", help="CPU threads of the transformer")


def whole(text: str) -> int:
    # int() alone would also read 1_0 and the digits of other scripts, and argparse would repeat a value of any length.
    if re.fullmatch("[+-]?[0-9]{1,400}", text.strip()):
        return int(text)
    raise argparse.ArgumentTypeError(f"a whole number is wanted, not {_short(text)}")


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number is wanted, not {_short(text)}") from None


def _short(text: str) -> str:
    from .request import shown  # imports torch, which only an error has time for

    return shown(text)


def load(arguments: argparse.Namespace) -> Model:
    import torch

    from .checkpoint import load_model

    if arguments.threads is not None and not 1 <= arguments.threads <= 1024:
        raise ValueError("--threads is a number from 1 to 1024")
    if arguments.threads or "OMP_NUM_THREADS" not in os.environ:
        # One core is left to the decoder, which runs beside the transformer.
        torch.set_num_threads(arguments.threads or max(1, (os.cpu_count() or 2) - 1))
    return load_model(
        arguments.model,
        arguments.device,
        arguments.dtype,
        offload=arguments.offload,
        decoder=arguments.decoder,
        compiled=arguments.compile,
    )


def _generate(arguments: argparse.Namespace) -> int:
    from .request import Request, frames_for
    from .storyboard import read_storyboard

    # Checked before the model is loaded, which takes a while.
    scenes = read_storyboard(arguments.storyboard) if arguments.storyboard is not None else ()
    if scenes and arguments.prompt is not None:
        raise ValueError("the storyboard begins with a prompt of its own: leave one of the two out")
    names = {item.name for item in dataclasses.fields(Request)} - {"prompt", "storyboard", "start"}
    request = Request(
        prompt=scenes[0].prompt if scenes else arguments.prompt or "",
        storyboard=scenes[1:],
        **{name: getattr(arguments, name) for name in names},
    )
    out = target(arguments.out, arguments.no_overwrite)
    source = arguments.continue_from
    if source is not None and not Path(source).is_file():
        raise ValueError(f"there is no file {_short(source)} to continue from")
    model = load(arguments)
    if arguments.seconds is not None:
        request = dataclasses.replace(request, frames=frames_for(arguments.seconds, model.info.fps))
    return _make(model, request, out, arguments.quiet, source)


def target(text: str, no_overwrite: bool, suffixes: Sequence[str] = (".mp4",)) -> Path:
    """Where the clip goes, a file with such a suffix. Raises ValueError if it or its settings cannot be written."""
    out = Path(text)
    if not out.name or out.name == "..":
        raise ValueError(f"--out names an MP4 file, for example clip.mp4, not {_short(text)}")
    if out.suffix.lower() not in suffixes:
        kinds = " or ".join(suffix[1:].upper() for suffix in suffixes)
        raise ValueError(f"the clip is an {kinds}: call it {_short(str(out.with_suffix('.mp4')))}")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ValueError(f"there is no writable folder {_short(str(out.parent))}")
    for file in (out, out.with_suffix(".json")):
        try:
            exists = file.exists()
        except OSError as error:  # a name that is too long
            raise ValueError(f"cannot write {_short(str(file))}: {error.strerror}") from error
        if exists and not file.is_file():
            raise ValueError(f"cannot write {file}: something that is not a file has that name")
        if exists and no_overwrite:
            raise ValueError(f"{file} exists already")
        if exists and not os.access(file, os.W_OK):
            raise ValueError(f"cannot write {file}: it is read-only")
    return out


def _make(model: Model, request: Request, out: Path, quiet: bool, source: str | None = None) -> int:
    """Runs the loop and writes the clip and its settings; also after Ctrl-C or an error, with what is there.

    source: a picture or clip that the film continues; it is written in front of it.
    """
    from tqdm import tqdm

    from .continuing import continue_from
    from .events import ClipFinished, ClipStarted, StepDone, UnitDecoded
    from .generate import generate
    from .painting import Painting
    from .video import Mp4Writer, read_pictures

    if source is not None:
        request = continue_from(model, request, source)
    # With previews: whatever has been painted when somebody presses Ctrl-C is kept.
    events = generate(model, request, keep=False)
    started = next(events)
    assert isinstance(started, ClipStarted), "every film begins with it"
    total = started.unit_total
    painting, writer = Painting(started.height, started.width), Mp4Writer(out, started.fps, started.settings())
    # Bounded, as everything here: a film may have no end.
    report: dict[str, Any] = {"complete": False, "units_made": 0, "units": deque(maxlen=_MOST_UNITS)}
    report |= _machinery(model)
    if not model.info.knows(plan := started.request.plan or ""):
        trained = ", ".join(model.info.plans)
        print(f"videoar: {model.info.name} was trained for {trained}: {plan} may look wrong", file=sys.stderr)
    if not quiet:
        device, dtype, attention = _machinery(model).values()
        print(f"{model.info.name}: {device}, {dtype}, attention {attention}", file=sys.stderr)
    if source is not None:
        for picture in read_pictures(source, started.width, started.height, started.fps):
            writer.write(picture)
        report |= {"continued_from": Path(source).name, "given_frames": writer.frames}
    bar = tqdm(total=total and total * started.steps, disable=quiet, unit="step", dynamic_ncols=True, leave=False)
    with first_ctrl_c_asks() as asked:
        try:
            for event in events:
                if isinstance(event, StepDone):
                    bar.set_description(f"unit {event.index + 1}" + (f"/{total}" if total else ""))
                    bar.update()
                elif isinstance(event, UnitDecoded):
                    for patch in event.patches:
                        painting.paint(patch)
                    for picture in painting.take():
                        writer.write(picture)
                    times = {"denoise_s": event.denoise_s, "clean_s": event.clean_s, "decode_s": event.decode_s}
                    report["units"].append({key: round(value, 4) for key, value in times.items()})
                    report["units_made"] += 1
                elif isinstance(event, ClipFinished):
                    seconds = {"seconds": round(event.seconds, 3), "first_frame_s": round(event.first_frame_s, 3)}
                    report |= {"complete": True} | seconds
                if asked:
                    break
        finally:
            bar.close()
            for picture in painting.film():
                writer.write(picture)
            _finish(writer, started, report)
    if writer.frames == report.get("given_frames", 0):
        print("videoar: stopped before the first picture", file=sys.stderr)
        return INTERRUPTED
    said = f"{writer.frames} frames, {started.width}x{started.height}, {started.request.plan}, seed {started.seed}"
    stopped = f" (stopped after {report['units_made']} of {total or 'endless'} units, previews included)"
    print(f"{out}: {said}{'' if report['complete'] else stopped}")
    # Ctrl-C is how an endless film ends.
    return 0 if report["complete"] or request.endless else INTERRUPTED


def _finish(writer: Mp4Writer, started: ClipStarted, report: dict[str, Any]) -> None:
    """Gives the clip its name and writes its settings beside it; a clip without pictures leaves nothing."""
    if writer.frames == report.get("given_frames", 0):
        writer.discard()
        return
    settings = started.settings()
    if not report["complete"]:
        settings |= {"kept_frames": writer.frames, "stopped_after_units": report["units_made"]}
    writer.finish(settings)
    text = json.dumps(settings | report | {"units": list(report["units"])}, indent=2, ensure_ascii=False)
    writer.path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


@contextmanager
def first_ctrl_c_asks() -> Iterator[list[int]]:
    """Notes the first Ctrl-C, so that the step in flight and the file are finished; the second one interrupts."""
    asked: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _import(arguments: argparse.Namespace) -> int:
    from .importers import import_checkpoint
    from .weights import parse_dtype

    changes = {name: getattr(arguments, name) for name in ("shift", "window", "sink")}
    changes = {name: value for name, value in changes.items() if value is not None}
    if arguments.plan is not None:
        changes["plans"] = (arguments.plan,)
    if arguments.timesteps is not None:
        try:
            changes["timesteps"] = tuple(float(part) for part in arguments.timesteps.split(","))
        except ValueError:
            raise ValueError(f"--timesteps are numbers with commas between, not {arguments.timesteps[:80]!r}") from None
    dtype = parse_dtype(arguments.dtype)
    recipe, loras = arguments.recipe, arguments.lora
    out = import_checkpoint(arguments.file, arguments.base, arguments.out, recipe, loras, dtype, **changes)
    print(f'{out}: try `python -m videoar generate "..." --model {out}`')
    return 0


def _machinery(model: Model) -> dict[str, str]:
    dtype = str(model.transformer.dtype).removeprefix("torch.")
    return {"device": str(model.device), "dtype": dtype, "attention": model.attention}


def _info(arguments: argparse.Namespace) -> int:
    model = load(arguments)
    step_y, step_x = model.multiples()
    parts = {"transformer": model.transformer, "codec": model.vae, "text_encoder": model.text.encoder}
    shown = dataclasses.asdict(model.info) | {
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "codec": type(model.vae).__name__,
        "size_is_multiple_of": {"height": step_y, "width": step_x},
        **_machinery(model),
    }
    print(json.dumps(shown, indent=2, ensure_ascii=False))
    return 0
