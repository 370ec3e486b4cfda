"""How good a network is, in one number without a detector: what early stopping and the experiments go by.

Smaller is better in both cases: the flow-matching loss of clips that training never saw, and the distance between the
latents of generated and of real clips.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from videoar.plan import Grid, PlanSpec
from videoar.transformer import VideoARTransformer3DModel

from .data import Batch, sample_worlds, to_model_range
from .flow import FlowMatching, Noise
from .presets import DMDPreset, FlowPreset, ServePreset
from .sample import sample_latents
from .workshop import Workshop

DIMENSIONS = 16  # of the latents' distribution that are compared
JUDGED, REAL = 64, 256  # clips
_FAR = 10**9  # a step that no training reaches


@torch.no_grad()
def unseen(w: Workshop, clips: int) -> Batch:
    """Clips that training never draws, rendered anew; where there are videos instead, a draw of those."""
    from videoar.playworld import caption, render

    if not w.preset.playworld:
        source = w.source()
        source.refresh()
        return source.batch(_FAR, clips)
    from videoar.codec import TinyCodec
    from videoar.decoder import WanCodec

    p, codec = w.preset, w.codec()
    encode = codec.encode if isinstance(codec, TinyCodec) else WanCodec(codec).encode
    worlds = sample_worlds(clips, f"unseen-{w.seed}")
    video = render(worlds, frames=p.frames, size=p.size, fps=p.fps)
    latents = torch.cat([encode(to_model_range(clip[None]).to(w.device)) for clip in video])
    return Batch(latents.cpu(), [caption(world) for world in worlds])


class LatentDistance:
    """Fréchet distance between the latents of some clips and of real ones.

    Both are taken for normal distributions in the first principal components of the real clips, each component scaled
    to their deviation, so that the distance is |m|^2 + sum (1 - sqrt l)^2 with the mean m of the clips and the
    eigenvalues l of their covariance. It is biased by the number of clips: compare sets of one size, and look at what
    real clips get.
    """

    def __init__(self, real_BCFHW: Tensor, dimensions: int = DIMENSIONS):
        flat = real_BCFHW.double().flatten(1)
        self.mean = flat.mean(0)
        _, deviation, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        if len(flat) <= dimensions:
            raise ValueError(f"{dimensions} principal components need more than {len(flat)} real clips")
        self.axes = axes[:dimensions] / (deviation[:dimensions, None] / (len(flat) - 1) ** 0.5)

    def __call__(self, latents_BCFHW: Tensor) -> float:
        x = (latents_BCFHW.double().flatten(1) - self.mean) @ self.axes.T
        values = torch.linalg.eigvalsh(x.T.cov()).clamp(min=0)
        return float(x.mean(0).square().sum() + (1 - values.sqrt()).square().sum())


def latent_steps(latents_BCFHW: Tensor) -> Tensor:
    """[F - 1]: the mean absolute step from each latent frame to the next, over all clips."""
    return latents_BCFHW.float().diff(dim=2).abs().mean(dim=(0, 1, 3, 4))


def motion_by_half(latents_BCFHW: Tensor) -> tuple[float, float]:
    """The mean absolute step between neighbouring latent frames in the first and in the second half of clips of at
    least 3 latent frames; a step from one half into the other belongs to neither. Compare it with real clips.
    """
    steps = latent_steps(latents_BCFHW)
    half = len(steps) // 2
    assert half, "halves need a step each"
    return steps[:half].mean().item(), steps[-half:].mean().item()


@torch.no_grad()
def flow_loss(
    transformer: VideoARTransformer3DModel,
    preset: FlowPreset,
    scale_std: dict[int, float],
    batch: Batch,
    text_BLE: Tensor,
    plan: str,
    seed: int = 0,
) -> float:
    """The flow-matching loss under a plan, with a clean past and always the same noise."""
    assert batch.latents_BCFHW is not None
    preset = dataclasses.replace(preset, context_noise=0.0, own_context=None)
    module = FlowMatching(transformer, preset, scale_std)
    z, patch = batch.latents_BCFHW.to(text_BLE.device), transformer.config.patch_size
    grid = Grid(z.shape[2] // patch[0], z.shape[3] // patch[1], z.shape[4] // patch[2])
    return module(z, text_BLE, PlanSpec.parse(plan).build(grid), preset.shift, Noise(seed, device=z.device))[0].item()


@torch.no_grad()
def films(
    w: Workshop,
    transformer: VideoARTransformer3DModel,
    prompts: list[str],
    plan: str,
    serve: ServePreset,
    seed: int = 0,
) -> Tensor:
    """Latents [B, C, F, H, W] of one clip of each prompt, made by this network."""
    text, built = w.text(), PlanSpec.parse(plan).build(w.grid())
    c = transformer.config
    shape = (serve.steps if serve.sampler == "few_step" else 1, len(prompts), len(built.unit_ids()))
    noise = torch.randn(*shape, c.in_channels * c.patch_size[1] * c.patch_size[2], generator=_generator(seed))
    return sample_latents(transformer, text(prompts), text([""]), built, serve, noise.to(w.device)).cpu()


class Judge:
    """What early stopping goes by: of `dmd` the distance of its films from real clips, under the preset's first plan;
    of the other stages the flow-matching loss, the mean over the plans that they train.
    """

    def __init__(self, w: Workshop, stage: str):
        self.w, self.preset, self.plans = w, w.flow(stage), w.flow(stage).served()
        self.serve = w.preset.serving(stage)
        clips = unseen(w, REAL if isinstance(self.preset, DMDPreset) else JUDGED)
        assert clips.latents_BCFHW is not None
        self.distance = LatentDistance(clips.latents_BCFHW) if isinstance(self.preset, DMDPreset) else None
        self.clips = Batch(clips.latents_BCFHW[:JUDGED], clips.prompts[:JUDGED])

    def __call__(self, weights: dict[str, Tensor]) -> float:
        w, network = self.w, self.w.new_transformer().to(self.w.device)
        network.load_state_dict(weights)
        network.eval().requires_grad_(False)
        if self.distance is not None:
            return self.distance(films(w, network, self.clips.prompts, self.plans[0], self.serve))
        text, std = w.text()(self.clips.prompts), w.scale_std()
        losses = [flow_loss(network, self.preset, std, self.clips, text, plan) for plan in self.plans]
        return sum(losses) / len(losses)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
