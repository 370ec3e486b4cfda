"""Stage `vae`: fit the codec. The light one is fitted linearly at once and then learns its decoder's residual."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from videoar.codec import SPACE, TIME, TinyCodec, to_blocks

from .data import sample_video
from .optim import learning_rate, set_learning_rate
from .presets import Preset
from .run import Average, Run, flatten_optimizer, restore_optimizer

CROPS_PER_CLIP = 4


def fit_linear_codec(preset: Preset, seed: int = 0) -> TinyCodec:
    """A TinyCodec whose encoder is final and whose decoder is the encoder's transpose. Takes seconds."""
    torch.manual_seed(seed)
    codec = TinyCodec(z_dim=preset.codec.z_dim)
    rows = []
    for i in range(0, preset.codec.fit_clips, 16):
        video = sample_video(preset, min(16, preset.codec.fit_clips - i), f"pca-{seed}-{i}")
        blocks = to_blocks(video).flatten(0, 3)
        keep = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(i))[: max(1, len(blocks) // 8)]
        rows.append(blocks[keep])
    codec.fit_linear(torch.cat(rows), preset.codec.whitening)
    return codec


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


@torch.inference_mode()
def held_out_psnr(codec, preset: Preset, clips: int = 24) -> float:
    """Of clips that no stage trains on (another seed; their combinations may occur)."""
    video = sample_video(preset, clips, "psnr")
    total = sum(F.mse_loss(codec.decode(codec.encode(v[None])), v[None]).item() for v in video) / clips
    return (10 * torch.log10(torch.tensor(4 / total))).item()


def train_tiny_codec(
    run: Run,
    codec: TinyCodec,
    preset: Preset,
    seed: int = 0,
    save_every: int = 200,
    progress: Callable[[dict], None] = lambda row: None,
    on_save: Callable[[int, dict], None] = lambda step, average: None,
) -> dict[str, Tensor]:
    """Train the decoder, continuing from the newest checkpoint; return the averaged weights. The latents never change."""
    p = preset.codec
    bf16 = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=not torch.cuda.is_available())
    optimizer = torch.optim.AdamW(codec.parameters(), lr=p.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    average = Average(codec, p.ema)
    step = 0
    if (saved := run.load()) is not None:
        tensors, info = saved
        step = info["step"]
        codec.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        average.tensors = {k[4:]: v for k, v in tensors.items() if k.startswith("ema.")}
        restore_optimizer(optimizer, tensors, "opt")
    codec.to(accelerator.device)
    group, video = -1, None
    per_group = 4 * CROPS_PER_CLIP // p.batch or 1
    while step < p.steps:
        if step // per_group != group:
            group = step // per_group
            video = sample_video(preset, 4, f"vae-{seed}-{group}", device=accelerator.device)
        x = crops(video, p.batch, p.crop, p.frames, random.Random(f"crop-{seed}-{step}"))
        with torch.no_grad():
            z = codec.encode(x)
            # The generator's latents are never exact: a little noise keeps the decoder smooth.
            noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(step)).to(z)
            z = z + 0.05 * noise
        with accelerator.autocast():
            y = codec.decode_chunk(z)[0].float()
        loss = F.mse_loss(y, x) + 0.025 * F.l1_loss(y, x)
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
