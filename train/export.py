"""Stage `export`: gather the stages' results into a model folder that the library loads, with where it came from."""

from __future__ import annotations

import itertools
import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from videoar.checkpoint import Model, ModelInfo, load_model, save_model
from videoar.codec import TinyCodec
from videoar.provenance import commit, hardware

from .presets import Preset, ServePreset
from .run import Run
from .stopping import best_snapshot

STARTED = "started_from.json"  # of a stage that began with the network of another model: that model's provenance
RECORD = "record.json"  # of a stage that was adopted: what export writes of it into videoar.json
PARTS = ("text", "vae")  # the stages whose results can be adopted


def stage_record(folder: Path) -> dict | None:
    """How a stage went: steps, last loss (mean of 50 steps), minutes spent, pauses left out and lost steps included.

    From record.json where the stage was adopted from another model, else from its log and newest checkpoint.
    """
    if (folder / RECORD).exists():
        return json.loads((folder / RECORD).read_text())
    if not folder.exists():
        return None
    run = Run(folder)
    rows, saved = run.rows(), run.checkpoints()
    if not rows or not saved:
        return None
    step = int(saved[-1].name.removeprefix("step-"))
    gaps = [b["time"] - a["time"] for a, b in itertools.pairwise(rows)]
    # A resumed run has logged some steps twice. Where the loss is more than the error, the error is what compares.
    kept = {r["step"]: r.get("error", r["loss"]) for r in rows if r["step"] <= step}
    tail = [kept[s] for s in sorted(kept)[-50:]]
    record = {
        "steps": step,
        "loss": round(sum(tail) / len(tail), 4),
        "minutes": round(sum(g for g in gaps if g < 60) / 60, 1),
    }
    started = folder / STARTED
    return record | {"started_from": json.loads(started.read_text())} if started.exists() else record


def known_provenance(folder: Path) -> dict[str, Any]:
    """Return where the network of a model's or a stage's folder comes from, as far as the folder says."""
    info = folder / "videoar.json"
    if info.exists():
        known = json.loads(info.read_text()).get("provenance", {})
    else:
        record = stage_record(folder)
        known = {"stage": folder.name, **record} if record else {}
    return {"folder": str(folder), **known}


def note_start(folder: Path, init: Path) -> None:
    """Keep in a stage's folder which model its network is taken from."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STARTED).write_text(json.dumps(known_provenance(init)))


def commands(preset: str, records: dict[str, dict]) -> str:
    """What made a model: one command, or one for each stage where a stage began with another model's network."""
    if not any("started_from" in record for record in records.values()):
        return f"python -m train all --preset {preset}"
    lines = []
    for stage, record in records.items():
        init = record.get("started_from", {}).get("folder")
        if "adopted" in record:
            continue
        if stage == "vae" and init:  # what it began with was there before it: the fitted encoder
            lines += [
                f"python -m train linear --preset {preset} --init {init}",
                f"python -m train vae --preset {preset}",
            ]
        else:
            lines.append(f"python -m train {stage} --preset {preset}" + (f" --init {init}" if init else ""))
    return " && ".join(lines)


def model_info(workshop, plans: list[str], serve: ServePreset, provenance: dict) -> ModelInfo:
    """Return videoar.json of a workshop's model."""
    std = workshop.scale_std()
    return info_of(workshop.preset, (std[4], std[2], 1.0), plans, serve, provenance)


def info_of(
    preset: Preset, scale_std: tuple[float, ...], plans: list[str], serve: ServePreset, provenance: dict
) -> ModelInfo:
    """Return videoar.json of a model that was trained as a preset says."""
    return ModelInfo(
        name=f"Playworld {preset.name}",
        plans=tuple(plans),
        sampler=serve.sampler,
        steps=serve.steps,
        timesteps=serve.timesteps,
        shift=serve.shift,
        guidance_scale=serve.guidance_scale,
        guidance_interval=serve.guidance_interval,
        height=preset.size,
        width=preset.width or preset.size,
        frames=preset.frames,
        fps=preset.fps,
        scale_std=scale_std,
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
    transformer, step = w.new_transformer(), saved[1]["step"]
    average = {k[4:]: v for k, v in tensors.items() if k.startswith("ema.")}
    if (snapshot := w.init or best_snapshot(w.folder(stage))) is not None:
        average, step = read_snapshot(snapshot)
    transformer.load_state_dict(average)
    codec = w.codec(finished=True)
    if preset.codec.kind == "tiny" and (vae := Run(w.folder("vae")).load()) is not None:
        codec.load_state_dict({k[4:]: v for k, v in vae[0].items() if k.startswith("ema.")})
    plans = getattr(preset, stage).served()
    stages = ("text", "vae", "base", "causal", "guidance", "dmd")
    records = {name: record for name in stages if (record := stage_record(w.folder(name)))}
    info = model_info(
        w,
        plans,
        preset.serving(stage),
        provenance={
            "command": commands(preset.name, records),
            "seed": w.seed,
            "stage": stage,
            "step": step,
            "commit": commit(),
            "hardware": hardware(),
            "torch": torch.__version__,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "stages": records,
        },
    )
    return replace_model(Model(transformer.eval(), codec, w.text(), info), out)


def replace_model(model: Model, out: Path) -> Path:
    """Write a model folder in the place of the one that is there, which goes only when the new one is whole."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(model, partial)
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return out


def read_snapshot(folder: Path) -> tuple[dict[str, torch.Tensor], int]:
    """Weights and step of a snapshot. Raises ValueError for a folder that is none."""
    number = folder.name.removeprefix("step-")
    weights = folder / "diffusion_pytorch_model.safetensors"
    if not number.isdigit() or not weights.exists():
        raise ValueError(f"{folder} is no snapshot; they are named like runs/PRESET/dmd/snapshots/step-000100")
    return load_file(weights), int(number)


def adopt(workshop, model_folder: Path) -> None:
    """Fill the folders of the stages before `base` from a model folder: text encoder, codec, spread of the levels.

    Raises ValueError where the model does not fit the preset, or where a stage has results of its own.
    """
    w, preset = workshop, workshop.preset
    for part in PARTS:
        if w.folder(part).exists() and any(w.folder(part).iterdir()):
            raise ValueError(f"{w.folder(part)} is in use; move it away, or choose other --runs")
    model = load_model(model_folder, device="cpu", dtype=torch.float32)
    info, tiny = model.info, isinstance(model.vae, TinyCodec)
    encoder: Any = model.text.encoder
    kind, lapped = ("tiny", model.vae.config.lapped) if tiny else ("wan", False)
    have = (kind, model.vae.config.z_dim, lapped, encoder.config.d_model, info.text_length)
    codec, wanted_text = preset.codec, (preset.text.width, preset.text.max_length)
    wanted = (codec.kind, codec.z_dim, codec.lapped, *wanted_text)
    if have != wanted:
        names = "codec, latent channels, whether blocks lap, text width and text length"
        raise ValueError(f"{model_folder} does not fit the preset {preset.name}: its {names} are {have}, not {wanted}")
    stages = info.provenance.get("stages", {})
    for part in PARTS:
        partial = w.folder(part).with_name(part + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        if part == "text":
            encoder.save_pretrained(partial / "text_encoder")
            model.text.tokenizer.save_pretrained(partial / "tokenizer")
        else:
            for name in ("linear", "codec") if tiny else ("codec",):
                model.vae.save_pretrained(partial / name)
        (partial / RECORD).write_text(json.dumps({"adopted": info.name, **stages.get(part, {})}))
        if w.folder(part).exists():
            w.folder(part).rmdir()
        partial.rename(w.folder(part))
    if len(info.scale_std) >= 3:
        path = w.folder("data") / "scale_std.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"4": info.scale_std[-3], "2": info.scale_std[-2]}))


def check_target(out: Path) -> None:
    """Raises ValueError for a folder that holds something other than a model: it would be replaced."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "model_index.json").exists())):
        raise ValueError(f"{out} exists and is not a model folder; name another one with --out")
