"""Model folders: diffusers' layout plus videoar.json, safetensors and JSON only, checked before anything runs."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .plan import Grid, PlanSpec
from .text import TextEncoder
from .transformer import VideoARTransformer3DModel

BUILT_IN = "assets/builtin"
SHARD_SIZE = "15MB"  # below 16 MB, so that a model fits into a git repository without large-file storage
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class ModelInfo:
    """What videoar.json says: how the checkpoint was trained and how it wants to be sampled.

    The defaults describe a bare Wan2.1-T2V-1.3B pipeline folder, which has no such file.
    """

    name: str = "Wan"
    plans: tuple[str, ...] = ("full",)  # plans it was trained for, the first is the best one
    sampler: str = "euler"  # "few_step" or "euler"
    steps: int = 50
    timesteps: tuple[float, ...] = ()  # the few-step list, not yet warped, e.g. 1000, 750, 500, 250
    shift: float = 5.0
    guidance_scale: float = 5.0  # 1 = without guidance
    window: int | None = None  # latent frames attended to, counting the unit in flight and the sink
    sink: int = 0
    relative: bool = True  # times close up after an eviction (False: keys keep their absolute time)
    height: int = 480
    width: int = 832
    frames: int = 81
    fps: float = 16.0
    scale_std: tuple[float, ...] = ()  # what averaging leaves of the latents' deviation, coarsest level first
    text_length: int = 512
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value, default = getattr(self, item.name), item.default
            if isinstance(value, list):
                object.__setattr__(self, item.name, tuple(value))
            number = isinstance(default, (int, float)) and not isinstance(default, bool)
            if number and (isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)):
                raise ValueError(f"{item.name} in videoar.json must be a number, not {value!r}")
        if self.sampler not in ("few_step", "euler"):
            raise ValueError(f"sampler in videoar.json is few_step or euler, not {self.sampler!r}")
        for plan in self.plans:
            PlanSpec.parse(plan)

    def level_std(self, levels: int) -> tuple[float, ...]:
        """The deviation of each level of a pyramid, coarsest first; 1 where the checkpoint does not say."""
        known = self.scale_std[-levels:]
        return (1.0,) * (levels - len(known)) + tuple(known)


@dataclass
class Model:
    """Everything that makes a film from a request. The parts hold weights only: any number of clips can share them."""

    transformer: VideoARTransformer3DModel
    vae: Any  # AutoencoderKLWan or TinyCodec
    text: TextEncoder
    info: ModelInfo

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    @property
    def patch(self) -> tuple[int, int, int]:
        return tuple(self.transformer.config.patch_size)

    def multiples(self) -> tuple[int, int]:
        """Height and width of a film are multiples of these (codec's scale times patch size)."""
        scale = self.vae.config.scale_factor_spatial
        return scale * self.patch[1], scale * self.patch[2]

    def grid(self, request: Any) -> Grid:
        """Token grid of a request (None fields: the model's defaults). Raises ValueError for sizes that do not fit."""
        height = request.height or self.info.height
        width = request.width or self.info.width
        frames = request.frames or self.info.frames
        step_y, step_x = self.multiples()
        if height % step_y or width % step_x:
            raise ValueError(f"height is a multiple of {step_y} and width of {step_x}, not {height} and {width}")
        if (frames - 1) % 4:
            raise ValueError(f"the number of frames is 1 + 4n, for example {frames - (frames - 1) % 4}, not {frames}")
        return Grid((frames - 1) // 4 + 1, height // step_y, width // step_x)


def load_model(
    path_or_hub_id: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """Loads a model folder, a model of the Hugging Face hub ("owner/name"), or with None the built-in model.

    device: the accelerator if there is one, else the CPU. dtype: float32 on a CPU, else bfloat16. Weights come from
    safetensors only. Raises ValueError that names the part if anything is missing, truncated or of the wrong shape.
    """
    folder = _find(path_or_hub_id)
    device = torch.device(device) if device is not None else _best_device()
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    info = _read_info(folder)
    parts = {}
    for part in ("transformer", "vae", "text_encoder"):
        config = _read_json(folder / part / "config.json")
        parts[part] = _load_part(folder / part, _part_class(part, config), config, dtype).to(device)
    text = TextEncoder(_load_tokenizer(folder / "tokenizer"), parts["text_encoder"], info.text_length)
    return Model(parts["transformer"], parts["vae"], text, info)


def save_model(model: Model, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes a model folder: safetensors shards under 16 MB, configs, tokenizer, model_index.json, videoar.json.

    With an AutoencoderKLWan the folder also loads in diffusers' WanPipeline. Raises ValueError for weights that are not
    finite in dtype.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, __version__

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    codec_home = "diffusers" if type(model.vae).__module__.startswith("diffusers.") else "videoar.codec"
    _save_part(model.transformer, folder / "transformer", dtype, "WanTransformer3DModel")
    _save_part(model.vae, folder / "vae", dtype, type(model.vae).__name__)
    _save_part(model.text.encoder, folder / "text_encoder", dtype, None)
    model.text.tokenizer.save_pretrained(folder / "tokenizer")
    FlowMatchEulerDiscreteScheduler(shift=model.info.shift).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "WanPipeline",
        "_diffusers_version": __version__,
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": [codec_home, type(model.vae).__name__],
        "text_encoder": ["transformers", type(model.text.encoder).__name__],
        "tokenizer": ["transformers", type(model.text.tokenizer).__name__],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    _write_json(folder / "model_index.json", index)
    _write_json(folder / "videoar.json", dataclasses.asdict(model.info))


def _find(path_or_hub_id: str | Path | None) -> Path:
    if path_or_hub_id is None or str(path_or_hub_id) == BUILT_IN:
        path = Path(__file__).resolve().parent.parent / BUILT_IN
        if not path.is_dir():
            raise ValueError(f"the built-in model is missing: there is no folder {BUILT_IN} beside the videoar package")
        return path
    path = Path(path_or_hub_id).expanduser()
    if path.is_dir():
        return path
    if path.exists() or not _HUB_ID.fullmatch(str(path_or_hub_id)):
        raise ValueError(f"there is no model folder {str(path_or_hub_id)[:200]!r}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(path_or_hub_id), allow_patterns=["*.json", "*.safetensors", "tokenizer/*"]))
    except Exception as error:  # the hub client raises dozens of kinds; for a user all of them mean the same
        raise ValueError(f"there is no folder {path_or_hub_id!r}, and the hub did not deliver it: {error}") from error


def _best_device() -> torch.device:
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


def _read_info(folder: Path) -> ModelInfo:
    path = folder / "videoar.json"
    if not path.exists() and (folder / "model_index.json").exists():
        return ModelInfo(name=folder.name)
    values = _read_json(path)
    known = {item.name for item in dataclasses.fields(ModelInfo)}
    try:
        return ModelInfo(**{key: value for key, value in values.items() if key in known})
    except TypeError as error:
        raise ValueError(f"videoar.json of {folder.name} cannot be used: {error}") from error


def _part_class(part: str, config: dict[str, Any]) -> type:
    """The class of a part; only the ones this library knows, whatever the file asks for."""
    if part == "transformer":
        return VideoARTransformer3DModel
    if part == "text_encoder":
        from transformers import UMT5EncoderModel

        return UMT5EncoderModel
    name = config.get("_class_name")
    if name == "TinyCodec":
        from .codec import TinyCodec

        return TinyCodec
    if name == "AutoencoderKLWan":
        from diffusers import AutoencoderKLWan

        return AutoencoderKLWan
    raise ValueError(f"the vae of this model is {name!r}; AutoencoderKLWan and TinyCodec are known")


def _load_part(folder: Path, cls: type, config: dict[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """A module with strictly checked weights. It is built without memory, the file's tensors become its parameters."""
    from accelerate import init_empty_weights

    try:
        with init_empty_weights(include_buffers=False):
            make = getattr(cls, "from_config", None) or (lambda values: cls(cls.config_class.from_dict(values)))
            module = make(config)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{folder.name}/config.json does not describe a {cls.__name__}: {error}") from error
    expected = module.state_dict()
    keep_fp32 = set(getattr(cls, "_keep_in_fp32_modules", None) or ())
    ignored = getattr(cls, "_keys_to_ignore_on_load_unexpected", None) or ()
    tied = getattr(cls, "_tied_weights_keys", None) or ()
    state = {}
    for name, tensor in _read_tensors(folder):
        if name not in expected:
            if any(re.search(pattern, name) for pattern in ignored):
                continue
            raise ValueError(f"the weights in {folder.name} have {name!r}, which its config.json does not allow for")
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)} instead of {list(expected[name].shape)}"
            raise ValueError(f"{name!r} in {folder.name} has the wrong shape: {shapes}")
        state[name] = tensor.to(torch.float32 if keep_fp32.intersection(name.split(".")) else dtype)
    missing = [name for name in expected if name not in state and name not in tied]
    if missing:
        raise ValueError(
            f"{folder.name} lacks {len(missing)} of its {len(expected)} tensors, the first is {missing[0]!r}"
        )
    module.load_state_dict(state, strict=False, assign=True)
    if tied:
        module.tie_weights()
    return module.eval().requires_grad_(False)


def _read_tensors(folder: Path):
    """(name, tensor) of every tensor in a part's safetensors files."""
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118  (safe_open is no mapping)
                    yield name, tensors.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder.name}/{file.name} is damaged or incomplete: {error}. Copy it again") from error


def _weight_files(folder: Path) -> list[Path]:
    for stem in ("diffusion_pytorch_model", "model"):
        index = folder / f"{stem}.safetensors.index.json"
        if index.exists():
            names = set(_read_json(index).get("weight_map", {}).values())
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


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise ValueError("this model folder has no tokenizer/")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raise bare Exception for damaged files
        raise ValueError(f"the tokenizer of this model cannot be read: {error}") from error


def _save_part(module: torch.nn.Module, folder: Path, dtype: torch.dtype, class_name: str | None) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    state = {}
    tied = getattr(type(module), "_tied_weights_keys", None) or ()
    for name, tensor in module.state_dict().items():
        if name in tied:
            continue
        state[name] = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        if not torch.isfinite(state[name]).all():
            raise ValueError(f"{name!r} of {folder.name} is not finite in {dtype}: it cannot be saved")
    stem = "diffusion_pytorch_model" if class_name else "model"
    plan = split_torch_state_dict_into_shards(
        state, filename_pattern=stem + "{suffix}.safetensors", max_shard_size=SHARD_SIZE
    )
    for file, names in plan.filename_to_tensors.items():
        save_file({name: state[name] for name in names}, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        _write_json(folder / f"{stem}.safetensors.index.json", index)
    config = (
        json.loads(module.to_json_string()) | {"_class_name": class_name} if class_name else module.config.to_dict()
    )
    # Where the weights once lay on somebody's disk is nobody's business.
    config = {key: value for key, value in config.items() if key != "_name_or_path"}
    _write_json(folder / "config.json", config)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"this is not a complete model folder: {path.parent.name}/{path.name} is missing") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path.parent.name}/{path.name} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.parent.name}/{path.name} must hold a JSON object")
    return value


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
