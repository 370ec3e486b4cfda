"""From latents to pixels, piece by piece: streamed decoding equals decoding the whole clip.

Shapes: B batch, C latent channels, F latent frames, T pixel frames, H/W height and width. The first latent frame of a
film becomes 1 picture, every later one 4. Latents are normalised (mean 0, variance 1 per channel), pixels are uint8.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders import autoencoder_kl_wan as wan

from .plan import PICTURES_PER_LATENT, picture_range

# Latent pixels around a region that are decoded with it and cut away: for a preview, since Wan's decoder also looks at
# the whole frame and no halo would be exact.
HALO = 3


class WanCodec:
    """AutoencoderKLWan with the state of a stream as an argument, so that many clips can share one autoencoder.

    The autoencoder's own `decode` keeps its causal features in the module and clears them. Here they are a value: never
    edited in place, so an earlier state can be continued again.
    """

    def __init__(self, vae: wan.AutoencoderKLWan) -> None:
        self.vae = vae
        shape = (1, -1, 1, 1, 1)
        self.mean = torch.tensor(vae.config.latents_mean).view(shape)
        self.std = torch.tensor(vae.config.latents_std).view(shape)

    def decode_chunk(self, latents_BCFHW: torch.Tensor, state: list | None) -> tuple[torch.Tensor, list]:
        """Video [B, 3, T, H, W] in [-1, 1] and the state after it; state None starts a film."""
        vae, first = self.vae, state is None
        features = [None] * vae._cached_conv_counts["decoder"] if state is None else list(state)
        device = latents_BCFHW.device
        latents = latents_BCFHW.float() * self.std.to(device) + self.mean.to(device)
        hidden = vae.post_quant_conv(latents.to(vae.dtype))
        pictures = []
        for frame in hidden.split(1, dim=2):
            pictures.append(vae.decoder(frame, feat_cache=features, feat_idx=[0], first_chunk=first))
            first = False
        video = torch.cat(pictures, dim=2)
        if vae.config.patch_size is not None:
            video = wan.unpatchify(video, patch_size=vae.config.patch_size)
        return video.clamp(-1, 1), features

    def encode(self, video_BCTHW: torch.Tensor) -> torch.Tensor:
        """Normalised latents [B, C, F, H, W] (the posterior's mean) of a video in [-1, 1] with T = 1 + 4n."""
        vae = self.vae
        video = video_BCTHW.to(vae.dtype)
        if vae.config.patch_size is not None:
            video = wan.patchify(video, patch_size=vae.config.patch_size)
        features = [None] * vae._cached_conv_counts["encoder"]
        chunks = [video[:, :, :1], *video[:, :, 1:].split(PICTURES_PER_LATENT, dim=2)]
        hidden = [vae.encoder(chunk, feat_cache=features, feat_idx=[0]) for chunk in chunks if chunk.shape[2]]
        mean = vae.quant_conv(torch.cat(hidden, dim=2)).chunk(2, dim=1)[0].float()
        return (mean - self.mean.to(mean.device)) / self.std.to(mean.device)


class StreamDecoder:
    """One clip's way from latents to pixels. vae: AutoencoderKLWan, or any codec with `decode_chunk` and `encode`.

    A codec's `decode_chunk(latents_BCFHW, state | None) -> (video_BCTHW in [-1, 1], state)` takes and returns its state
    as a value; that is all this class relies on. previewer: a cheaper codec for what is not exact yet.
    """

    def __init__(self, vae: Any, previewer: Any = None) -> None:
        self.codec = vae if hasattr(vae, "decode_chunk") else WanCodec(vae)
        self._dtype = vae.dtype
        self._state: Any = None
        self._previewer, self._preview_state = previewer, None
        self.position = 0  # latent frames pushed so far

    @torch.inference_mode()
    def push(self, latents_BCFHW: torch.Tensor) -> torch.Tensor:
        """Continues the film: uint8 [B, T, H, W, 3] on the CPU, exact."""
        video, self._state = self.codec.decode_chunk(latents_BCFHW.to(self._dtype), self._state)
        if self._previewer is not None:  # so that its memory, too, is where the film is
            _, self._preview_state = self._preview(latents_BCFHW, self._preview_state)
        self.position += latents_BCFHW.shape[2]
        return to_uint8(video)

    @torch.inference_mode()
    def preview(self, latents_BCFHW: torch.Tensor) -> torch.Tensor:
        """What push would return (the previewer's version of it), without continuing the film."""
        state = self._state if self._previewer is None else self._preview_state
        return to_uint8(self._preview(latents_BCFHW, state)[0])

    @torch.inference_mode()
    def preview_region(
        self, latents_BCFHW: torch.Tensor, box: tuple[int, int, int, int], warm_up: int = 0
    ) -> torch.Tensor:
        """Pixels of a region only, decoded with a small halo: near to exact, at the cost of the region.

        box: rows and columns (y0, y1, x0, x1) in latent pixels. warm_up: how many leading latent frames only fill the
        decoder's memory and are not returned; 0 if the first one is the film's first.
        """
        y0, y1, x0, x1 = box
        height, width = latents_BCFHW.shape[-2:]
        top, left = max(0, y0 - HALO), max(0, x0 - HALO)
        crop = latents_BCFHW[..., top : min(height, y1 + HALO), left : min(width, x1 + HALO)]
        video = to_uint8(self._preview(crop, None)[0])
        scale = video.shape[2] // crop.shape[-2]
        first = picture_range(0, warm_up)[1]
        rows = slice((y0 - top) * scale, (y1 - top) * scale)
        return video[:, first:, rows, (x0 - left) * scale : (x1 - left) * scale]

    @torch.inference_mode()
    def encode(self, video_BTHWC: torch.Tensor) -> torch.Tensor:
        """Normalised latents [B, C, F, H, W] of a uint8 video with 1 + 4n pictures, on the video's device."""
        if (video_BTHWC.shape[1] - 1) % PICTURES_PER_LATENT:
            raise ValueError(f"a video to encode has 1 + 4n frames, not {video_BTHWC.shape[1]}")
        return self.codec.encode((video_BTHWC.permute(0, 4, 1, 2, 3).float() / 127.5 - 1).to(self._dtype))

    def _preview(self, latents_BCFHW: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        if self._previewer is None:
            return self.codec.decode_chunk(latents_BCFHW.to(self._dtype), state)
        return self._previewer.decode_chunk(latents_BCFHW.to(self._previewer.dtype), state)


def to_uint8(video_BCTHW: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to uint8 [B, T, H, W, 3] on the CPU."""
    scaled = video_BCTHW.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 4, 1).contiguous().cpu()
