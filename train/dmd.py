"""Stage 2, Symmetric DMD: the few-step generator learns on its own rollouts, from what three scorers say of them.

Section 3.3, equation 2: the real scorer (frozen, full attention, guided) stands for the data; the fake scorers, one
causal in the plan's order and one in the reverse order, learn what the generator makes. The difference of their
denoised estimates is the gradient of the reverse KL divergence.

Shapes: B batch, N tokens of a whole plan in its order, D token values, S sampling steps, L text tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videoar.plan import Plan, PlanSpec
from videoar.sampler import ALWAYS, few_step, guidance_at, schedule
from videoar.transformer import VideoARTransformer3DModel, unpatchify

from .flow import Draw, Losses
from .layout import causal_mask, finest_tokens, place_of, tokens_of_level
from .presets import DMDPreset

SCORERS = {"full": ("full",), "forward": ("forward",), "backward": ("backward",), "both": ("forward", "backward")}
LOWEST, HIGHEST = 0.02, 0.98  # sigmas at which samples are scored


def scorer_mask(plan: Plan, direction: str, device: torch.device | str = "cpu") -> Tensor | None:
    """Bool [N, N] over the tokens in the plan's order, True = may attend.

    A forward scorer sees its unit and the earlier ones, a backward one its unit and the later ones (the mask of
    `plan.reverse()`, with its tokens put back in the plan's order); None for full attention.
    """
    return None if direction == "full" else causal_mask(plan, direction == "backward", device=device)


def dmd_gradient(sample: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Equation 2 in terms of x0 estimates, scaled to about 1 for every clip; NaN where there is nothing to scale by
    becomes 0. All [B, ...].
    """
    scale = (sample - real).abs().mean(dim=tuple(range(1, sample.ndim)), keepdim=True)
    return torch.nan_to_num((fake - real) / scale, nan=0.0, posinf=0.0, neginf=0.0)


def dmd_loss(sample: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """A loss whose gradient with respect to the sample is `dmd_gradient`, up to the number of elements."""
    return 0.5 * F.mse_loss(sample, (sample - dmd_gradient(sample, real, fake)).detach())


def finest_latents(tokens_BND: Tensor, plan: Plan, patch: tuple[int, int, int]) -> Tensor:
    """Latents [B, C, F, H, W] of the finest level of a plan's tokens."""
    return unpatchify(tokens_BND[:, finest_tokens(plan, device=tokens_BND.device)], plan.grid, patch)


class Rollout(nn.Module):
    """The generator as it is served: unit after unit, few steps each, against the cache of its own earlier units."""

    def __init__(self, transformer: VideoARTransformer3DModel, sigmas: Sequence[float]):
        super().__init__()
        self.transformer, self.sigmas = transformer, list(sigmas)

    def forward(self, noise_SBND: Tensor, text_BLE: Tensor, plan: Plan) -> Tensor:
        """Samples [B, N, D]: the x0 estimates of step S, the last of those that there is noise for.

        Gradients flow through that exit step alone: neither through the steps before it nor through the cache.
        """
        grad, sigmas = torch.is_grad_enabled(), self.sigmas[: len(noise_SBND)]
        network, device = self.transformer, noise_SBND.device
        kind = device.type
        cache = network.new_cache(
            len(text_BLE),
            capacity=noise_SBND.shape[2],
            dtype=torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
        )
        text_kv = network.encode_text(text_BLE)
        done = []
        for unit, noise in zip(plan.units, noise_SBND.split([u.size() for u in plan.units], dim=2), strict=True):
            place = plan.positions(unit)

            def run(x: Tensor, sigma: float, learn: bool = False, place: Tensor = place) -> Tensor:
                if learn:
                    torch.clear_autocast_cache()  # it holds casts of the weights that were made without gradients
                timestep = torch.full((len(x), 1), 1000 * sigma, device=device)
                with torch.set_grad_enabled(learn):
                    return network(x, timestep, text_kv, place, cache=cache).float()

            def velocity(x: Tensor, sigma: float, run: Callable[..., Tensor] = run) -> Tensor:
                return run(x, sigma, learn=grad and sigma == sigmas[-1])

            *_, x0 = few_step(velocity, noise[0], sigmas, noise[1:].__getitem__)
            done.append(x0)
            if len(done) < len(plan.units):
                run(x0.detach(), 0.0)
                cache.commit()
        return torch.cat(done, dim=1)


class FakeScorers(nn.Module):
    """The scorers of what the generator makes: replicas of it under the plan's mask, its reverse, or none."""

    def __init__(self, networks: dict[str, VideoARTransformer3DModel]):
        super().__init__()
        self.directions, self.networks = list(networks), nn.ModuleList(networks.values())

    def forward(self, noisy_BND: Tensor, sigma_B: Tensor, text_BLE: Tensor, plan: Plan) -> list[Tensor]:
        """The velocity [B, N, D] that each of them estimates."""
        place, timestep = place_of(plan), 1000 * sigma_B[:, None]
        shapes = [unit.shape() for unit in plan.units]
        out = []
        for direction, network in zip(self.directions, self.networks, strict=True):
            mask = scorer_mask(plan, direction, noisy_BND.device)
            out.append(network(noisy_BND, timestep, text_BLE, place, mask=mask, unit_shapes=shapes).float())
        return out


class SymmetricDMD:
    """The method of stage 2, for the loop in generator.py: every step the fakes learn, every few steps the generator.

    generator: the causal network of stage 1 (or with its guidance distilled); real: the frozen real scorer; fakes:
    networks to start the fake scorers from, one per name in SCORERS[preset.scorers].
    """

    needs_latents = False  # prompts suffice

    def __init__(
        self,
        generator: VideoARTransformer3DModel,
        real: nn.Module,
        fakes: dict[str, VideoARTransformer3DModel],
        preset: DMDPreset,
    ):
        if any(share.crop for share in preset.plans):
            raise ValueError("dmd makes whole frames: give its plans no Share.crop")
        self.preset, self.real = preset, real
        self.transformer = generator
        scorers = FakeScorers(fakes)
        self.parts: dict[str, nn.Module] = {
            "model": Rollout(generator, schedule(preset.rollout_steps, preset.shift)),
            "fakes": scorers,
        }
        self.trained: dict[str, nn.Module] = {"model": generator, "fakes": scorers.networks}
        self.rates = {"model": 1.0, "fakes": preset.fake_lr / preset.lr}
        self.frozen: list[nn.Module] = [real]
        self.uncached = [real, scorers]

    def losses(self, draw: Draw) -> Losses:
        p, plan = self.preset, draw.plan
        patch = tuple(self.transformer.config.patch_size)
        turn = draw.step >= p.fakes_first and (draw.step - p.fakes_first) % p.fake_updates == 0
        steps = 1 + draw.noise.below(p.rollout_steps)  # the same for all clips and units
        tokens = (len(draw.text_BLE), len(plan.unit_ids()), self.transformer.config.in_channels * patch[1] * patch[2])
        noise = torch.stack([draw.noise.normal(*tokens) for _ in range(steps)])
        with torch.set_grad_enabled(turn):
            sample = self.parts["model"](noise, draw.text_BLE, plan)
        latents = finest_latents(sample.detach(), plan, patch)
        # What long distillation is known to spoil: contrast that grows, motion that dies.
        row = {"spread": latents.std(), "motion": latents.diff(dim=2).abs().mean()}
        if turn:
            noisy, sigma_B, _ = self.noised(sample.detach(), draw)
            sigma = sigma_B[:, None, None]
            with torch.no_grad():
                real = noisy - sigma * self.real_velocity(noisy, sigma_B, draw)
                fakes = self.parts["fakes"](noisy, sigma_B, draw.text_BLE, plan)
                fake = noisy - sigma * torch.stack(fakes).mean(0)
            loss = dmd_loss(sample, real, fake)
            yield "model", loss, {"dmd": loss.detach(), **row}
        sample = sample.detach()
        for _ in range(p.fake_repeats):
            noisy, sigma_B, noise = self.noised(sample, draw)
            fakes = self.parts["fakes"](noisy, sigma_B, draw.text_BLE, plan)
            yield "fakes", torch.stack([F.mse_loss(v, noise - sample) for v in fakes]).mean(), row

    def noised(self, sample_BND: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """The sample at a random sigma of each clip, the sigmas [B] and the noise."""
        uniform = draw.noise.uniform(len(sample_BND))
        shift = self.preset.shift
        sigma_B = (shift * uniform / (1 + (shift - 1) * uniform)).clamp(LOWEST, HIGHEST)
        noise, sigma = draw.noise.normal(*sample_BND.shape), sigma_B[:, None, None]
        return (1 - sigma) * sample_BND + sigma * noise, sigma_B, noise

    def real_velocity(self, noisy_BND: Tensor, sigma_B: Tensor, draw: Draw) -> Tensor:
        """What the real scorer says of each level, guided. A level is a video of its own, whatever its units."""
        plan, scale = draw.plan, self.preset.real_guidance
        scale_B11 = guidance_at(sigma_B, scale, self.preset.guidance_interval or ALWAYS)[:, None, None]
        text, timestep = draw.text_BLE, 1000 * sigma_B[:, None]
        if scale != 1:
            text = torch.cat([text, draw.no_text_1LE.expand_as(text)])
        timestep = timestep.repeat(len(text) // len(noisy_BND), 1)
        place, velocity = place_of(plan), torch.empty_like(noisy_BND)
        for level in range(len(plan.scales)):
            mine = tokens_of_level(plan, level, device=noisy_BND.device)
            places = place[tokens_of_level(plan, level)]
            if plan.scales[level] > 1 and not self.transformer.config.spatial_embedding:
                # A network that is told rows and columns must find coarse tokens where they are; one that knows
                # distances alone knows small videos.
                full = PlanSpec("full").build(plan.level_grid(level))
                places = full.positions(full.units[0])
            x = noisy_BND.index_select(1, mine)
            shapes = [unit.shape() for unit in plan.units if unit.level == level]
            inputs = (x.repeat(len(text) // len(x), 1, 1), timestep, text, places)
            out = self.real(*inputs, unit_shapes=shapes).float()
            cond, uncond = out.chunk(2) if scale != 1 else (out, out)
            velocity.index_copy_(1, mine, uncond + scale_B11 * (cond - uncond))
        return velocity
