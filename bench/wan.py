"""A generator of Wan2.1-1.3B's shape with random weights, and how many operations its films take.

Shapes: B batch, N tokens, H heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from videoar.attention import choose_kernel
from videoar.cache import KVCache
from videoar.checkpoint import Model, ModelInfo
from videoar.request import Request, resolve
from videoar.tiny_decoder import TinyDecoder
from videoar.transformer import VideoARTransformer3DModel
from videoar.weights import kept_dtype


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


def build(shape: Shape, device: torch.device, dtype: torch.dtype, compiled: bool = False) -> tuple[Model, TinyDecoder]:
    """Return a model of random weights, and a tiny decoder of random weights."""
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


def forward_flop(shape: Any, tokens: int, keys: int, text: int) -> float:
    """Floating point operations of one forward: `tokens` that attend to `keys` (their own included) and to the text.

    shape: a transformer's config. A product of [m, k] and [k, n] counts 2mkn. Only what is done per token and block:
    the rest is below 1% of Wan's forward.
    """
    width = shape.num_attention_heads * shape.attention_head_dim
    linear = 12 * width**2 + 4 * width * shape.ffn_dim  # 4 self-attention, 2 cross-attention and 2 FFN matrices
    return shape.num_layers * tokens * (linear + 4 * width * (keys + text))


def film_flop(model: Model, request: Request) -> float:
    """Return the transformer's operations of a whole film; a cache as small as can be tells what units attend to."""
    settings = resolve(model, request)
    assert settings.length is not None, "an endless film has no cost"
    cache = KVCache(1, 1, 1, 1, window=settings.window, sink=settings.sink, relative=False)
    units = [(plan, unit) for plan in settings.slabs() for unit in plan.units]
    flop = 0.0
    for index, (plan, unit) in enumerate(units):
        cache.open(plan.positions(unit))
        keys = cache.length + unit.size()
        passes = len(settings.sigmas) + (index + 1 < len(units))  # the clean pass; nobody needs the last unit's
        flop += passes * forward_flop(model.transformer.config, unit.size(), keys, model.info.text_length)
        empty_BNHD = torch.zeros(1, unit.size(), 1, 1)
        cache.extend(0, empty_BNHD, empty_BNHD, empty_BNHD)
        cache.commit()
    return flop if settings.guidance_scale == 1 else 2 * flop


class _Words:
    """Random embeddings in the place of a text encoder's."""

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.size, self.device, self.dtype = (shape.text_length, shape.text_dim), device, dtype

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(len(prompts), *self.size, generator=generator).to(self.device, self.dtype)
