"""Flow matching under any plan: x_t = (1 - s) x + s e, target v = e - x, s warped by the shift.

With the full plan this is the base model's objective. With a causal plan it is teacher forcing: the sequence holds
every unit twice, clean and noisy; a noisy unit sees itself and the clean tokens of earlier units, which is exactly
what sampling with the cache sees.

Shapes: B batch, N tokens of a plan, D token channels, U units.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from videoar.memory import send
from videoar.plan import Plan
from videoar.sampler import ALWAYS, guidance_at
from videoar.transformer import VideoARTransformer3DModel, patchify

from . import places
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
    together = levels[0] if len(levels) == 1 else torch.cat(levels, dim=1)
    return together.index_select(1, _token_order(plan, together.device))


@functools.lru_cache(maxsize=64)  # brought to the device once: PyTorch waits for it whenever it brings an index itself
def _token_order(plan: Plan, device: torch.device) -> Tensor:
    """Long [N]: where the plan's tokens are among those of all its levels, coarse to fine."""
    sizes = [math.prod(plan.level_grid(level)) for level in range(len(plan.scales))]
    starts = [0, *itertools.accumulate(sizes)]
    return send(torch.cat([starts[unit.level] + plan.sites(unit) for unit in plan.units]), device)


def teacher_forcing_mask(unit_ids_N: Tensor) -> Tensor:
    """Mask [2N, 2N] over (clean tokens, noisy tokens): clean sees clean of its own and earlier units, noisy sees
    clean of earlier units and its own noisy tokens."""
    earlier = unit_ids_N[:, None] > unit_ids_N[None, :]
    own = unit_ids_N[:, None] == unit_ids_N[None, :]
    return torch.cat([torch.cat([earlier | own, torch.zeros_like(own)], 1), torch.cat([earlier, own], 1)], 0)


def new_generator(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


class Noise:
    """The random numbers of a step, drawn on the device that uses them.

    They are drawn for the clips of all processes and each takes its own part, so that two processes train as one does
    on the doubled batch.
    """

    def __init__(self, seed: int, part: int = 0, parts: int = 1, device: torch.device | str = "cpu"):
        self.part, self.parts, self.device = part, parts, torch.device(device)
        self.generator = new_generator(self.device, seed)
        self.choices = random.Random(seed)  # decisions of the program, which must not wait for the device

    def normal(self, clips: int, *shape: int) -> Tensor:
        drawn = torch.randn(clips * self.parts, *shape, generator=self.generator, device=self.device)
        return self._own(drawn)

    def uniform(self, clips: int, *shape: int) -> Tensor:
        """In [0, 1)."""
        return self._own(torch.rand(clips * self.parts, *shape, generator=self.generator, device=self.device))

    def whole(self, clips: int, n: int) -> Tensor:
        """Whole numbers [clips] in [0, n)."""
        shape = (clips * self.parts,)
        return self._own(torch.randint(n, shape, generator=self.generator, device=self.device))

    def below(self, n: int) -> int:
        """A whole number in [0, n), the same in all processes."""
        return self.choices.randrange(n)

    def _own(self, drawn: Tensor) -> Tensor:
        clips = len(drawn) // self.parts
        return drawn[self.part * clips :][:clips]


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


SHARES = 1_000_000  # a share of the batches is drawn in millionths

Losses = Iterator[tuple[str, Tensor, dict[str, Tensor]]]  # the part to train, its loss, further columns of the log


def sample_sigmas(clips: int, units: int, shift: float, noise: Noise) -> Tensor:
    """Logit-normal sigmas [clips, units] (Esser et al., 2024), warped by the shift."""
    u = noise.normal(clips, units).sigmoid()
    return shift * u / (1 + (shift - 1) * u)


@dataclass(frozen=True)
class Sequence:
    """The tokens of a plan as one call of the network has them: alone, or noisy beside clean (teacher forcing)."""

    units: int
    ids_N: Tensor  # the unit of each token
    positions_N3: Tensor
    shapes: list[tuple[int, int, int]]  # of the units

    @classmethod
    @functools.lru_cache(maxsize=64)
    def of(cls, plan: Plan, device: torch.device) -> Sequence:
        positions = torch.cat([plan.positions(unit) for unit in plan.units])
        shapes = [unit.shape() for unit in plan.units]
        return cls(len(plan.units), send(plan.unit_ids(), device), send(positions, device), shapes)

    def velocity(
        self,
        network: VideoARTransformer3DModel,
        text_BLE: Tensor,
        noisy_BND: Tensor,
        sigma_BU: Tensor,
        context_BND: Tensor | None = None,
        hidden: list[Tensor] | None = None,
    ) -> Tensor:
        """What the network says of the noisy tokens [B, N, D], each unit of which sees the context of earlier ones."""
        tokens, timesteps, positions = noisy_BND, sigma_BU * 1000, self.positions_N3
        kwargs: dict = {"unit_shapes": self.shapes}
        if context_BND is not None:
            tokens = torch.cat([context_BND, noisy_BND], 1)
            timesteps = torch.cat([torch.zeros_like(timesteps), timesteps], 1)
            positions, ids = torch.cat([positions, positions]), torch.cat([self.ids_N, self.ids_N + self.units])
            mask = teacher_forcing_mask(self.ids_N)
            kwargs = {"token_unit_N": ids, "mask": mask, "unit_shapes": self.shapes * 2}
        out = network(tokens, timesteps, text_BLE, positions, hidden=hidden, **kwargs)
        return out[:, -noisy_BND.shape[1] :].float()


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
        patch = tuple(self.transformer.config.patch_size)
        x = plan_tokens(level_tokens(latents_BCFHW, plan, patch, self.scale_std), plan)
        sequence = Sequence.of(plan, latents_BCFHW.device)
        sigma_BU = sample_sigmas(len(x), sequence.units, shift, random)
        sigma = sigma_BU[:, sequence.ids_N, None]
        noise = random.normal(*x.shape)
        noisy = (1 - sigma) * x + sigma * noise
        context = self.context(x, text_BLE, sequence, random) if sequence.units > 1 else None

        def velocity(network: VideoARTransformer3DModel, text: Tensor, hidden: list | None = None) -> Tensor:
            return sequence.velocity(network, text, noisy, sigma_BU, context, hidden)

        if self.teacher is None:
            target = noise - x
        else:
            assert no_text_1LE is not None, "a guided target needs the empty prompt"
            with torch.no_grad():
                without = velocity(self.teacher, no_text_1LE.expand_as(text_BLE))
                scale = guidance_at(sigma, self.preset.teacher_guidance, self.preset.guidance_interval or ALWAYS)
                target = without + scale * (velocity(self.teacher, text_BLE) - without)
        asked = self.preset.places
        if asked is None or paths_BF24 is None:
            return F.mse_loss(velocity(self.transformer, text_BLE), target), {}
        hidden: list[Tensor] = []
        error = (velocity(self.transformer, text_BLE, hidden) - target).square()
        wanted = places.targets(paths_BF24.to(x.device), sequence.positions_N3, plan.grid, asked.ahead)
        told = [places.told(hidden[i][:, -x.shape[1] :], wanted.shape[-1]) for i in asked.blocks]
        missed = torch.stack([F.mse_loss(said, wanted) for said in told]).mean()
        loss = (error * places.weights(wanted, asked.weight)).mean() + asked.loss * missed
        return loss, {"error": error.detach().mean(), "places": missed.detach()}

    def context(self, x_BND: Tensor, text_BLE: Tensor, sequence: Sequence, random: Noise) -> Tensor:
        """The past that the noisy units see, told as clean [B, N, D]: the clips' own tokens, some with errors such as
        the model's own will be.
        """
        x, own = x_BND, self.preset.own_context
        if own is not None and random.below(SHARES) < own.share * SHARES:
            # What the network itself makes of the clips when it sees them through noise, for all clips of the step.
            low, high = own.sigmas
            sigma_BU = low + (high - low) * random.uniform(len(x), sequence.units)
            sigma = sigma_BU[:, sequence.ids_N, None]
            noisy = (1 - sigma) * x + sigma * random.normal(*x.shape)
            with torch.no_grad():
                estimate = noisy - sigma * sequence.velocity(self.transformer, text_BLE, noisy, sigma_BU, x)
            torch.clear_autocast_cache()  # it holds casts of the weights that were made without gradients
            return estimate
        if not self.preset.context_noise:
            return x
        amount = random.uniform(len(x), 1, 1) * self.preset.context_noise
        amount = amount * (random.uniform(len(x), 1, 1) < 0.5)  # half of the clips
        return (1 - amount) * x + amount * random.normal(*x.shape)


class FlowTraining:
    """The method of the stages `base`, `causal` and `guidance`, for the loop in generator.py.

    With `preset.teacher_guidance` the teacher, if none is given, is the transformer as it is when training starts.
    """

    needs_latents = True

    def __init__(
        self,
        transformer: VideoARTransformer3DModel,
        preset: FlowPreset,
        scale_std: dict[int, float],
        teacher: VideoARTransformer3DModel | None = None,
    ):
        if preset.teacher_guidance:
            teacher = (teacher or copy.deepcopy(transformer)).eval().requires_grad_(False)
        self.parts: dict[str, nn.Module] = {"model": FlowMatching(transformer, preset, scale_std, teacher)}
        self.trained: dict[str, nn.Module] = {"model": transformer}
        self.frozen: list[nn.Module] = [] if teacher is None else [teacher]
        self.uncached = [*self.parts.values()]
        self.rates = {"model": 1.0}

    def losses(self, draw: Draw) -> Losses:
        assert draw.latents_BCFHW is not None
        inputs = (draw.latents_BCFHW, draw.text_BLE, draw.plan, draw.shift, draw.noise, draw.no_text_1LE)
        loss, columns = self.parts["model"](*inputs, draw.paths_BF24)
        yield "model", loss, columns
