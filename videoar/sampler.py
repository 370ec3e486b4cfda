"""From noise to clean tokens: the few-step sampler and Euler's method, as iterables of x0 estimates.

Conventions of flow matching: x_t = (1 - sigma) x0 + sigma e, velocity v = e - x0, timestep = 1000 sigma, so that
x0 = x_t - sigma v. `velocity(x, sigma)` returns v for x at sigma, in the shape of x. All arithmetic in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

Velocity = Callable[[torch.Tensor, float], torch.Tensor]
Sigma = TypeVar("Sigma", float, torch.Tensor)

ALWAYS = (0.0, 0.0)  # the guidance interval of a network that is guided at every noise level
_SHARP = 1e-6  # the width of an interval that is a step


def warp(sigmas: Sequence[float], shift: float) -> list[float]:
    """Moves sigmas in [0, 1] towards noise: s' = k s / (1 + (k - 1) s). Shift 5 makes .9375 of .75, 1 is no change."""
    return [shift * s / (1 + (shift - 1) * s) for s in sigmas]


def unwarp(sigmas: Sequence[float], shift: float) -> list[float]:
    """The inverse of warp."""
    return [s / (shift - (shift - 1) * s) for s in sigmas]


def schedule(steps: int, shift: float, timesteps: Sequence[float] = (), sampler: str = "euler") -> list[float]:
    """Descending sigmas of a sampler with this many steps, warped; the final 0 is left out.

    timesteps: the checkpoint's own list, in [0, 1000] and not yet warped; used if it has as many entries as steps.
    """
    if sampler == "unipc":
        scheduler = _unipc_scheduler(shift)
        scheduler.set_timesteps(steps)
        return scheduler.sigmas[:-1].tolist()
    if steps == len(timesteps):
        return warp([t / 1000 for t in timesteps], shift)
    return warp([1 - i / steps for i in range(steps)], shift)


def few_step(
    velocity: Velocity, noise: torch.Tensor, sigmas: Sequence[float], fresh_noise: Callable[[int], torch.Tensor]
) -> Iterator[torch.Tensor]:
    """Yields x0 after every step; the last one is the sample.

    Predict x0, add fresh noise at the next sigma, repeat: the sampler of distribution-matched generators (the same as
    diffusers' FlowMatchLCMScheduler). fresh_noise(i) is asked for between steps i and i + 1.
    """
    x = noise
    for i, sigma in enumerate(sigmas):
        x0 = x - sigma * velocity(x, sigma)
        yield x0
        if i + 1 < len(sigmas):
            x = (1 - sigmas[i + 1]) * x0 + sigmas[i + 1] * fresh_noise(i)


def euler(velocity: Velocity, noise: torch.Tensor, sigmas: Sequence[float]) -> Iterator[torch.Tensor]:
    """Yields the x0 estimate of every step of Euler's method; the last one is the sample."""
    x = noise
    for sigma, following in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        v = velocity(x, sigma)
        yield x - sigma * v
        x = x + (following - sigma) * v


def unipc(velocity: Velocity, noise: torch.Tensor, sigmas: Sequence[float]) -> Iterator[torch.Tensor]:
    """Yields the x0 estimate of every step of diffusers' UniPC, the solver of the stock Wan pipeline.

    As there, the network is told whole timesteps.
    """
    scheduler = _unipc_scheduler()
    scheduler.set_timesteps(len(sigmas))
    scheduler.sigmas = torch.tensor([*sigmas, 0.0])
    scheduler.set_begin_index(0)  # or it would look the step up on the device, and wait for it
    x = noise
    for sigma in sigmas:
        timestep = int(1000 * sigma)
        v = velocity(x, timestep / 1000)
        yield x - sigma * v
        x = scheduler.step(v, timestep, x, return_dict=False)[0]


def _unipc_scheduler(shift: float = 1.0) -> Any:
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def guidance_at(sigma: Sigma, scale: float, interval: tuple[float, float] = ALWAYS) -> Sigma:
    """Return the guidance scale at a noise level: `scale` at and above the interval, 1 below it, linear inside.

    sigma: in [0, 1], a number or a tensor of them. Guidance decides what is drawn while the noise is strong; in weak
    noise it only multiplies the network's small errors (limited interval: Kynkäänniemi et al., 2024).
    """
    low, high = interval
    if high <= 0:
        return scale if isinstance(sigma, (int, float)) else torch.full_like(sigma, scale)
    if isinstance(sigma, (int, float)):
        return 1 + (scale - 1) * min(1.0, max(0.0, (sigma - low) / max(high - low, _SHARP)))
    return 1 + (scale - 1) * ((sigma - low) / max(high - low, _SHARP)).clamp(0, 1)


def guided(velocity_2B: Velocity, scale: float, interval: tuple[float, float] = ALWAYS) -> Velocity:
    """Classifier-free guidance: v = v_uncond + g (v_cond - v_uncond), from one doubled batch (cond, uncond).

    g is `guidance_at(sigma, scale, interval)`.
    """

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        cond, uncond = velocity_2B(torch.cat([x, x]), sigma).chunk(2)
        return uncond + guidance_at(sigma, scale, interval) * (cond - uncond)

    return velocity
