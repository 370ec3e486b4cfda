"""`python -m train sprint`: base, causal, guidance and dmd in one process, each within a budget of seconds.

Worker processes render the clips meanwhile. What is trained is written to --out every minute, in files under 16 MB that
`--join` puts together into a model folder. A stage without seconds of its own gets its share of --seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import torch

from videoar.checkpoint import Model, load_model
from videoar.codec import TinyCodec
from videoar.generate import ClipFinished, Request, generate
from videoar.memory import gigabytes
from videoar.provenance import commit, hardware
from videoar.transformer import VideoARTransformer3DModel

from .export import check_target, info_of, known_provenance, replace_model
from .pieces import MANIFEST, Pieces, join
from .presets import PRESETS, Preset, get_preset
from .render import Workers, kind_of
from .sprint import STAGES, Sprint, Weights, budgets, check_stage

SHARES = {"base": 0.55, "causal": 0.25, "guidance": 0.06, "dmd": 0.14}
CHECK_STEPS = 20
LEAST = 0.1  # of a stage's seconds; with fewer it is not begun
LONGEST_START = 600.0  # seconds that Python and its packages may need


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train sprint", description=__doc__)
    add = parser.add_argument
    add("--preset", default="builtin-gpu", choices=list(PRESETS))
    add("--parts", type=Path, help="model folder with text encoder and codec (default: the built-in model)")
    add("--init", type=Path, help="model folder whose transformer is trained on, instead of a new one")
    add("--out", type=Path, help="folder of the pieces (default: runs/PRESET/sprint), with --join of the model")
    add("--pool", type=Path, help="folder of the rendered clips, which stay there (default: a temporary one)")
    add("--clips", type=int, help="clips to render (default: the preset's)")
    add("--workers", type=int, help="processes that render (default: one for each core but two)")
    add("--seconds", type=float, help="of the whole command, its start included: stages are shortened to fit")
    for stage in STAGES:
        add(f"--{stage}", type=float, metavar="S", help=f"seconds of {stage}, 0 to leave it out")
    add("--reserve", type=float, default=20.0, metavar="S", help="of --seconds, kept for the end (default: 20)")
    add("--batch", type=int, help="clips of a step, in every stage (default: the preset's)")
    add("--seed", type=int, default=0)
    add("--threads", type=int, help="CPU threads (default: torch's own choice)")
    add("--eager", action="store_true", help="do not compile the element-wise functions")
    add("--check", action="store_true", help=f"{CHECK_STEPS} steps of every stage: times, memory, an export")
    add("--join", type=Path, metavar="FOLDER", help="make the model folder --out of the pieces in FOLDER")
    add("--network", choices=STAGES, help="--join: the weights of this stage (default: the newest)")
    return parser


def main(argv: Sequence[str]) -> int:
    args = make_parser().parse_args(argv)
    if args.join is not None:
        out = join_model(args.join, args.out or args.join / "model", args.parts, args.network)
        print(f"wrote {out}; try it: python app.py --model {out}")
        return 0
    _validate(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup wants to hear no SIGHUP
            signal.signal(number, lambda got, _: sys.exit(128 + got))  # so that the workers end with this process
    preset = get_preset(args.preset)
    preset = dataclasses.replace(preset, pool_clips=args.clips or preset.pool_clips)
    if args.batch is not None and args.batch > preset.pool_clips:
        raise ValueError(f"a --batch of {args.batch:,} is more than all {preset.pool_clips:,} clips")
    out = args.out or Path("runs") / args.preset / "sprint"
    with tempfile.TemporaryDirectory(prefix="pool-") as temporary:
        pool = args.pool or Path(temporary)
        options = ["--preset", args.preset, "--clips", str(preset.pool_clips), "--seed", str(args.seed)]
        options += ["--pool", str(pool)] + (["--parts", str(args.parts)] if args.parts else [])
        count = max(1, (os.cpu_count() or 1) - 2) if args.workers is None else args.workers
        with Workers(count, options, pool) as workers:  # first: they need as long to start as this process does
            try:
                return _sprint(args, shlex.join(argv), preset, pool, workers, out)
            except KeyboardInterrupt:
                print(f"\nstopped; what was trained until then: python -m train sprint --join {out}", file=sys.stderr)
                return 130
            except RuntimeError as error:  # the device's errors
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
                raise OSError(f"the device failed ({reason}); what was written until then is in {out}") from error


def _validate(args: argparse.Namespace) -> None:
    for name in ("clips", "batch", "threads", "seconds"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name} is more than 0, not {value}")
    for name in ("workers", "reserve", *STAGES):
        value = getattr(args, name)
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"--{name} is 0 or more, not {value}")
    open_ended = [f"--{stage}" for stage in STAGES if getattr(args, stage) is None]
    if args.seconds is None and open_ended and not args.check:
        raise ValueError(f"say how long it may take: --seconds 570, or seconds of every stage ({' '.join(open_ended)})")


def _sprint(args: argparse.Namespace, command: str, preset: Preset, pool: Path, workers: Workers, out: Path) -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    parts = load_model(args.parts, device="cpu", dtype=torch.float32)
    kind, preset = kind_of(preset, parts, args.seed), fitted(preset, parts, args.batch)
    out = out / "check" if args.check else out  # a check never takes the place of what was trained
    pieces = Pieces(out, provenance(command, args.seed) | {"preset": args.preset})
    sprint = Sprint(preset, parts, device, pool, kind, pieces, workers, args.seed, not args.eager, say=_say)
    pieces.info["transformer"] = dict(sprint.workshop.new_transformer().config)
    if args.init is not None:
        sprint.weights["init"] = load_start(args.init, sprint)
        pieces.info["started_from"] = known_provenance(args.init)
    _say(f"{hardware()}, preset {preset.name}, {workers.count} workers; started after {_elapsed():.0f} s")
    asked = {stage: getattr(args, stage) for stage in STAGES}
    if args.check:
        return _check(sprint, [stage for stage in STAGES if asked[stage] != 0], args.seconds, args.parts)
    run_stages(sprint, asked, args.seconds, args.reserve, _elapsed)
    if sprint.unwritten is not None:
        raise OSError(f"the newest weights are lost: {sprint.unwritten}")
    if not pieces.networks:
        raise ValueError("nothing was trained: there was no time for any stage")
    _say(f"done after {_elapsed():.0f} s: python -m train sprint --join {out} --out my-model")
    return 0


def run_stages(
    sprint: Sprint,
    asked: dict[str, float | None],
    seconds: float | None,
    reserve: float,
    elapsed: Callable[[], float],
) -> None:
    """Run the stages one after another; what one takes too long is taken from all that are left.

    asked: seconds of each stage, None for its share of what the others leave of `seconds`, those of the whole command.
    """
    left = 0.0 if seconds is None else seconds - reserve - elapsed()
    left -= sum(value for value in asked.values() if value is not None)
    shares = {stage: SHARES[stage] for stage in STAGES if asked[stage] is None}
    plan = {s: max(0.0, left) * shares[s] / sum(shares.values()) if s in shares else asked[s] or 0.0 for s in STAGES}
    stages = [stage for stage in STAGES if plan[stage] > 0]

    def left_over() -> float:
        return float("inf") if seconds is None else max(0.0, seconds - reserve - elapsed())

    for i, stage in enumerate(stages):
        rest = {later: plan[later] for later in stages[i:]}
        if (most := left_over()) > 0:
            patience = most if seconds is None else budgets(rest, most)[stage] / 2
            sprint.wait_for_clips(4 * getattr(sprint.preset, stage).batch, patience, most)
        budget = budgets(rest, left_over())[stage]  # asked anew: clips may have come late
        if budget <= LEAST * plan[stage]:  # its name would promise what its weights cannot: distilled guidance, say
            sprint.say(f"{stage}: left out, of its {plan[stage]:.1f} seconds {budget:.1f} are left")
            continue
        sprint.say(f"{stage}: {budget:.1f} seconds")
        sprint.run(stage, budget)


def _check(sprint: Sprint, stages: list[str], seconds: float | None, parts: Path | None) -> int:
    """Run a few steps of every stage, and make a film with what comes of it."""
    for i, stage in enumerate(stages):
        left = float("inf") if seconds is None else (seconds - _elapsed()) / (len(stages) - i + 1)
        measured = check_stage(sprint, stage, CHECK_STEPS, left)
        peak = "" if measured.peak_bytes is None else f", {gigabytes(measured.peak_bytes)} at the most"
        _say(f"{stage}: all finite{peak}; milliseconds of a plan's first step, and of the fastest after it:")
        for plan, first in measured.first_ms.items():
            _say(f"  {plan}: {first:.0f}, {measured.later_ms.get(plan, float('nan')):.1f}")
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(join_model(sprint.pieces.folder, Path(folder) / "model", parts), device="cpu")
        *_, film = generate(model, Request("a red ball rises at night", seed=0, steps=1), previews=False)
    assert isinstance(film, ClipFinished)
    said = f"the pieces in {sprint.pieces.folder} join to a model that makes films of {len(film.video)} frames"
    _say(f"{sprint.clips.count:,} clips in the pool; {said}; {_elapsed():.0f} s in all")
    return 0


def fitted(preset: Preset, parts: Model, batch: int | None = None) -> Preset:
    """Return the preset with the sizes of the parts that are not trained here, and this batch in every stage."""
    kind, lapped = ("tiny", parts.vae.config.lapped) if isinstance(parts.vae, TinyCodec) else ("wan", False)
    encoder: Any = parts.text.encoder
    changes: dict[str, Any] = {
        "text": dataclasses.replace(preset.text, width=encoder.config.d_model, max_length=parts.info.text_length),
        "codec": dataclasses.replace(preset.codec, kind=kind, z_dim=parts.vae.config.z_dim, lapped=lapped),
    }
    if batch is not None:
        changes |= {stage: dataclasses.replace(getattr(preset, stage), batch=batch) for stage in STAGES}
    return dataclasses.replace(preset, **changes)


def load_start(folder: Path, sprint: Sprint) -> Weights:
    """Return the weights to start from. Raises ValueError for a network of another shape than the preset's."""
    weights, network = sprint.workshop.start(folder).state_dict(), sprint.workshop.new_transformer()
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:200]
        raise ValueError(f"{folder} has another network than the preset {sprint.preset.name}: {reason}") from error
    return weights


def join_model(folder: Path, out: Path, parts_folder: Path | None = None, network: str | None = None) -> Path:
    """Make a model folder of a sprint's pieces. Raises ValueError that names what is missing or damaged."""
    check_target(out)
    weights, manifest = join(folder, network)
    stage, parts = network or manifest["newest"], load_model(parts_folder, device="cpu", dtype=torch.float32)
    try:
        if stage not in STAGES:
            raise LookupError(f"{stage!r} is no stage")
        preset, transformer = get_preset(manifest["preset"]), network_of(manifest["transformer"], weights)
        records = _records(manifest["networks"][stage]["rows"], parts)
        step = manifest["networks"][stage]["step"]
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()[:200]
        raise ValueError(
            f"{folder / MANIFEST} does not describe its weights ({reason}): was it written by another version?"
        ) from error
    known = {k: v for k, v in manifest.items() if k not in ("networks", "newest", "transformer", "preset")}
    known |= {"stage": stage, "step": step, "stages": records}
    plans, serve = getattr(preset, stage).served(), preset.serving(stage)
    info = info_of(fitted(preset, parts), parts.info.scale_std, plans, serve, known | {"parts": parts.info.name})
    return replace_model(Model(transformer.eval(), parts.vae, parts.text, info), out)


def network_of(config: dict[str, Any], weights: Weights) -> VideoARTransformer3DModel:
    """Return the network of a manifest. Raises RuntimeError for a configuration that is not that of the weights."""
    blocks = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    if config["num_layers"] != blocks:
        raise RuntimeError(f"num_layers is {config['num_layers']}, and there are {blocks}")
    with torch.device("meta"):  # nothing is allocated before the shapes are known to be those of the weights
        expected = VideoARTransformer3DModel.from_config(dict(config)).state_dict()
    for name, value in expected.items():
        if name not in weights or weights[name].shape != value.shape:
            raise RuntimeError(f"the weights have no {name} of shape {tuple(value.shape)}")
    transformer = VideoARTransformer3DModel.from_config(dict(config))
    transformer.load_state_dict({name: value.float() for name, value in weights.items()})
    return transformer


def _records(rows: list[dict[str, Any]], parts: Model) -> dict[str, Any]:
    """Return how each stage went: those of the parts as they were, those of the sprint from their last rows."""
    known = parts.info.provenance.get("stages", {})
    records = {part: known[part] for part in ("text", "vae") if part in known}
    for stage in STAGES:
        own = [row for row in rows if row["stage"] == stage]
        if own:
            records[stage] = {
                name: own[-1][name] for name in ("step", "loss", "clips_per_s", "pool") if name in own[-1]
            }
    return records


def provenance(command: str, seed: int) -> dict[str, Any]:
    return {
        "command": f"python -m train sprint {command}",
        "seed": seed,
        "commit": commit(),
        "hardware": hardware(),
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _age() -> float:
    """Return the seconds since this process was started, 0 where the machine's clocks tell nonsense."""
    age = time.time() - psutil.Process().create_time()
    return age if 0 <= age < LONGEST_START else 0.0


_STARTED = time.monotonic() - _age()  # asked once: a machine that was just started may set its clock


def _elapsed() -> float:
    """Return the seconds since this process was started."""
    return time.monotonic() - _STARTED


def _say(line: str) -> None:
    print(line, flush=True)
