"""Stage `sample_base`: clips made by the base model itself, as the causal stage's data (section 4 of the paper)."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from videoar.plan import Plan
from videoar.sampler import euler, guided, schedule
from videoar.transformer import VideoARTransformer3DModel

from .dmd import finest_latents, place_of
from .presets import ServePreset


def clip_noise(name: str, shape: tuple[int, ...]) -> Tensor:
    """Noise that belongs to a clip's name, whatever the batch or the process that makes it."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def sample_latents(
    transformer: VideoARTransformer3DModel,
    text_BLE: Tensor,
    no_text_1LE: Tensor,
    plan: Plan,
    serve: ServePreset,
    noise_BND: Tensor,
) -> Tensor:
    """Latents [B, C, F, H, W] of clips made all at once (the full plan), with Euler's method and guidance."""
    text_kv = transformer.encode_text(torch.cat([text_BLE, no_text_1LE.expand_as(text_BLE)]))
    place = place_of(plan)

    def velocity(x: Tensor, sigma: float) -> Tensor:
        timestep = torch.full((len(x), 1), 1000 * sigma, device=x.device)
        return transformer(x, timestep, text_kv, place).float()

    sigmas = schedule(serve.steps, serve.shift, serve.timesteps)
    *_, tokens = euler(guided(velocity, serve.guidance_scale), noise_BND, sigmas)
    return finest_latents(tokens, plan, tuple(transformer.config.patch_size))
