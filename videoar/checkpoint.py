"""Model folders: diffusers' layout plus videoar.json, safetensors and JSON only, checked before anything runs."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .attention import choose_kernel
from .codec import TinyCodec
from .decoder import StreamDecoder
from .folders import find_folder, model_name
from .memory import OFFLOADS, check_room, module_bytes
from .plan import Grid, PlanSpec, latent_count
from .request import shown
from .text import TextEncoder
from .tiny_decoder import load_tiny_decoder
from .transformer import VideoARTransformer3DModel
from .weights import (
    cpu_computes_in_bfloat16,
    empty_module,
    fill_part,
    kept_dtype,
    parse_dtype,
    read_json,
    save_part,
    scrub,
    write_json,
)

# Which of our samplers is a pipeline's scheduler; any other flow model is integrated by Euler's method.
_SAMPLERS = {"UniPCMultistepScheduler": "unipc", "FlowMatchEulerDiscreteScheduler": "euler"}


@dataclass(frozen=True)
class ModelInfo:
    """What videoar.json says: how the checkpoint was trained and how it wants to be sampled.

    The defaults describe a bare Wan2.1-T2V-1.3B pipeline folder, which has no such file.
    """

    name: str = "Wan"
    plans: tuple[str, ...] = ("full",)  # plans it was trained for, the first is the best one
    sampler: str = "euler"  # "few_step", "euler" or "unipc"
    steps: int = 50
    timesteps: tuple[float, ...] = ()  # the few-step list, not yet warped, e.g. 1000, 750, 500, 250
    shift: float = 5.0
    guidance_scale: float = 5.0  # 1 = without guidance
    guidance_interval: tuple[float, float] = (0.0, 0.0)  # sigmas: none below the first, all of it above the second
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
        for name, (wanted, fits) in _WANTED.items():
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, value := tuple(value))
            if not fits(value):
                raise ValueError(f"{name} is {wanted}, not {shown(value)}")
        for plan in self.plans:
            PlanSpec.parse(plan)
        if self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError(f"guidance_interval is from a low to a high sigma, not {shown(self.guidance_interval)}")
        if self.window is not None and self.sink >= self.window:
            raise ValueError(f"sink is smaller than window ({self.window}), of which it is a part, not {self.sink}")

    def knows(self, plan: str) -> bool:
        """Whether the checkpoint was trained for plans of this kind (of frames: in chunks of this size)."""
        spec, trained = PlanSpec.parse(plan), [PlanSpec.parse(known) for known in self.plans]
        return any(spec.kind == t.kind and (spec.kind != "frame" or spec.args == t.args) for t in trained)

    def level_std(self, levels: int) -> tuple[float, ...]:
        """The deviation of each level of a pyramid, coarsest first; 1 where the checkpoint does not say."""
        known = self.scale_std[-levels:]
        return (1.0,) * (levels - len(known)) + tuple(known)


_Check = tuple[str, Callable[[Any], bool]]  # what is wanted, and whether a value is that


def _whole(low: int, high: int) -> _Check:
    return f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> _Check:
    """A number in [low, high]; NaN is in no range."""
    return f"a number from {low:g} to {high:g}", lambda value: type(value) in (int, float) and low <= value <= high


def _list_of(check: _Check, most: int, least: int = 0) -> _Check:
    wanted, fits = check
    return (
        f"a list of {least} to {most}, each {wanted}",
        lambda value: isinstance(value, tuple) and least <= len(value) <= most and all(map(fits, value)),
    )


def _or_null(check: _Check) -> _Check:
    wanted, fits = check
    return f"{wanted}, or null", lambda value: value is None or fits(value)


_TEXT: _Check = ("a text of 1 to 500 characters", lambda value: isinstance(value, str) and 0 < len(value) <= 500)
_TIMESTEPS = _list_of(_number(1, 1000), 1000)
# The fields of ModelInfo, with room beyond what is known to work, but not for what cannot.
_WANTED: dict[str, _Check] = {
    "name": _TEXT,
    "plans": _list_of(_TEXT, 100, least=1),
    "sampler": ("few_step, euler or unipc", lambda value: value in ("few_step", "euler", "unipc")),
    "steps": _whole(1, 1000),
    "timesteps": (
        f"{_TIMESTEPS[0]}, from large to small",
        lambda value: _TIMESTEPS[1](value) and list(value) == sorted(set(value), reverse=True),
    ),
    "shift": _number(0.01, 100),
    "guidance_scale": _number(0, 30),
    "guidance_interval": _list_of(_number(0, 1), 2, least=2),
    "window": _or_null(_whole(1, 10_000)),
    "sink": _whole(0, 10_000),
    "relative": ("true or false", lambda value: isinstance(value, bool)),
    "height": _whole(8, 4096),
    "width": _whole(8, 4096),
    "frames": ("1 + 4n, at most 10001", lambda value: type(value) is int and 1 <= value <= 10_001 and value % 4 == 1),
    "fps": _number(0.1, 240),
    "scale_std": _list_of(_number(0.001, 1000), 8),
    "text_length": _whole(1, 4096),
    "provenance": ("an object", lambda value: isinstance(value, Mapping)),
}


@dataclass
class Model:
    """Everything that makes a film from a request. The parts hold weights only: any number of clips can share them."""

    transformer: VideoARTransformer3DModel
    vae: Any  # AutoencoderKLWan or TinyCodec
    text: TextEncoder
    info: ModelInfo
    decoder: Any = None  # makes pixels in place of the vae, for speed: a TinyDecoder, or a TinyCodec in bfloat16
    previewer: Any = None  # makes the previews in place of what makes the pixels
    attention: str = "sdpa"  # the kernel, as chosen when the model was loaded

    def stream_decoder(self) -> StreamDecoder:
        """One clip's decoder."""
        return StreamDecoder(self.decoder or self.vae, self.previewer)

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
        return Grid(latent_count(frames), height // step_y, width // step_x)


def load_model(
    path_or_hub_id: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    *,
    offload: str = "none",
    decoder: str | Path | None = None,
    previewer: str | Path | None = None,
    compiled: bool = False,
) -> Model:
    """Loads a model folder, a model of the Hugging Face hub ("owner/name"), or with None the built-in model.

    device: the accelerator if there is one, else the CPU. dtype: by default float32 on a CPU, else bfloat16; pixels of
    the light codec are made in bfloat16 by default wherever the hardware computes in it. offload: "text" keeps the text
    encoder in CPU memory except while it reads a prompt, "blocks" the transformer as well (slow; 1 GB at a time is
    enough). decoder, previewer: files of tiny decoders (TAEHV), to make all pixels or the previews with.
    compiled: fuses the blocks' operations when they are first used, which takes a minute (needs a C++ compiler).

    Weights come from safetensors only. Raises ValueError that names the part if anything is missing, truncated or of
    the wrong shape, and, before weights are read, one that says how much memory is missing.
    """
    if offload not in OFFLOADS:
        raise ValueError(f"offload is one of {', '.join(OFFLOADS)}, not {shown(offload)}")
    if compiled and offload == "blocks":
        raise ValueError("compiled blocks cannot be offloaded: leave out one of the two")
    folder = find_folder(path_or_hub_id)
    device = _usable(device) if device is not None else _best_device()
    asked = parse_dtype(dtype)
    dtype = asked or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    info = read_info(folder, model_name(path_or_hub_id or folder))
    parts: dict[str, Any] = {}
    for part in ("transformer", "vae", "text_encoder"):
        config = read_json(folder / part / "config.json")
        parts[part] = empty_module(folder / part, _part_class(part, config), config)
    text = TextEncoder(_load_tokenizer(folder / "tokenizer"), parts["text_encoder"], info.text_length)
    model = Model(parts["transformer"], parts["vae"], text, info)
    _check_fit(model)
    away = {"none": (), "text": ("text_encoder",), "blocks": ("text_encoder", "transformer")}[offload]
    _check_memory(model, parts, away, device, dtype)
    for part, module in parts.items():
        fill_part(folder / part, module, dtype).to("cpu" if part in away else device)
    if "text_encoder" in away and device.type != "cpu":
        text.visits = device
    model.attention = choose_kernel(model.transformer, device, dtype)
    if compiled:
        # One graph for each kind of unit; afterwards lengths are symbols.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        for block in model.transformer.blocks:
            block.compile()
    if "transformer" in away:
        parts["transformer"].enable_group_offload(device, offload_type="leaf_level")
    for name, file in (("decoder", decoder), ("previewer", previewer)):
        if file is not None:
            setattr(model, name, load_tiny_decoder(file, model.vae, device, dtype))
    fast = device.type == "cpu" and cpu_computes_in_bfloat16()
    if decoder is None and asked is None and fast and isinstance(model.vae, TinyCodec):
        # Almost twice as fast, and nobody sees it; a third less again with the channels last in memory. The vae itself
        # stays as precise as its file, to encode and be saved.
        model.decoder = copy.deepcopy(model.vae).bfloat16().to(memory_format=torch.channels_last)
    return model


def _check_memory(
    model: Model, parts: Mapping[str, Any], away: Sequence[str], device: torch.device, dtype: torch.dtype
) -> None:
    """Raises ValueError if weights and the cache of a film of the default size do not fit. The parts are empty yet."""
    sizes = {
        part: module_bytes(module, functools.partial(kept_dtype, type(module), dtype=dtype))
        for part, module in parts.items()
    }
    here = {part: size for part, size in sizes.items() if part not in away or device.type == "cpu"}
    if device.type != "cpu":
        resting = {part: size for part, size in sizes.items() if part in away}
        check_room(resting, torch.device("cpu"), "offload less, or close other programs")
    here["keys and values"] = _cache_bytes(model, dtype)
    advice = []
    if device.type != "cpu" and "transformer" not in away:
        advice.append("--offload text" if not away else "--offload blocks")
    if dtype == torch.float32:
        advice.append("--dtype bfloat16")
    if here["keys and values"]:
        advice.append("a smaller window or film by default (window, frames, height and width in videoar.json)")
    check_room(here, device, f"try {', or '.join(advice)}" if advice else "a larger device is needed")


def _cache_bytes(model: Model, dtype: torch.dtype) -> int:
    """Keys and values of a film of the default size, best plan; a plan of one unit needs none."""
    info, config = model.info, model.transformer.config
    if info.plans[0] == "full":
        return 0
    grid = model.grid(info)
    tokens = min(info.window or grid.T, grid.T) * grid.H * grid.W
    copies = 3 if info.window is not None and info.relative else 2
    batch = 1 if info.guidance_scale == 1 else 2
    width = config.num_attention_heads * config.attention_head_dim
    return batch * tokens * copies * config.num_layers * width * dtype.itemsize


def save_model(model: Model, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes a model folder: safetensors shards under 16 MB, configs, tokenizer, model_index.json, videoar.json.

    With an AutoencoderKLWan the folder also loads in diffusers' WanPipeline. Raises ValueError for weights that are not
    finite in dtype.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, __version__

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    codec_home = "diffusers" if type(model.vae).__module__.startswith("diffusers.") else "videoar.codec"
    save_part(model.transformer, folder / "transformer", dtype, "WanTransformer3DModel")
    save_part(model.vae, folder / "vae", dtype, type(model.vae).__name__)
    save_part(model.text.encoder, folder / "text_encoder", dtype, None)
    model.text.tokenizer.save_pretrained(folder / "tokenizer")
    scrub(folder / "tokenizer" / "tokenizer_config.json")
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
    write_json(folder / "model_index.json", index)
    write_json(folder / "videoar.json", dataclasses.asdict(model.info))


def _usable(name: str | torch.device) -> torch.device:
    """Raises ValueError for a device that holds no numbers or is not there."""
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except Exception as error:  # every backend has its own way to say so
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"device {shown(str(name))} cannot be used: {reason[:200]}") from error
    return device


def _best_device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def read_info(folder: Path, name: str) -> ModelInfo:
    """videoar.json of a model folder; without one, what the configs of a Wan pipeline say, and `name`."""
    path = folder / "videoar.json"
    if not path.exists() and (folder / "model_index.json").exists():
        return _wan_info(folder, name)
    values = read_json(path)
    known = {item.name for item in dataclasses.fields(ModelInfo)}
    try:
        return ModelInfo(**{key: value for key, value in values.items() if key in known})
    except ValueError as error:
        raise ValueError(f"{folder.name}/videoar.json: {error}") from error


def _wan_info(folder: Path, name: str) -> ModelInfo:
    """How a bare Wan pipeline wants to be sampled."""
    if read_json(folder / "vae" / "config.json").get("_class_name") != "AutoencoderKLWan":
        raise ValueError("this is not a complete model folder: videoar.json is missing")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    sampler = _SAMPLERS.get(str(scheduler.get("_class_name")), "euler")
    shift = scheduler.get("flow_shift", scheduler.get("shift", ModelInfo.shift))
    try:
        return ModelInfo(name=name[-500:], sampler=sampler, shift=shift)
    except ValueError as error:
        raise ValueError(f"{folder.name}/scheduler/scheduler_config.json: {error}") from error


def _check_fit(model: Model) -> None:
    """Raises ValueError for parts that do not fit one another, before a film finds out."""
    config, latents = model.transformer.config, model.vae.config.z_dim
    text_config: Any = model.text.encoder.config
    if model.patch[0] != 1:
        raise ValueError(f"transformer/config.json: patch_size begins with 1, not {model.patch[0]}")
    if not config.in_channels == config.out_channels == latents:
        channels = f"{config.in_channels} in and {config.out_channels} out"
        raise ValueError(f"transformer/config.json: the vae has {latents} latent channels, not {channels}")
    if config.text_dim != text_config.d_model:
        wanted = f"the text encoder's {text_config.d_model}"
        raise ValueError(f"transformer/config.json: text_dim is {wanted}, not {config.text_dim}")
    try:
        model.grid(model.info)
    except ValueError as error:
        raise ValueError(f"the default size in videoar.json does not fit the model: {error}") from error


def _part_class(part: str, config: dict[str, Any]) -> type:
    """The class of a part; only the ones this library knows, whatever the file asks for."""
    if part == "transformer":
        return VideoARTransformer3DModel
    if part == "text_encoder":
        from transformers import UMT5EncoderModel

        return UMT5EncoderModel
    name = config.get("_class_name")
    if name == "TinyCodec":
        return TinyCodec
    if name == "AutoencoderKLWan":
        from diffusers import AutoencoderKLWan

        return AutoencoderKLWan
    raise ValueError(f"the vae of this model is {name!r}; AutoencoderKLWan and TinyCodec are known")


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise ValueError("this model folder has no tokenizer/")
    if not any((folder / name).exists() for name in ("tokenizer.json", "spiece.model")):
        # Without its vocabulary a tokenizer loads all the same, and turns every prompt into noise.
        raise ValueError("this is not a complete model folder: tokenizer/tokenizer.json is missing")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raise bare Exception for damaged files
        raise ValueError(f"the tokenizer of this model cannot be read: {error}") from error
