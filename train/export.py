"""Stage `export`: gather the stages' results into a model folder that the library loads, with where it came from."""

from __future__ import annotations

import itertools
import json
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import torch

from videoar.checkpoint import Model, ModelInfo, save_model

from .presets import ServePreset
from .run import Run


def commit() -> str:
    """The commit of the working tree, with a mark if it was changed; "unknown" outside a checkout."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} CPU threads"


def stage_record(folder: Path) -> dict | None:
    """How a stage went, from its log: steps, last loss (mean of 50 steps), minutes spent, pauses left out."""
    log = folder / "log.jsonl"
    if not log.exists():
        return None
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    if not rows:
        return None
    gaps = [b["time"] - a["time"] for a, b in itertools.pairwise(rows)]
    tail = rows[-50:]
    return {
        "steps": rows[-1]["step"],
        "loss": round(sum(r["loss"] for r in tail) / len(tail), 4),
        "minutes": round(sum(g for g in gaps if g < 60) / 60, 1),
    }


def model_info(workshop, plans: list[str], serve: ServePreset, provenance: dict) -> ModelInfo:
    """videoar.json of a workshop's model."""
    preset, std = workshop.preset, workshop.scale_std()
    return ModelInfo(
        name=f"Playworld {preset.name}",
        plans=tuple(plans),
        sampler=serve.sampler,
        steps=serve.steps,
        timesteps=serve.timesteps,
        shift=serve.shift,
        guidance_scale=serve.guidance_scale,
        height=preset.size,
        width=preset.size,
        frames=preset.frames,
        fps=preset.fps,
        scale_std=(std[4], std[2], 1.0),
        text_length=preset.text.max_length,
        provenance=provenance,
    )


def export(workshop, out: Path) -> Path:
    """Write the transformer of the last stage that has one, the codec and the text encoder to the folder `out`."""
    w, preset = workshop, workshop.preset
    check_target(out)
    stage = next((s for s in ("dmd", "guidance", "causal") if Run(w.folder(s)).checkpoints()), "base")
    saved = Run(w.need("base", w.folder(stage))).load()
    if saved is None:
        raise ValueError(f"{w.folder(stage)} has no checkpoint yet; run `python -m train {stage}` first")
    tensors = saved[0]
    transformer = w.new_transformer()
    transformer.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("ema.")})
    codec = w.codec()
    if preset.codec.kind == "tiny" and (vae := Run(w.folder("vae")).load()) is not None:
        codec.load_state_dict({k[4:]: v for k, v in vae[0].items() if k.startswith("ema.")})
    plans = getattr(preset, stage).served()
    records = {name: stage_record(w.folder(name)) for name in ("text", "vae", "base", "causal", "guidance", "dmd")}
    info = model_info(
        w,
        plans,
        preset.serving(stage),
        provenance={
            "command": f"python -m train all --preset {preset.name}",
            "seed": w.seed,
            "stage": stage,
            "step": saved[1]["step"],
            "commit": commit(),
            "hardware": hardware(),
            "torch": torch.__version__,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "stages": {k: v for k, v in records.items() if v},
        },
    )
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(Model(transformer.eval(), codec, w.text(), info), partial)
    # The old model goes only when the new one is in its place.
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return out


def check_target(out: Path) -> None:
    """Raises ValueError for a folder that holds something other than a model: it would be replaced."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "model_index.json").exists())):
        raise ValueError(f"{out} exists and is not a model folder; name another one with --out")
