"""Stage `vae`: fit the codec. The light one is fitted linearly at once and then learns its decoder's residual."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders import autoencoder_kl_wan as wan
from torch import Tensor

from videoar.codec import SPACE, TIME, TinyCodec

from .data import sample_video
from .device import new_accelerator
from .optim import learning_rate, set_learning_rate
from .presets import CodecPreset, Preset
from .run import Average, Run, flatten_optimizer, placed_like, restore_optimizer

CROPS_PER_CLIP = 4
LINEAR = ("basis", "center", "mean", "scale")  # of a TinyCodec, which are fitted and not trained


def fit_linear_codec(preset: Preset, seed: int = 0, like: TinyCodec | None = None) -> TinyCodec:
    """Return a TinyCodec whose encoder is final and whose decoder is the encoder's transpose. Takes seconds.

    like: a codec of as many channels, whose latents the new ones resemble and whose decoder the new one begins with, so
    that what was trained for it goes on here. Raises ValueError for one of another shape.
    """
    torch.manual_seed(seed)
    codec = TinyCodec(z_dim=preset.codec.z_dim, lapped=preset.codec.lapped)
    rows = []
    for i in range(0, preset.codec.fit_clips, 16):
        video = sample_video(preset, min(16, preset.codec.fit_clips - i), f"pca-{seed}-{i}")
        blocks = codec.blocks(video).flatten(0, 3)
        keep = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(i))[: max(1, len(blocks) // 8)]
        rows.append(blocks[keep])
    codec.fit_linear(torch.cat(rows), preset.codec.whitening)
    if like is not None:
        try:
            codec.load_state_dict({k: v for k, v in like.state_dict().items() if k not in LINEAR}, strict=False)
        except RuntimeError as error:
            raise ValueError(
                f"the codec to begin with has other sizes: {str(error).splitlines()[-1].strip()}"
            ) from error
        align(codec, like, sample_video(preset, min(64, preset.codec.fit_clips), f"align-{seed}"))
    return codec


@torch.no_grad()
def align(codec: TinyCodec, like: TinyCodec, video_BCTHW: Tensor) -> None:
    """Turn a codec's components among themselves until they are as near as can be to another codec's on this video.

    What they span, and so the reconstruction, stays as it is (orthogonal Procrustes problem; Schönemann, 1966).
    """
    mine, wanted = ((c.blocks(video_BCTHW) - c.center).flatten(0, 3) @ c.basis.T for c in (codec, like))
    U, _, Vh = torch.linalg.svd((mine.T @ wanted).double())
    codec.basis.copy_((U @ Vh).T.to(codec.basis) @ codec.basis)
    codec.scale.copy_(like.scale)
    codec.mean.copy_(like.mean)


def crops(video_BCTHW: Tensor, count: int, side: int, frames: int, rng: random.Random) -> Tensor:
    """Random crops aligned to latent sites in space and time; a third start at the clip's first picture."""
    B, _, T, H, W = video_BCTHW.shape
    side = min(side, H, W)
    out = []
    for i in range(count):
        y, x = (rng.randrange(0, n - side + 1, SPACE) for n in (H, W))
        t = 0 if rng.random() < 0.34 else rng.randrange(0, T - frames + 1, TIME)
        out.append(video_BCTHW[i % B, :, t : t + frames, y : y + side, x : x + side])
    return torch.stack(out)


def psnr(a: Tensor, b: Tensor) -> float:
    """In dB, for pictures in [-1, 1]."""
    return (10 * torch.log10(4 / F.mse_loss(a, b))).item()


class TinyObjective:
    """Reconstruction from the linear encoder's latents; only the decoder learns, so the latents never change."""

    def __init__(self, codec: TinyCodec, preset: CodecPreset):
        self.module = codec

    def __call__(self, x_BCTHW: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            z = self.module.encode(x_BCTHW)
            # The generator's latents are never exact: a little noise keeps the decoder smooth.
            z = z + 0.05 * torch.randn(z.shape, generator=generator).to(z)
        return self.module.decode_chunk(z)[0].float(), torch.zeros(())


class WanObjective:
    """A variational autoencoder in Wan's layout, encoded and decoded in chunks.

    The chunks matter: without its feature cache the class skips temporal resampling. So does the missing clamp of
    `decode`, which would kill gradients.
    """

    def __init__(self, vae: AutoencoderKLWan, preset: CodecPreset):
        self.module, self.kl = vae, preset.kl

    def __call__(self, x_BCTHW: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encode(x_BCTHW).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return self.decode(mean + noise * (0.5 * log_variance).exp()).float(), self.kl * kl

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        vae = self.module
        x = wan.patchify(x_BCTHW, patch_size=vae.config.patch_size) if vae.config.patch_size else x_BCTHW
        features = [None] * vae._cached_conv_counts["encoder"]
        chunks = [x[:, :, :1], *x[:, :, 1:].split(TIME, dim=2)]
        hidden = [vae.encoder(chunk, feat_cache=features, feat_idx=[0]) for chunk in chunks if chunk.shape[2]]
        return vae.quant_conv(torch.cat(hidden, dim=2))

    def decode(self, z_BCFHW: Tensor) -> Tensor:
        vae, frames = self.module, []
        features = [None] * vae._cached_conv_counts["decoder"]
        for i, frame in enumerate(vae.post_quant_conv(z_BCFHW).split(1, dim=2)):
            frames.append(vae.decoder(frame, feat_cache=features, feat_idx=[0], first_chunk=i == 0))
        y = torch.cat(frames, dim=2)
        return wan.unpatchify(y, patch_size=vae.config.patch_size) if vae.config.patch_size else y


def new_wan_vae(preset: CodecPreset, seed: int = 0) -> AutoencoderKLWan:
    """A small autoencoder in Wan's layout: pixels folded 2x, three levels, 8x in space and 4x in time."""
    torch.manual_seed(seed)
    return AutoencoderKLWan(
        base_dim=preset.base_dim,
        z_dim=preset.z_dim,
        dim_mult=[1, 2, 4],
        num_res_blocks=2,
        temperal_downsample=[True, True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=TIME,
        scale_factor_spatial=SPACE,
        latents_mean=[0.0] * preset.z_dim,
        latents_std=[1.0] * preset.z_dim,
    )


@torch.no_grad()
def set_latent_statistics(vae: AutoencoderKLWan, preset: Preset, device, clips: int = 64) -> None:
    """Store the mean and deviation of each latent channel in the config, where the library looks for them."""
    objective = WanObjective(vae, preset.codec)
    means = []
    for i in range(0, min(clips, preset.codec.fit_clips), 8):
        video = sample_video(preset, 8, f"statistics-{i}", device=device)
        means.append(objective.encode(video).float().chunk(2, dim=1)[0])
    z = torch.cat(means).transpose(0, 1).flatten(1)
    vae.register_to_config(latents_mean=z.mean(1).tolist(), latents_std=z.std(1).clamp(min=1e-3).tolist())


def train_codec(
    run: Run,
    codec: TinyCodec | AutoencoderKLWan,
    preset: Preset,
    seed: int = 0,
    save_every: int = 200,
    progress: Callable[[dict], None] = lambda row: None,
    on_save: Callable[[int, dict], None] = lambda step, average: None,
) -> dict[str, Tensor]:
    """Train a codec, continuing from the newest checkpoint; return the averaged weights."""
    p = preset.codec
    objective = (TinyObjective if isinstance(codec, TinyCodec) else WanObjective)(codec, p)
    accelerator = new_accelerator()
    codec.to(accelerator.device)  # before anything that keeps tensors like its own: average, optimizer
    optimizer = torch.optim.AdamW(codec.parameters(), lr=p.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    average = Average(codec, p.ema)
    step = 0
    if (saved := run.load()) is not None:
        tensors, info = saved
        step = info["step"]
        codec.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        average.tensors = {k: placed_like(tensors[f"ema.{k}"], v) for k, v in average.tensors.items()}
        restore_optimizer(optimizer, tensors, "opt")
    group, video = -1, torch.empty(0)
    per_group = 4 * CROPS_PER_CLIP // p.batch or 1
    while step < p.steps:
        if step // per_group != group:
            group = step // per_group
            video = sample_video(preset, 4, f"vae-{seed}-{group}", device=accelerator.device)
        x = crops(video, p.batch, p.crop, p.frames, random.Random(f"crop-{seed}-{step}"))
        with accelerator.autocast():
            y, penalty = objective(x, torch.Generator().manual_seed(step))
        loss = F.mse_loss(y, x) + 0.025 * F.l1_loss(y, x) + penalty.to(x.device)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {step}; the last good checkpoint is in {run.folder}"
            )
        accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        set_learning_rate([optimizer], learning_rate(step, p.steps, p.lr, 50, 0.5))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(codec, step)
        step += 1
        row = {"step": step, "steps": p.steps, "loss": loss.item(), "psnr": psnr(y.detach(), x)}
        run.log(**row)
        progress(row)
        if step % save_every == 0 or step == p.steps:
            tensors = {f"model.{k}": v for k, v in codec.state_dict().items()}
            tensors |= {f"ema.{k}": v for k, v in average.tensors.items()}
            run.save(step, tensors | flatten_optimizer(optimizer.state_dict(), "opt"), {"seed": seed})
            on_save(step, average.tensors)
    return average.tensors
