"""A light causal video codec that a laptop can train and run: linear encoder, convolutional decoder with memory.

The encoder is a principal component analysis of space-time blocks, so it needs no gradient training and its latents
are ready in seconds. The decoder starts as the transpose of the encoder and learns only a residual on top of it: 2-D
convolutions in which each latent frame also sees the features of the one before it (the idea of the tiny "TAEHV"
decoders), so that it streams.

Geometry is Wan's: 4x in time, 8x in space, the first latent frame stands for one picture and each later one for four.

A codec may be *lapped*: an orthogonal filter across the borders of blocks goes before the principal components and its
inverse after their transpose, so that what a latent cell draws fades into its neighbours instead of ending in a tile.

Shapes: B batch, C latent channels, F latent frames, P pictures, H W picture size; video is RGB in [-1, 1].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

TIME, SPACE = 4, 8
BLOCK = 3 * TIME * SPACE * SPACE


def check_size(P: int, H: int, W: int) -> None:
    """Raise ValueError for a clip that cannot be cut into blocks."""
    if (P - 1) % TIME or H % SPACE or W % SPACE:
        raise ValueError(f"a clip has 1 + {TIME}n frames and sides divisible by {SPACE}, not {P} frames of {W}x{H}")


def to_blocks(video_BCPHW: Tensor) -> Tensor:
    """Cut a clip of 1 + 4n pictures into space-time blocks [B, F, H/8, W/8, 768]; the first picture is held for a
    whole block.
    """
    B, C, P, H, W = video_BCPHW.shape
    check_size(P, H, W)
    held = torch.cat([video_BCPHW[:, :, :1].expand(-1, -1, TIME - 1, -1, -1), video_BCPHW], dim=2)
    split = held.reshape(B, C, (P + TIME - 1) // TIME, TIME, H // SPACE, SPACE, W // SPACE, SPACE)
    return split.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def from_blocks(blocks_BFhwK: Tensor) -> Tensor:
    """Inverse of `to_blocks`, with the held pictures still in place: [B, 3, 4F, H, W]."""
    B, Fl, h, w, _ = blocks_BFhwK.shape
    split = blocks_BFhwK.unflatten(4, (3, TIME, SPACE, SPACE))
    return split.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(B, 3, Fl * TIME, h * SPACE, w * SPACE)


def lapping_filter() -> Tensor:
    """Return what an orthogonal filter over the eight pixels around a border of blocks, four a side, adds to them.

    It is the pre-filter that makes the fast lapped orthogonal transform of a DCT of blocks (Tran, Liang and Tu,
    "Lapped transform via time-domain pre- and post-filtering", IEEE Transactions on Signal Processing 51(6), 2003):
    butterflies around V = J C2^T C4 J, with the DCTs of types II and IV and the reversal J. What is symmetric about
    the border it leaves alone. So the outer border of a picture needs none, as if the picture were mirrored there.
    And since it is kept without its identity, constants stay constants in bfloat16 as well.
    """
    half = SPACE // 2
    n = torch.arange(half, dtype=torch.float64) + 0.5
    k = torch.arange(half, dtype=torch.float64)[:, None]
    c2, c4 = (torch.cos(math.pi / half * n * frequency) * math.sqrt(2 / half) for frequency in (k, k + 0.5))
    c2[0] /= math.sqrt(2)
    v = (c2.T @ c4).flip(0, 1)
    same = torch.eye(half, dtype=torch.float64)
    difference = torch.cat([same.flip(0), -same], dim=1)  # the side before the border, reversed, minus the one after it
    return (difference.T @ (v - same) @ difference / 2).float()


def lap(video_BCPHW: Tensor, filter_88: Tensor) -> Tensor:
    """Filter every picture across the inner borders of its blocks, in rows and in columns."""
    H, W = video_BCPHW.shape[-2:]
    half, filter_88 = SPACE // 2, filter_88.to(video_BCPHW)
    x = video_BCPHW
    inner = x[..., half : W - half].unflatten(-1, (W // SPACE - 1, SPACE))
    x = torch.cat([x[..., :half], (inner + inner @ filter_88.T).flatten(-2), x[..., W - half :]], dim=-1)
    inner = x[..., half : H - half, :].unflatten(-2, (H // SPACE - 1, SPACE))
    return torch.cat([x[..., :half, :], (inner + filter_88 @ inner).flatten(-3, -2), x[..., H - half :, :]], dim=-2)


def unlap(video_BCPHW: Tensor, filter_88: Tensor) -> Tensor:
    """Inverse of `lap`, which is its transpose."""
    return lap(video_BCPHW, filter_88.T)


def silence(layer: nn.Module) -> None:
    """Set weights and bias to zero: the network starts without this branch."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ResidualBlock(nn.Module):
    """Pre-activation residual block; with `memory` it also reads the previous frame's features."""

    def __init__(self, width: int, memory: bool = False):
        super().__init__()
        self.memory = memory
        self.norm = nn.GroupNorm(1, width)
        self.conv1 = nn.Conv2d(width * (2 if memory else 1), width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        silence(self.conv2)

    def forward(self, x_BFCHW: Tensor, before_BCHW: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the new features and, with memory, what the next chunk must be given as `before_BCHW`."""
        B, Fl = x_BFCHW.shape[:2]
        h = self.norm(x_BFCHW.flatten(0, 1))
        last = None
        if self.memory:
            h_BF = h.unflatten(0, (B, Fl))
            first = torch.zeros_like(h_BF[:, :1]) if before_BCHW is None else before_BCHW[:, None]
            h = torch.cat([h_BF, torch.cat([first, h_BF[:, :-1]], 1)], dim=2).flatten(0, 1)
            last = h_BF[:, -1]
        h = self.conv2(F.silu(self.conv1(F.silu(h))))
        return x_BFCHW + h.unflatten(0, (B, Fl)), last


class TinyCodec(ModelMixin, ConfigMixin):
    """Encode with a linear transform, decode with its transpose plus a learnt residual.

    Latents leave and enter *normalised*: channel c of the principal components is divided by `scale[c]` and shifted
    by its mean.

    Args:
        z_dim: latent channels C.
        widths: channels of the decoder at 1/8, 1/4 (still one per latent frame), 1/4 and 1/2 of the picture size.
        depths: number of residual blocks at each of those four stages.
        lapped: whether blocks overlap their neighbours in space. In time none do: it streams.
    """

    @register_to_config
    def __init__(
        self,
        z_dim: int = 16,
        widths: tuple[int, ...] = (128, 96, 48, 32),
        depths: tuple[int, ...] = (3, 2, 2, 1),
        scale_factor_temporal: int = TIME,
        scale_factor_spatial: int = SPACE,
        lapped: bool = False,
    ):
        super().__init__()
        w8, w4, w4t, w2 = widths
        d8, d4, d4t, d2 = depths
        # Linear part: rows are orthonormal, so the decoder's matrix is the transpose.
        self.register_buffer("basis", torch.zeros(z_dim, BLOCK))
        self.register_buffer("center", torch.zeros(BLOCK))
        self.register_buffer("mean", torch.zeros(z_dim))
        self.register_buffer("scale", torch.ones(z_dim))
        self.register_buffer("filter_88", lapping_filter() if lapped else None, persistent=False)
        self.stem = nn.Conv2d(z_dim, w8, 3, padding=1)
        self.stage8 = nn.ModuleList(ResidualBlock(w8, memory=True) for _ in range(d8))
        self.up4 = nn.Conv2d(w8, w4 * 4, 1)
        self.stage4 = nn.ModuleList(ResidualBlock(w4) for _ in range(d4))
        self.grow = nn.Conv2d(w4, w4t * TIME, 1)
        self.stage4t = nn.ModuleList(ResidualBlock(w4t, memory=True) for _ in range(d4t))
        self.up2 = nn.Conv2d(w4t, w2 * 4, 1)
        self.stage2 = nn.ModuleList(ResidualBlock(w2) for _ in range(d2))
        self.head = nn.Conv2d(w2, 3 * 4, 3, padding=1)
        silence(self.head)

    @torch.no_grad()
    def fit_linear(self, blocks_NK: Tensor, whitening: float = 0.5, std: float = 1.0) -> None:
        """Set the linear part to the principal components of sample blocks.

        Args:
            blocks_NK: rows of `blocks`, any number N much larger than 768.
            whitening: 1 gives every channel the same variance, 0 keeps the components' own; between them the strong
                (coarse) components stay stronger, so that a denoiser settles layout before texture.
            std: the standard deviation of all channels together after scaling.
        """
        blocks = blocks_NK.double()
        self.center.copy_(blocks.mean(0))
        x = blocks - blocks.mean(0)
        values, vectors = torch.linalg.eigh(x.T @ x / len(x))
        z_dim = self.config.z_dim
        self.basis.copy_(vectors[:, -z_dim:].flip(1).T)
        self.mean.zero_()
        deviation = values[-z_dim:].flip(0).clamp(min=1e-12).sqrt()
        scale = deviation**whitening
        self.scale.copy_(scale * ((deviation / scale).square().mean().sqrt() / std))

    def blocks(self, video_BCPHW: Tensor) -> Tensor:
        """Return what the linear part describes: the blocks of `to_blocks`, of lapped pictures if the codec is so."""
        check_size(*video_BCPHW.shape[2:])
        return to_blocks(video_BCPHW if self.filter_88 is None else lap(video_BCPHW, self.filter_88))

    def encode(self, video_BCPHW: Tensor) -> Tensor:
        """Video of 1 + 4n pictures in [-1, 1] to normalised latents [B, C, F, H/8, W/8]."""
        z = (self.blocks(video_BCPHW) - self.center) @ self.basis.T
        return ((z - self.mean) / self.scale).permute(0, 4, 1, 2, 3)

    def linear_decode(self, latents_BCFHW: Tensor) -> Tensor:
        """The transpose of the encoder alone: [B, 3, 4F, 8H, 8W]."""
        z = latents_BCFHW.permute(0, 2, 3, 4, 1) * self.scale + self.mean
        video = from_blocks(z @ self.basis + self.center)
        return video if self.filter_88 is None else unlap(video, self.filter_88)

    def decode_chunk(self, latents_BCFHW: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """Decode the next latent frames of a clip.

        Args:
            latents_BCFHW: normalised latents, F >= 1 frames that follow those already decoded with `state`.
            state: None at the start of a clip, afterwards what the previous call returned. It is a value: calls never
                change it, so it can be kept to go back to (previews do).

        Returns:
            video [B, 3, P, 8H, 8W], not clamped, P = 4F, or 4F - 3 at the start of a clip; and the next state.
        """
        before = iter(state or [None] * (len(self.stage8) + len(self.stage4t)))
        after = []

        def run(blocks, x_BFCHW):
            for block in blocks:
                x_BFCHW, last = block(x_BFCHW, next(before) if block.memory else None)
                if block.memory:
                    after.append(last)
            return x_BFCHW

        def frames(layer, x_BFCHW, shuffle=True):
            y = layer(x_BFCHW.flatten(0, 1))
            return (F.pixel_shuffle(y, 2) if shuffle else y).unflatten(0, x_BFCHW.shape[:2])

        x = frames(self.stem, latents_BCFHW.transpose(1, 2), shuffle=False)
        x = run(self.stage8, x)
        x = run(self.stage4, frames(self.up4, x))
        x = frames(self.grow, x, shuffle=False)
        x = x.unflatten(2, (TIME, -1)).flatten(1, 2)
        x = run(self.stage4t, x)
        x = run(self.stage2, frames(self.up2, x))
        residual = frames(self.head, F.silu(x)).transpose(1, 2)
        video = self.linear_decode(latents_BCFHW).to(residual.dtype) + residual
        return (video[:, :, TIME - 1 :] if state is None else video), tuple(after)

    def decode(self, latents_BCFHW: Tensor) -> Tensor:
        """A whole clip at once: [B, 3, 4F - 3, 8H, 8W] in [-1, 1]."""
        return self.decode_chunk(latents_BCFHW)[0].clamp(-1, 1)
