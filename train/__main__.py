"""`python -m train STAGE`: text, linear, data, vae, base, causal, guidance, dmd, export, or `all` of them in order.

Every stage resumes where it stopped. `sprint` (`python -m train sprint --help`) runs the transformer's stages against
the clock. Beside them: `adopt` takes the text encoder and the codec of a model folder
(--init) instead of training them, `sample_base` makes clips with the base for `causal` to train on, `plan` says what a
preset takes in memory and time.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from .dmd import SCORERS
from .export import check_target
from .presets import PRESETS, get_preset
from .stages import APART, STAGES
from .workshop import Workshop

COMMANDS = {"sprint": ".sprint_command", "render": ".render"}  # with options of their own


def run_command(name: str, argv: list[str]) -> int:
    try:
        return import_module(COMMANDS[name], __package__).main(argv)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


class Progress:
    """A progress bar with the time left, fed by the rows that a stage logs."""

    def __init__(self, name: str):
        self.name = name
        self.bar: tqdm | None = None

    def __call__(self, row: dict) -> None:
        if self.bar is None:
            self.bar = tqdm(
                total=row["steps"], initial=row["step"] - 1, desc=self.name, mininterval=1.0, dynamic_ncols=True
            )
        shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items() if k not in ("step", "steps")}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(row["step"] - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, *APART, "all"])
    parser.add_argument("--preset", default="builtin-cpu", choices=list(PRESETS))
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of the stages' checkpoints (default: runs)"
    )
    parser.add_argument("--out", type=Path, help="model folder that `export` writes (default: RUNS/PRESET/model)")
    parser.add_argument(
        "--init", type=Path, help="model folder whose weights a stage starts from, or the snapshot that `export` takes"
    )
    parser.add_argument("--teacher", type=Path, help="model folder that is `dmd`'s real scorer (default: the base)")
    parser.add_argument("--scorers", choices=list(SCORERS), help="the fake scorers of `dmd` (default: both)")
    parser.add_argument(
        "--data", type=Path, help="`data`: folder of videos with .txt captions, or a CSV or Parquet list"
    )
    parser.add_argument("--clips", type=int, help="`sample_base`: how many clips (default: the preset's)")
    parser.add_argument("--fsdp", action="store_true", help="shard the trained networks among the processes")
    parser.add_argument("--gpus", type=int, default=1, help="`plan`: how many GPUs")
    parser.add_argument("--memory", type=float, default=80.0, help="`plan`: GiB of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="steps of this stage instead of the preset's")
    parser.add_argument(
        "--patience", type=int, help="evaluate at every checkpoint, stop after so many without a better one (0: never)"
    )
    parser.add_argument("--tracker", help="also log to tensorboard, wandb, trackio ... (whichever is installed)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="on a GPU fuse element-wise operations, on a CPU compile the blocks (takes minutes; needs a C++ compiler)",
    )
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return run_command(argv[0], argv[1:])
    args = parser.parse_args(argv)
    try:
        if args.stage == "all" and args.steps is not None:
            raise ValueError("--steps is for a single stage; `all` takes the steps of its preset")
        if args.stage == "all" and args.init is not None:
            raise ValueError(
                "--init is for a single stage; to begin `all` with the parts of a model, `adopt` them first"
            )
        if args.out is not None:
            check_target(args.out)
        preset = get_preset(args.preset)
        workshop = Workshop(
            preset,
            args.runs,
            args.seed,
            args.steps,
            args.init,
            args.out,
            args.threads,
            args.compile,
            args.teacher,
            args.scorers,
            args.data,
            args.clips,
            args.fsdp,
            args.gpus,
            args.memory,
            args.patience,
            args.tracker,
        )
        for name in STAGES if args.stage == "all" else [args.stage]:
            progress = Progress(name)
            try:
                (STAGES | APART)[name](workshop, progress)
            finally:
                progress.close()
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"{args.stage}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
