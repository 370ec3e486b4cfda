"""The speed of a generator of Wan2.1-1.3B's shape, plan by plan, beside 50 guided steps over the whole clip at once.

Weights are random, which no figure here depends on; prompts are random embeddings, so the text encoder is not part of
it. On a CPU everything runs at a small shape, to show that it runs; those figures say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from videoar.attention import choose_kernel
from videoar.checkpoint import Model, ModelInfo
from videoar.generate import ClipFinished, ClipStarted, Request, UnitDecoded, generate
from videoar.tiny_decoder import TinyDecoder
from videoar.transformer import VideoARTransformer3DModel
from videoar.weights import kept_dtype

from .machine import machine, write_result

# Plan and window in latent frames (None: all of the clip).
CASES = (
    ("cube:2x2x2", None),
    ("cube:2x2x2", 12),
    ("frame:3", None),
    ("frame:3", 12),
    ("frame", 12),
    ("key_detail:4", None),
    ("scale:3", None),
)
PAPER_RATIO = 21.0  # what the paper says of cubes beside Wan2.1-1.3B


@dataclass(frozen=True)
class Shape:
    """Sizes of the networks and of the film. The defaults are Wan2.1-T2V-1.3B's at 832x480."""

    name: str = "Wan2.1-1.3B, 832x480, 81 frames"
    heads: int = 12
    head_dim: int = 128
    layers: int = 30
    ffn: int = 8960
    text_dim: int = 4096
    text_length: int = 512
    vae_width: int = 96
    tiny_widths: tuple[int, ...] = (256, 128, 64, 64)
    height: int = 480
    width: int = 832
    frames: int = 81


SMALL = Shape("small, 96x64, 33 frames", 4, 32, 4, 512, 64, 32, 8, (32, 16, 8, 8), 64, 96, 33)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench gpu", description=__doc__)
    parser.add_argument("--device", help="default: the accelerator, without one the CPU")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--small", action="store_true", help="the small shape, which is what a CPU gets")
    parser.add_argument("--plan", action="append", help="only this plan (may be repeated)")
    parser.add_argument("--runs", type=int, default=3, help="measured films of each case (default: 3)")
    parser.add_argument("--full-steps", type=int, default=50, help="guided steps of the whole clip (default: 50)")
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    parser.add_argument("--out", type=Path, help="default: bench/results/gpu.json, at the small shape gpu-small.json")
    args = parser.parse_args(argv)
    if args.runs < 1 or args.full_steps < 1:
        raise ValueError("--runs and --full-steps are at least 1")
    device = torch.device(args.device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    shape = SMALL if args.small or device.type == "cpu" else Shape()
    cases = [case for case in CASES if not args.plan or case[0] in args.plan]
    if not cases:
        raise ValueError(f"--plan is one of {', '.join(sorted({plan for plan, _ in CASES}))}")
    model, tiny = build(shape, device, getattr(torch, args.dtype), args.compile)
    head = {
        "shape": shape.name,
        "weights": "random",
        "device": str(device),
        "dtype": args.dtype,
        "attention": model.attention,
        "compiled": args.compile,
        "steps": model.info.steps,
        "runs": args.runs,
    }
    full = measure(model, tiny, whole_clip(shape, args.full_steps), 1)
    print(f"{shape.name}, {device}, {args.dtype}, attention {model.attention}, random weights")
    print(_HEADER)
    print(_row(f"full, {args.full_steps} guided", full, full))
    rows = []
    for plan, window in cases:
        request = Request("benchmark", plan=plan, window=window, seed=1)
        row = {"plan": plan, "window": window, **measure(model, tiny, request, args.runs)}
        row["ratio_to_full"] = round(full["diffusion_s"] / row["diffusion_s"], 2)
        row["ratio_to_full_end_to_end"] = round(full["end_to_end_s"] / row["end_to_end_s"], 2)
        rows.append(row)
        print(_row(f"{plan}, window {window or 'all'}", row, full))
    result = {
        **machine(),
        **head,
        "full": {"steps": args.full_steps, "guidance_scale": 5.0, **full},
        "plans": rows,
        "paper_ratio": PAPER_RATIO,
    }
    print(write_result("gpu-small" if shape == SMALL else "gpu", result, args.out))
    return 0


def build(shape: Shape, device: torch.device, dtype: torch.dtype, compiled: bool = False) -> tuple[Model, TinyDecoder]:
    """A model of random weights, and a tiny decoder of random weights."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    with torch.device(device):
        transformer = VideoARTransformer3DModel(
            num_attention_heads=shape.heads,
            attention_head_dim=shape.head_dim,
            num_layers=shape.layers,
            ffn_dim=shape.ffn,
            text_dim=shape.text_dim,
        )
        vae = AutoencoderKLWan(base_dim=shape.vae_width)
        tiny = TinyDecoder(widths=shape.tiny_widths)
    for module in (transformer, vae, tiny):
        for name, parameter in module.named_parameters():
            parameter.data = parameter.data.to(kept_dtype(type(module), name, dtype))
        module.eval().requires_grad_(False)
    info = ModelInfo(
        name=shape.name,
        plans=tuple(sorted({plan for plan, _ in CASES})),
        sampler="few_step",
        steps=4,
        timesteps=(1000, 750, 500, 250),
        guidance_scale=1.0,
        height=shape.height,
        width=shape.width,
        frames=shape.frames,
        text_length=shape.text_length,
    )
    text: Any = _Words(shape, device, dtype)
    model = Model(transformer, vae, text, info)
    model.attention = choose_kernel(transformer, device, dtype)
    if compiled:
        torch._dynamo.config.recompile_limit = 64
        for block in transformer.blocks:
            block.compile()
    return model, tiny


def whole_clip(shape: Shape, steps: int) -> Request:
    """What few-step plans are compared with: the whole clip at once, with guidance."""
    return Request("benchmark", plan="full", steps=steps, guidance_scale=5.0, seed=1)


def measure(model: Model, tiny: TinyDecoder, request: Request, runs: int) -> dict[str, Any]:
    """Medians over `runs` films, after one to warm up.

    Diffusion alone is measured without decoding; end to end with the autoencoder, and with the tiny decoder.
    """
    if request.guidance_scale not in (None, 1.0):
        info = dataclasses.replace(model.info, sampler="unipc", timesteps=())
        model = dataclasses.replace(model, info=info)
    alone = dataclasses.replace(model, decoder=_Blank(model.transformer.dtype))
    small = dataclasses.replace(model, decoder=tiny)
    for variant in (alone, model, small):  # the kernels of a plan are the same however many steps it takes
        _film(variant, dataclasses.replace(request, steps=min(2, request.steps or 2)))
    _reset_peak(model.device)
    diffusion = [_film(alone, request) for _ in range(runs)]
    whole = [_film(model, request) for _ in range(runs)]
    peak = _peak(model.device)
    light = [_film(small, request) for _ in range(runs)]
    frames = diffusion[0].frames
    units = [seconds for film in diffusion for seconds in film.units]
    seconds = statistics.median(sum(film.units) for film in diffusion)
    end_to_end = statistics.median(film.seconds for film in whole)
    with_tiny = statistics.median(film.seconds for film in light)
    cost = diffusion[0].cost
    return {
        "units": len(diffusion[0].units),
        "diffusion_s": _rounded(seconds),
        "diffusion_fps": _rounded(frames / seconds),
        "end_to_end_s": _rounded(end_to_end),
        "end_to_end_fps": _rounded(frames / end_to_end),
        "end_to_end_fps_tiny_decoder": _rounded(frames / with_tiny),
        "first_frame_s": _rounded(statistics.median(film.first_frame_s for film in whole)),
        "first_frame_s_tiny_decoder": _rounded(statistics.median(film.first_frame_s for film in light)),
        "unit_s_median": _rounded(statistics.median(units)),
        "unit_s_p95": _rounded(_quantile(units, 0.95)),
        "decode_s": _rounded(statistics.median(film.decode_s for film in whole)),
        "peak_memory_gb": _rounded(peak / 1e9),
        "cost_tflop": _rounded(cost / 1e12),
        "achieved_tflop_per_s": _rounded(cost / 1e12 / seconds),
    }


def forward_flop(shape: Any, tokens: int, keys: int, text: int) -> float:
    """Floating point operations of one forward: `tokens` that attend to `keys` (their own included) and to the text.

    shape: a transformer's config. A product of [m, k] and [k, n] counts 2mkn. Only what is done per token and block:
    the rest is below 1% of Wan's forward.
    """
    width = shape.num_attention_heads * shape.attention_head_dim
    linear = 12 * width**2 + 4 * width * shape.ffn_dim  # 4 self-attention, 2 cross-attention and 2 FFN matrices
    return shape.num_layers * tokens * (linear + 4 * width * (keys + text))


@dataclass(frozen=True)
class _Film:
    frames: int
    seconds: float
    first_frame_s: float
    decode_s: float
    units: list[float]  # denoising and clean pass of each
    cost: float  # floating point operations of the transformer


def _film(model: Model, request: Request) -> _Film:
    events = list(generate(model, request, previews=False, keep=False))
    started, finished = events[0], events[-1]
    assert isinstance(started, ClipStarted)
    assert isinstance(finished, ClipFinished)
    decoded = [event for event in events if isinstance(event, UnitDecoded)]
    config, batch = model.transformer.config, 1 if started.guidance_scale == 1 else 2
    copies = 3 if started.window is not None and model.info.relative else 2
    per_token = batch * copies * config.num_layers * config.num_attention_heads * config.attention_head_dim
    per_token *= model.transformer.dtype.itemsize
    sizes = [event.unit.size() for event in events if hasattr(event, "unit")]
    cost = 0.0
    for i, (event, size) in enumerate(zip(decoded, sizes, strict=True)):
        last = i + 1 == len(sizes)
        held = event.cache_bytes // per_token  # with this unit, unless it is the last, which nobody needs
        flop = forward_flop(config, size, held + size if last else held, model.info.text_length)
        cost += batch * flop * (started.steps if last else started.steps + 1)
    return _Film(
        frames=started.frames or 0,
        seconds=finished.seconds,
        first_frame_s=finished.first_frame_s,
        decode_s=sum(event.decode_s for event in decoded),
        units=[event.denoise_s + event.clean_s for event in decoded],
        cost=cost,
    )


class _Words:
    """Random embeddings in the place of a text encoder's."""

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.size, self.device, self.dtype = (shape.text_length, shape.text_dim), device, dtype

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(len(prompts), *self.size, generator=generator).to(self.device, self.dtype)


class _Blank:
    """In the place of a decoder: pictures of one pixel."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def decode_chunk(self, latents_BCFHW: torch.Tensor, state: Any) -> tuple[torch.Tensor, bool]:
        count = 4 * latents_BCFHW.shape[2] - (3 if state is None else 0)
        return torch.zeros(1, 3, count, 1, 1), True


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    """The most memory that was allocated on the device since the last reset; on a CPU what the process holds."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def _quantile(values: list[float], q: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(q))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


_COLUMNS = (
    ("FPS diffusion", "diffusion_fps"),
    ("FPS end to end", "end_to_end_fps"),
    ("with tiny decoder", "end_to_end_fps_tiny_decoder"),
    ("first frame s", "first_frame_s"),
    ("unit s", "unit_s_median"),
    ("p95", "unit_s_p95"),
    ("GB", "peak_memory_gb"),
    ("TFLOP", "cost_tflop"),
    ("TFLOP/s", "achieved_tflop_per_s"),
)
_HEADER = f"{'plan':26}" + "".join(f"{title:>{max(10, len(title) + 2)}}" for title, _ in _COLUMNS) + "  x full"


def _row(label: str, row: dict[str, Any], full: dict[str, Any]) -> str:
    cells = "".join(f"{row[key]:>{max(10, len(title) + 2)}.3g}" for title, key in _COLUMNS)
    return f"{label:26}{cells}{full['diffusion_s'] / row['diffusion_s']:>8.1f}"
