"""Clips as latents, many at once and under any plan: for the causal stage's data (section 4 of the paper), and to judge
a network by.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from videoar.plan import Plan
from videoar.sampler import euler, few_step, guided, schedule
from videoar.transformer import VideoARTransformer3DModel

from .dmd import finest_latents
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
    noise_SBND: Tensor,
) -> Tensor:
    """Latents [B, C, F, H, W] of clips made unit after unit, guided where the scale is not 1.

    noise_SBND: what the units start from, and for the few-step sampler fresh noise for each further step.
    """
    guidance, device = serve.guidance_scale, noise_SBND.device
    text = text_BLE if guidance == 1 else torch.cat([text_BLE, no_text_1LE.expand_as(text_BLE)])
    text_kv = transformer.encode_text(text)
    dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    cache = transformer.new_cache(len(text), capacity=noise_SBND.shape[2], dtype=dtype)
    sigmas = schedule(serve.steps, serve.shift, serve.timesteps)
    done: list[Tensor] = []
    for unit, noise in zip(plan.units, noise_SBND.split([u.size() for u in plan.units], dim=2), strict=True):
        place = plan.positions(unit)

        def velocity(x: Tensor, sigma: float, place: Tensor = place) -> Tensor:
            timestep = torch.full((len(x), 1), 1000 * sigma, device=device)
            return transformer(x, timestep, text_kv, place, cache=cache).float()

        wanted = velocity if guidance == 1 else guided(velocity, guidance, serve.guidance_interval)
        if serve.sampler == "few_step":
            *_, x0 = few_step(wanted, noise[0], sigmas, noise[1:].__getitem__)
        else:
            *_, x0 = euler(wanted, noise[0], sigmas)
        done.append(x0)
        if len(done) < len(plan.units):
            velocity(x0.repeat(len(text) // len(x0), 1, 1), 0.0)
            cache.commit()
    return finest_latents(torch.cat(done, dim=1), plan, tuple(transformer.config.patch_size))
