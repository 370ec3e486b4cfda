"""Tiny decoders of the TAEHV family (taew2_1 for Wan 2.1) from a local file: a twentieth of the autoencoder's work.

A stack of 2-D convolutions in which every latent frame also sees the features of the one before it, so that it streams.
The layout of the published files fixes the order of the layers; widths and strides are read from the file.

Shapes: B batch, C latent channels, F frames (latent ones, after time has grown more), H W height and width.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .state_files import read_state

State = tuple[Tensor, ...]  # the last features that each memory block has seen, [B, C, H, W] each

_PICTURES = 4  # per latent frame
_STAGES, _BLOCKS = 3, 3
_SPATIAL = 2**_STAGES


class _Soften(nn.Module):
    """Outliers bent back smoothly to (-3, 3)."""

    def forward(self, x_BFCHW: Tensor) -> Tensor:
        return 3 * torch.tanh(x_BFCHW / 3)


class _PerFrame(nn.Module):
    """A layer of pictures, applied to every frame."""

    def forward(self, x_BFCHW: Tensor) -> Tensor:
        return self.picture(x_BFCHW.flatten(0, 1)).unflatten(0, x_BFCHW.shape[:2])

    def picture(self, x_BCHW: Tensor) -> Tensor:
        raise NotImplementedError


class _Conv(_PerFrame, nn.Conv2d):
    def __init__(self, into: int, out: int, bias: bool = True) -> None:
        nn.Conv2d.__init__(self, into, out, 3, padding=1, bias=bias)

    def picture(self, x_BCHW: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, x_BCHW)


class _Rectify(nn.Module):
    def forward(self, x_BFCHW: Tensor) -> Tensor:
        return F.relu(x_BFCHW)


class _Enlarge(_PerFrame):
    def picture(self, x_BCHW: Tensor) -> Tensor:
        return F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")


class _Remember(nn.Module):
    """A residual block that reads each frame beside the previous one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, *rest = (nn.Conv2d(n * width, width, 3, padding=1) for n in (2, 1, 1))
        self.conv = nn.Sequential(first, nn.ReLU(), rest[0], nn.ReLU(), rest[1])

    def forward(self, x_BFCHW: Tensor, before_BCHW: Tensor) -> Tensor:
        before_BFCHW = torch.cat([before_BCHW[:, None], x_BFCHW[:, :-1]], dim=1)
        pairs = torch.cat([x_BFCHW, before_BFCHW], dim=2).flatten(0, 1)
        return F.relu(self.conv(pairs).unflatten(0, x_BFCHW.shape[:2]) + x_BFCHW)


class _Grow(nn.Module):
    """Every frame becomes `times` frames."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.times, self.conv = times, nn.Conv2d(width, width * times, 1, bias=False)

    def forward(self, x_BFCHW: Tensor) -> Tensor:
        grown = self.conv(x_BFCHW.flatten(0, 1)).unflatten(1, (self.times, -1))
        return grown.flatten(0, 1).unflatten(0, (x_BFCHW.shape[0], -1))


class TinyDecoder(nn.Module):
    """widths: channels of the three stages and of the end; grows: by what each stage multiplies the frames (1, 2, 2 for
    Wan); patch: pictures come out as blocks of patch x patch pixels (1 for taew2_1).
    """

    def __init__(
        self,
        channels: int = 16,
        widths: tuple[int, ...] = (256, 128, 64, 64),
        grows: tuple[int, ...] = (1, 2, 2),
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        layers: list[nn.Module] = [_Soften(), _Conv(channels, widths[0]), _Rectify()]
        for width, following, grow in zip(widths[:-1], widths[1:], grows, strict=True):
            layers += [*(_Remember(width) for _ in range(_BLOCKS)), _Enlarge(), _Grow(width, grow)]
            layers.append(_Conv(width, following, bias=False))
        self.decoder = nn.ModuleList([*layers, _Rectify(), _Conv(widths[-1], 3 * patch**2)])

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def decode_chunk(self, latents_BCFHW: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Video [B, 3, T, H, W] in [-1, 1] of the next latent frames and the state after them; None starts a film.

        Takes normalised latents, which are these networks' own. State is a value, never edited in place.
        """
        pictures = []
        for frame in latents_BCFHW.transpose(1, 2).split(1, dim=1):  # one at a time: the last stage is large
            first = state is None
            video, state = self._decode_frame(frame, state)
            pictures.append(video[:, _PICTURES - 1 :] if first else video)
        assert state is not None, "at least one latent frame"
        return torch.cat(pictures, dim=1).transpose(1, 2).mul(2).sub(1).clamp(-1, 1), state

    def _decode_frame(self, x_BFCHW: Tensor, state: State | None) -> tuple[Tensor, State]:
        before = iter(state or ())
        after = []
        for layer in self.decoder:
            if isinstance(layer, _Remember):
                after.append(x_BFCHW[:, -1])
                x_BFCHW = layer(x_BFCHW, next(before, torch.zeros_like(x_BFCHW[:, 0])))
            else:
                x_BFCHW = layer(x_BFCHW)
        return F.pixel_shuffle(x_BFCHW, self.patch), tuple(after)


def load_tiny_decoder(file: str | Path, vae: Any, device: torch.device, dtype: torch.dtype) -> TinyDecoder:
    """The decoder in a .safetensors, .pth or .pt file, made to stand in for this autoencoder.

    Raises ValueError if the file is none, is damaged, or belongs to another autoencoder.
    """
    path = Path(file)
    state = {name: tensor for name, tensor in read_state(path).items() if name.startswith("decoder.")}
    try:
        shapes = {name: tensor.shape for name, tensor in state.items()}
        ends = [4 + i * (_BLOCKS + 3) + _BLOCKS for i in range(_STAGES)]  # where each stage grows in time
        widths = tuple(shapes[f"decoder.{end}.conv.weight"][1] for end in ends)
        grows = tuple(shapes[f"decoder.{end}.conv.weight"][0] // w for end, w in zip(ends, widths, strict=True))
        last = shapes[f"decoder.{ends[-1] + 3}.weight"]
        patch = round((last[0] / 3) ** 0.5)
        with torch.device("meta"):
            decoder = TinyDecoder(shapes["decoder.1.weight"][1], (*widths, last[1]), grows, patch)
        decoder.load_state_dict(state, strict=True, assign=True)
    except (KeyError, IndexError, RuntimeError, ZeroDivisionError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path.name} is no tiny decoder in TAEHV's layout ({reason[:200]})") from error
    made = (math.prod(grows), _SPATIAL * patch, decoder.channels)
    wanted = (_PICTURES, vae.config.scale_factor_spatial, vae.config.z_dim)
    if made != wanted:
        raise ValueError(
            f"{path.name} belongs to another autoencoder: it makes {made[0]} pictures, {made[1]} times as large, of "
            f"{made[2]} channels; this model wants {wanted[0]}, {wanted[1]} times, of {wanted[2]} (for Wan 2.1 the "
            "file is taew2_1)"
        )
    return decoder.to(device, dtype).eval().requires_grad_(False)
