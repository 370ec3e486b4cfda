"""Released few-step checkpoints (.pt, .safetensors, PEFT LoRA) turned into model folders."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .checkpoint import ModelInfo, read_info
from .folders import find_folder, model_name
from .sampler import unwarp
from .state_files import State, read_state
from .transformer import VideoARTransformer3DModel
from .wan_keys import lora_part, rename_state_dict, to_diffusers, without_adapter
from .weights import empty_module, load_part, read_json, save_part, write_json

_SHOWN = 3
_SHARD_SIZE = "5GB"

_FEW_STEP = ModelInfo(
    plans=("frame:3",),
    sampler="few_step",
    steps=4,
    timesteps=(1000.0, 750.0, 500.0, 250.0),
    shift=5.0,
    guidance_scale=1.0,
)
# How each family of checkpoints was trained to be sampled.
RECIPES: Mapping[str, ModelInfo] = {
    "self-forcing": _FEW_STEP,
    "causal-forcing": _FEW_STEP,
    "causal-forcing-frame": dataclasses.replace(_FEW_STEP, plans=("frame:1",)),
    # Its list is the warped one, and its keys keep their absolute time.
    "causvid": dataclasses.replace(
        _FEW_STEP, steps=3, timesteps=tuple(1000 * s for s in unwarp((1.0, 0.757, 0.522), 8.0)), shift=8.0
    ),
    "longlive": dataclasses.replace(_FEW_STEP, window=12, sink=3, relative=False),
}


def import_checkpoint(
    file: str | Path,
    base: str | Path,
    out: str | Path,
    recipe: str = "self-forcing",
    loras: Sequence[str | Path] = (),
    dtype: torch.dtype | None = None,
    **changes: Any,
) -> Path:
    """Writes a model folder from a checkpoint of a Wan-shaped generator and returns its path.

    file: .pt, .pth or .safetensors, with original Wan or diffusers names, in `generator_ema` (preferred) or
    `generator`, with FSDP's and `model.` prefixes; or a LoRA file alone, merged into the base's transformer. base: a
    model folder or hub id that gives the configuration, autoencoder, text encoder and tokenizer. out: must not exist.
    recipe: a key of RECIPES. loras: more LoRA files to merge, in this order. dtype: how the weights are kept (None: as
    in the file). changes: fields of ModelInfo that differ from the recipe, for example timesteps, plans or window.

    Raises ValueError that says what is wrong with a file, and names what is missing, unexpected or of another shape.
    """
    if recipe not in RECIPES:
        raise ValueError(f"the recipe is one of {', '.join(RECIPES)}, not {recipe!r}")
    file, out = Path(file), Path(out)
    if out.exists():
        raise ValueError(f"{out} exists already: name a folder that does not")
    base_folder = find_folder(base)
    plain = read_info(base_folder, model_name(base))
    keep = {name: getattr(plain, name) for name in ("height", "width", "frames", "fps", "text_length")}
    provenance = {"file": file.name, "loras": [Path(lora).name for lora in loras], "base": plain.name, "recipe": recipe}
    if "timesteps" in changes:
        changes.setdefault("steps", len(changes["timesteps"]))
    info = dataclasses.replace(RECIPES[recipe], **keep | {"name": file.stem, "provenance": provenance} | changes)

    source = base_folder / "transformer"
    config = read_json(source / "config.json")
    module = empty_module(source, VideoARTransformer3DModel, config)
    expected = module.state_dict()
    weights, adapters = split_lora(read_state(file))
    if not weights:
        weights = load_part(source, VideoARTransformer3DModel, config, torch.float32).state_dict()
    state = check_state(weights, expected, file.name)
    merge_lora(state, adapters, expected, _lora_scale(file), file.name)
    for lora in map(Path, loras):
        more, adapters = split_lora(read_state(lora))
        if more or not adapters:
            raise ValueError(f"{lora.name} is no LoRA file: it holds {_some(more or {'nothing': 0})}")
        merge_lora(state, adapters, expected, _lora_scale(lora), lora.name)
    module.load_state_dict(state, strict=True, assign=True)

    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        save_part(module, partial / "transformer", dtype, "WanTransformer3DModel", _SHARD_SIZE)
        for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
            if (base_folder / part).is_dir():
                shutil.copytree(base_folder / part, partial / part, copy_function=_link)
        shutil.copy(base_folder / "model_index.json", partial / "model_index.json")
        write_json(partial / "videoar.json", dataclasses.asdict(info))
        partial.rename(out)
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def check_state(weights: State, expected: Mapping[str, torch.Tensor], source: str) -> State:
    """The weights under diffusers' names, if they are exactly what the architecture asks for; else ValueError."""
    state = rename_state_dict(weights)
    if any("_flat_param" in name for name in state):
        raise ValueError(f"{source} holds FSDP's flattened parameters: save it again with a full state dict")
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shapes = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(expected)} tensors are missing ({_some(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} are unexpected ({_some(unexpected)})")
    if shapes:
        one = shapes[0]
        detail = f"{one} is {list(state[one].shape)} instead of {list(expected[one].shape)}"
        problems.append(f"{len(shapes)} have another shape ({detail})")
    if problems:
        raise ValueError(f"{source} does not fit the base's transformer: {'; '.join(problems)}")
    wrong = next((n for n, t in state.items() if not (t.is_floating_point() and bool(t.isfinite().all()))), None)
    if wrong:
        raise ValueError(f"{wrong} in {source} holds numbers that are not finite: copy the file again")
    return {name: state[name] for name in expected}


def split_lora(state: State) -> tuple[State, dict[str, State]]:
    """Plain tensors, and the factors A [r, in], B [out, r] and alpha of each adapted layer by its diffusers name."""
    weights: State = {}
    adapters: dict[str, State] = {}
    for name, tensor in state.items():
        if found := lora_part(name):
            layer, part = found
            adapters.setdefault(to_diffusers(f"{layer}.weight"), {})[part] = tensor
        else:
            weights[without_adapter(name)] = tensor
    return weights, adapters


def merge_lora(
    state: State, adapters: Mapping[str, State], expected: Mapping[str, torch.Tensor], scale: float | None, source: str
) -> None:
    """Adds scale B A to every adapted weight of `state`. scale: None = alpha / r of the file, 1 where it is silent."""
    unknown = [name for name in adapters if name not in expected]
    if unknown:
        raise ValueError(f"{source} adapts {len(unknown)} layers that the transformer lacks ({_some(unknown)})")
    for name, factors in adapters.items():
        if not {"A", "B"} <= set(factors):
            raise ValueError(f"{source} has only half of the LoRA factors of {name}")
        down, up = factors["A"].float().flatten(1), factors["B"].float().flatten(1)
        weight = state[name]
        if up.shape[1] != down.shape[0] or up.shape[0] != weight.shape[0] or down.shape[1] != weight[0].numel():
            shapes = f"{list(up.shape)} x {list(down.shape)} for {list(weight.shape)}"
            raise ValueError(f"the LoRA factors of {name} in {source} have the wrong shape: {shapes}")
        rank = down.shape[0]
        factor = scale if scale is not None else float(factors["alpha"]) / rank if "alpha" in factors else 1.0
        state[name] = (weight.float() + factor * (up @ down).view_as(weight)).to(weight.dtype)


def _lora_scale(file: Path) -> float | None:
    """What PEFT's adapter_config.json beside the file says; None if there is none."""
    path = file.parent / "adapter_config.json"
    if not path.exists():
        return None
    config = read_json(path)
    alpha, rank = config.get("lora_alpha"), config.get("r")
    if not isinstance(alpha, (int, float)) or not isinstance(rank, int) or rank < 1:
        raise ValueError("adapter_config.json does not say lora_alpha and r")
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")


def _link(source: str, target: str) -> None:
    """Copies a small file; weights, 11 GB for a text encoder, are shared with the base where the disk allows it."""
    real = os.path.realpath(source)  # in the hub's cache files are links
    try:
        if not source.endswith(".safetensors"):
            raise OSError
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
