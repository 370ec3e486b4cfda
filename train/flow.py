"""Flow matching under any plan: x_t = (1 - s) x + s e, target v = e - x, s warped by the shift.

With the full plan this is the base model's objective. With a causal plan it is teacher forcing: the sequence holds
every unit twice, clean and noisy; a noisy unit sees itself and the clean tokens of earlier units, which is exactly
what sampling with the cache sees.

Shapes: B batch, N tokens of a plan, D token channels, U units.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videoar.plan import Plan
from videoar.sampler import guidance_at
from videoar.transformer import VideoARTransformer3DModel, patchify

from . import places
from .layout import place_of, remembered, sites, unit_ids
from .presets import FlowPreset


def level_tokens(
    latents_BCFHW: Tensor, plan: Plan, patch: tuple[int, int, int], scale_std: dict[int, float]
) -> list[Tensor]:
    """Tokens [B, N_level, D] of each level, coarse to fine; coarse latents are area averages brought back to unit
    spread.
    """
    levels = []
    for factor in plan.scales:
        z = latents_BCFHW
        if factor > 1:
            z = F.avg_pool3d(z, (1, factor, factor)) / scale_std.get(factor, 1.0)
        levels.append(patchify(z, patch))
    return levels


def plan_tokens(levels: list[Tensor], plan: Plan) -> Tensor:
    """Tokens [B, N, D] in the plan's order."""
    whole = torch.cat(levels, dim=1) if len(levels) > 1 else levels[0]
    return whole[:, sites(plan, device=whole.device)]


def teacher_forcing_mask(unit_ids_N: Tensor) -> Tensor:
    """Mask [2N, 2N] over (clean tokens, noisy tokens): clean sees clean of its own and earlier units, noisy sees
    clean of earlier units and its own noisy tokens."""
    earlier = unit_ids_N[:, None] > unit_ids_N[None, :]
    own = unit_ids_N[:, None] == unit_ids_N[None, :]
    return torch.cat([torch.cat([earlier | own, torch.zeros_like(own)], 1), torch.cat([earlier, own], 1)], 0)


@remembered
def forcing_mask(plan: Plan) -> Tensor:
    """The mask of teacher forcing under a plan."""
    return teacher_forcing_mask(plan.unit_ids())


class Noise:
    """The random numbers of a step. They are drawn for the clips of all processes and each takes its own part, so that
    two processes train as one does on the doubled batch.
    """

    def __init__(self, seed: int, part: int = 0, parts: int = 1, device: torch.device | str = "cpu"):
        self.part, self.parts, self.device = part, parts, device
        self.generator = torch.Generator().manual_seed(seed)  # a CPU's: the same numbers on every device

    def normal(self, clips: int, *shape: int) -> Tensor:
        return self._own(torch.randn(clips * self.parts, *shape, generator=self.generator))

    def uniform(self, clips: int, *shape: int) -> Tensor:
        """In [0, 1)."""
        return self._own(torch.rand(clips * self.parts, *shape, generator=self.generator))

    def below(self, n: int) -> int:
        """A whole number in [0, n), the same in all processes."""
        return int(torch.randint(n, (), generator=self.generator))

    def _own(self, drawn: Tensor) -> Tensor:
        clips = len(drawn) // self.parts
        return drawn[self.part * clips :][:clips].to(self.device)


@dataclass(frozen=True)
class Draw:
    """What one process trains on in one step. text_BLE: the embedded prompts; no_text_1LE: the empty one.

    shift: how the noise levels are warped for clips or excerpts of this length.
    """

    step: int
    plan: Plan
    shift: float
    text_BLE: Tensor
    no_text_1LE: Tensor
    noise: Noise
    latents_BCFHW: Tensor | None
    paths_BF24: Tensor | None = None


Losses = Iterator[tuple[str, Tensor, dict[str, float]]]  # the part to train, its loss, further columns of the log


def sample_sigmas(clips: int, units: int, shift: float, noise: Noise) -> Tensor:
    """Logit-normal sigmas [clips, units] (Esser et al., 2024), warped by the shift."""
    u = noise.normal(clips, units).sigmoid()
    return shift * u / (1 + (shift - 1) * u)


class FlowMatching(nn.Module):
    """The loss as one module call, so that data-parallel wrappers see every parameter used inside `forward`."""

    def __init__(
        self,
        transformer: VideoARTransformer3DModel,
        preset: FlowPreset,
        scale_std: dict[int, float],
        teacher: VideoARTransformer3DModel | None = None,
    ):
        super().__init__()
        if preset.places is not None:
            asked, blocks = preset.places.blocks, transformer.config.num_layers
            if not asked or max(asked) >= blocks:
                raise ValueError(f"places are asked of the blocks {asked}; the network has {blocks}, counted from 0")
        self.transformer, self.preset, self.scale_std, self.teacher = transformer, preset, scale_std, teacher

    def forward(
        self,
        latents_BCFHW: Tensor,
        text_BLE: Tensor,
        plan: Plan,
        shift: float,
        random: Noise,
        no_text_1LE: Tensor | None = None,
        paths_BF24: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared velocity error of a batch, and columns for the log.

        With a teacher the target is its velocity, guided away from the empty prompt `no_text_1LE` (guidance
        distillation, Meng et al., 2023): the student then needs one forward where guidance needs two.
        paths_BF24: where the things are (places.py); then the loss is weighed, and telling places is a part of it. The
        columns are the error as it would be without that, and that of the places.
        """
        device = latents_BCFHW.device
        patch = tuple(self.transformer.config.patch_size)
        x = plan_tokens(level_tokens(latents_BCFHW, plan, patch, self.scale_std), plan)
        units = len(plan.units)
        ids, positions = unit_ids(plan), place_of(plan)  # on the CPU, where the network wants them
        sigma_BU = sample_sigmas(len(x), units, shift, random)
        sigma = sigma_BU[:, unit_ids(plan, device=device), None]
        noise = random.normal(*x.shape)
        noisy = (1 - sigma) * x + sigma * noise
        inputs = [noisy, sigma_BU * 1000, positions]
        kwargs: dict = {}
        if units > 1:
            context = x
            if self.preset.context_noise:
                # Half of the clips see a slightly noisy past, told as clean: what the model's own errors will look
                # like.
                amount = random.uniform(len(x), 1, 1) * self.preset.context_noise
                amount = amount * (random.uniform(len(x), 1, 1) < 0.5)
                context = (1 - amount) * x + amount * random.normal(*x.shape)
            timesteps = torch.cat([torch.zeros_like(sigma_BU), sigma_BU * 1000], dim=1)
            inputs = [torch.cat([context, noisy], 1), timesteps, torch.cat([positions, positions])]
            kwargs = {"token_unit_N": torch.cat([ids, ids + units]), "mask": forcing_mask(plan, device=device)}

        def velocity(network: VideoARTransformer3DModel, text: Tensor, hidden: list | None = None) -> Tensor:
            tokens, timestep, where = inputs
            return network(tokens, timestep, text, where, hidden=hidden, **kwargs)[:, -x.shape[1] :].float()

        if self.teacher is None:
            target = noise - x
        else:
            assert no_text_1LE is not None, "a guided target needs the empty prompt"
            with torch.no_grad():
                without = velocity(self.teacher, no_text_1LE.expand_as(text_BLE))
                scale = guidance_at(sigma, self.preset.teacher_guidance, self.preset.guidance_interval)
                target = without + scale * (velocity(self.teacher, text_BLE) - without)
        asked = self.preset.places
        if asked is None or paths_BF24 is None:
            return F.mse_loss(velocity(self.transformer, text_BLE), target), {}
        hidden: list[Tensor] = []
        error = (velocity(self.transformer, text_BLE, hidden) - target).square()
        wanted = places.targets(paths_BF24.to(device), place_of(plan, device=device), plan.grid)
        told = [places.told(hidden[i][:, -x.shape[1] :]) for i in asked.blocks]
        missed = torch.stack([F.mse_loss(said, wanted) for said in told]).mean()
        loss = (error * places.weights(wanted, asked.weight)).mean() + asked.loss * missed
        return loss, {"error": error.detach().mean(), "places": missed.detach()}


class FlowTraining:
    """The method of the stages `base`, `causal` and `guidance`, for the loop in generator.py.

    With `preset.teacher_guidance` the teacher is the transformer as it is when training starts.
    """

    needs_latents = True

    def __init__(
        self,
        transformer: VideoARTransformer3DModel,
        preset: FlowPreset,
        scale_std: dict[int, float],
    ):
        teacher = copy.deepcopy(transformer).eval().requires_grad_(False) if preset.teacher_guidance else None
        self.parts: dict[str, nn.Module] = {"model": FlowMatching(transformer, preset, scale_std, teacher)}
        self.trained: dict[str, nn.Module] = {"model": transformer}
        self.frozen: list[nn.Module] = [] if teacher is None else [teacher]
        self.uncached = [*self.parts.values()]
        self.rates = {"model": 1.0}

    def losses(self, draw: Draw) -> Losses:
        assert draw.latents_BCFHW is not None
        inputs = (draw.latents_BCFHW, draw.text_BLE, draw.plan, draw.shift, draw.noise, draw.no_text_1LE)
        loss, columns = self.parts["model"](*inputs, draw.paths_BF24)
        yield "model", loss, {name: value.item() for name, value in columns.items()}
