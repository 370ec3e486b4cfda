"""Reading and writing the parts of a model folder: safetensors and JSON only, strictly checked."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .request import shown
from .transformer import VideoARTransformer3DModel

SHARD_SIZE = "15MB"  # below 16 MB, so that a model fits into a git repository without large-file storage
# Of a config: what is built in a loop, and what tables in memory are made of (widths become shapes only).
_LAYERS = ("num_layers", "num_res_blocks", "depths")
_MOST = {"rope_max_seq_len": 1 << 14, "attention_head_dim": 1 << 12}
_LONGEST_LIST = 1024
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# Where the weights once lay on somebody's disk is nobody's business.
_PRIVATE = ("_name_or_path", "name_or_path", "is_local", "local_files_only")


def cpu_computes_in_bfloat16() -> bool:
    """Whether the processor has instructions for it (AVX512-BF16), as far as this version of torch can tell."""
    tell = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not public: loading a model must not depend on it
    return bool(tell and tell())


def parse_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """The type in which weights are held. Raises ValueError for names of others than these three."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if isinstance(name, str) and name not in known:
        raise ValueError(f"dtype is one of {', '.join(known)}, not {shown(name)}")
    return known[name] if isinstance(name, str) else name


def load_part(folder: Path, cls: Any, config: dict[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """A module with strictly checked weights. It is built without memory, the file's tensors become its parameters."""
    return fill_part(folder, empty_module(folder, cls, config), dtype)


def fill_part(folder: Path, module: Any, dtype: torch.dtype) -> torch.nn.Module:
    """Gives an empty module the weights in the folder, and returns it."""
    cls, expected = type(module), module.state_dict()
    ignored = getattr(cls, "_keys_to_ignore_on_load_unexpected", None) or ()
    tied = dict(getattr(cls, "_tied_weights_keys", None) or {})
    state = {}
    for name, tensor in _read_tensors(folder):
        if name not in expected:
            if any(re.search(pattern, name) for pattern in ignored):
                continue
            raise ValueError(f"the weights in {folder.name} have {name!r}, which its config.json does not allow for")
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)} instead of {list(expected[name].shape)}"
            raise ValueError(f"{name!r} in {folder.name} has the wrong shape: {shapes}")
        if expected[name].is_floating_point() and not (tensor.is_floating_point() and tensor.isfinite().all()):
            raise ValueError(f"{name!r} in {folder.name} holds numbers that are not finite: copy the weights again")
        state[name] = tensor.to(kept_dtype(cls, name, dtype))
    for alias, name in tied.items():  # files hold a shared tensor under either name, or under both
        if alias in state:
            state.setdefault(name, state.pop(alias))
    missing = [name for name in expected if name not in state and name not in tied]
    if missing:
        raise ValueError(
            f"{folder.name} lacks {len(missing)} of its {len(expected)} tensors, the first is {missing[0]!r}"
        )
    module.load_state_dict(state, strict=False, assign=True)
    if tied:
        module.tie_weights()
    return module.eval().requires_grad_(False)


def empty_module(folder: Path, cls: Any, config: dict[str, Any]) -> Any:
    """The module that a part's config.json describes, with parameters that have a shape and no memory."""
    from accelerate import init_empty_weights

    _check_size(folder, config)
    try:
        with init_empty_weights(include_buffers=False):
            # diffusers' classes are made from a dict, transformers' from their config class.
            module = cls.from_config(config) if hasattr(cls, "from_config") else cls(cls.config_class.from_dict(config))
        if hasattr(module, "tie_weights"):
            module.tie_weights()
        return module
    except Exception as error:  # a senseless config fails wherever it is used first
        raise ValueError(f"{folder.name}/config.json does not describe a {cls.__name__}: {error}") from error


def kept_dtype(cls: Any, name: str, dtype: torch.dtype) -> torch.dtype:
    """float32 for what a class wants to stay precise; text encoders want that against float16's small range only."""
    precise = set(getattr(cls, "_keep_in_fp32_modules", None) or ())
    if dtype != torch.float16 and hasattr(cls, "config_class"):
        precise = set()
    return torch.float32 if precise.intersection(name.split(".")) else dtype


def _check_size(folder: Path, config: dict[str, Any]) -> None:
    """Raises ValueError for a config far beyond its weights: building that would take hours or all memory."""
    tensors = 0
    for file in _weight_files(folder):
        with _opened(folder, file) as opened:
            tensors += len(opened.keys())
    for name, value in config.items():
        # A layer has at least one tensor; widths cost nothing until they are compared with the tensors' shapes.
        most = tensors if name in _LAYERS else _MOST.get(name)
        for number in value if isinstance(value, list) else [value]:
            if most is not None and isinstance(number, (int, float)) and number > most:
                because = f": the weights have {tensors} tensors" if name in _LAYERS else ""
                raise ValueError(f"{folder.name}/config.json: {name} is at most {most}, not {shown(number)}{because}")
        if isinstance(value, list) and len(value) > _LONGEST_LIST:
            raise ValueError(f"{folder.name}/config.json: {name} has {len(value)} values, at most {_LONGEST_LIST} fit")


def save_part(
    module: Any, folder: Path, dtype: torch.dtype | None, class_name: str | None, shard_size: str = SHARD_SIZE
) -> None:
    """Writes a part's weights in shards and its config. dtype None keeps each tensor's own."""
    from huggingface_hub import split_torch_state_dict_into_shards

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    state = {}
    tied = getattr(type(module), "_tied_weights_keys", None) or ()
    for name, tensor in module.state_dict().items():
        if name in tied:
            continue
        kept = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        state[name] = tensor.detach().to("cpu", kept).contiguous()
        if not torch.isfinite(state[name]).all():
            raise ValueError(f"{name!r} of {folder.name} is not finite in {kept}: it cannot be saved")
    stem = "diffusion_pytorch_model" if class_name else "model"
    plan = split_torch_state_dict_into_shards(
        state, filename_pattern=stem + "{suffix}.safetensors", max_shard_size=shard_size
    )
    for file, names in plan.filename_to_tensors.items():
        save_file({name: state[name] for name in names}, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(folder / f"{stem}.safetensors.index.json", index)
    config = json.loads(module.to_json_string()) if class_name else module.config.to_dict()
    if class_name:
        config["_class_name"] = class_name
    if isinstance(module, VideoARTransformer3DModel):
        # The stock class warns about fields that it does not know: leave out those that change nothing.
        config = {key: value for key, value in config.items() if _own_defaults().get(key, ...) != value}
    write_json(folder / "config.json", config)
    scrub(folder / "config.json")


def scrub(path: Path) -> None:
    """Removes from a JSON file what tells where it was."""
    write_json(path, {key: value for key, value in read_json(path).items() if key not in _PRIVATE})


def _own_defaults() -> dict[str, Any]:
    stock = inspect.signature(WanTransformer3DModel.__init__).parameters
    own = inspect.signature(VideoARTransformer3DModel.__init__).parameters
    return {name: parameter.default for name, parameter in own.items() if name not in stock}


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"this is not a complete model folder: {path.parent.name}/{path.name} is missing") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path.parent.name}/{path.name} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.parent.name}/{path.name} must hold a JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every tensor in a part's safetensors files."""
    for file in _weight_files(folder):
        with _opened(folder, file) as tensors:
            for name in tensors.keys():  # noqa: SIM118  (safe_open is no mapping)
                yield name, tensors.get_tensor(name)


@contextmanager
def _opened(folder: Path, file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder.name}/{file.name} is damaged or incomplete: {error}. Copy it again") from error


def _weight_files(folder: Path) -> list[Path]:
    for stem in ("diffusion_pytorch_model", "model"):
        index = folder / f"{stem}.safetensors.index.json"
        if index.exists():
            names = set(read_json(index).get("weight_map", {}).values())
            if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
                raise ValueError(f"{folder.name}/{index.name} does not name its files")
            files = [folder / name for name in sorted(names)]
            absent = [file.name for file in files if not file.exists()]
            if absent:
                raise ValueError(f"{folder.name} lacks the weight file {absent[0]}")
            return files
        if (folder / f"{stem}.safetensors").exists():
            return [folder / f"{stem}.safetensors"]
    pickled = [file.name for file in sorted(folder.iterdir()) if file.suffix in _PICKLES]
    if pickled:
        raise ValueError(
            f"{folder.name} holds {pickled[0]}, a pickle, which could run any code when read: "
            "only safetensors are loaded, convert it first"
        )
    raise ValueError(f"{folder.name} has no weights: there is no .safetensors file in it")
