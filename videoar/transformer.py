"""Wan's transformer over tokens of any prediction unit: stateless, same weights, own block and token-level forward.

Shapes: B batch, N tokens, U timesteps (one per unit), D token values = C*pt*ph*pw, E width, L text tokens, S keys,
C latent channels, F latent frames, H/W latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  (pipeline loading looks it up in here)
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel, WanTransformerBlock
from torch import nn
from torch.nn import functional as F

from .attention import attend, attention_bias
from .cache import KVCache
from .convolution import Shape, find_shapes, new_branches
from .memory import send
from .rope import rope_table, rotate

TextKV = list[tuple[torch.Tensor, torch.Tensor]]

# A prediction of x0 becomes a velocity by dividing by sigma; below this sigma it would only amplify rounding errors.
SMALLEST_SIGMA = 0.05


def patchify(latents_BCFHW: torch.Tensor, patch: tuple[int, int, int]) -> torch.Tensor:
    """Tokens [B, N, C*pt*ph*pw] over the full grid, in order t, y, x."""
    pt, ph, pw = patch
    b, c, f, h, w = latents_BCFHW.shape
    cut = latents_BCFHW.reshape(b, c, f // pt, pt, h // ph, ph, w // pw, pw)
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, -1, c * pt * ph * pw)


def unpatchify(tokens_BND: torch.Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> torch.Tensor:
    """Latents [B, C, T*pt, H*ph, W*pw] from the tokens of a full (T, H, W) grid; the inverse of patchify."""
    (t, h, w), (pt, ph, pw) = grid, patch
    cut = tokens_BND.reshape(tokens_BND.shape[0], t, h, w, -1, pt, ph, pw)
    return cut.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(tokens_BND.shape[0], -1, t * pt, h * ph, w * pw)


def spatial_waves(place_N2: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines [N, width] of (y, x) in tokens, at wavelengths of 6 to 600 tokens."""
    frequency = 100.0 ** -(torch.arange(width // 4, dtype=torch.float32, device=place_N2.device) / (width // 4))
    angle = (place_N2.float().unsqueeze(-1) * frequency).flatten(1)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _modulate(h_BNE, scale_BUE, shift_BUE, token_unit) -> torch.Tensor:
    """h (1 + scale) + shift, with scale and shift of units spread over their tokens.

    token_unit: None (one unit), int n (units of n tokens each, in order: no gather), or [N] indices.
    """
    scale_BUE = 1 + scale_BUE
    if token_unit is None:
        return torch.addcmul(shift_BUE, h_BNE, scale_BUE)
    if isinstance(token_unit, int):
        h_BUnE = h_BNE.unflatten(1, (-1, token_unit))
        return torch.addcmul(shift_BUE.unsqueeze(2), h_BUnE, scale_BUE.unsqueeze(2)).flatten(1, 2)
    return torch.addcmul(shift_BUE.index_select(1, token_unit), h_BNE, scale_BUE.index_select(1, token_unit))


def _add_gated(x_BNE, h_BNE, gate_BUE, token_unit) -> torch.Tensor:
    """x + h gate, with the units' gates spread over their tokens (see _modulate)."""
    if token_unit is None:
        return torch.addcmul(x_BNE, h_BNE, gate_BUE)
    if isinstance(token_unit, int):
        x_BUnE, h_BUnE = (part.unflatten(1, (-1, token_unit)) for part in (x_BNE, h_BNE))
        return torch.addcmul(x_BUnE, h_BUnE, gate_BUE.unsqueeze(2)).flatten(1, 2)
    return torch.addcmul(x_BNE, h_BNE, gate_BUE.index_select(1, token_unit))


def _rms_norm(norm: nn.RMSNorm, x: torch.Tensor) -> torch.Tensor:
    if x.device.type != "cpu" or torch.compiler.is_compiling() or hasattr(norm, "_diffusers_hook"):
        return norm(x.to(norm.weight.dtype))
    x = x.float()  # torch's CPU version runs a chain of a dozen operations backwards; this is twice as fast
    return x * (torch.linalg.vecdot(x, x) / x.shape[-1] + norm.eps).rsqrt().unsqueeze(-1) * norm.weight


class VideoARBlock(WanTransformerBlock):
    """Wan's block with explicit text keys and values, per-unit modulation and an explicit cache."""

    def forward(
        self, x_BNE, text, modulation_BU6E=None, rope=None, token_unit=None, bias=None, prefix=None, write=None
    ):
        """One block. With x_BNE None it returns the text's (key, value) instead: through forward, so that the hooks of
        sharding and offloading fire.

        prefix: rotated keys and values of the cache, concatenated (gradients may flow). write: a function that stores
        the new keys and values in the cache and returns all of them (no gradients).
        """
        if x_BNE is None:
            attn = self.attn2
            key = _rms_norm(attn.norm_k, attn.to_k(text))
            value = attn.to_v(text)
            return key.to(value.dtype).unflatten(2, (attn.heads, -1)), value.unflatten(2, (attn.heads, -1))
        parts = (self.scale_shift_table.unsqueeze(0) + modulation_BU6E.float()).unbind(2)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = parts
        dtype = x_BNE.dtype
        x = x_BNE.float()

        h = _modulate(self.norm1(x), scale_1, shift_1, token_unit)
        h = self._self_attention(_to_compute(h, dtype), rope, bias, prefix, write)
        x = _add_gated(x, h.float(), gate_1, token_unit).to(dtype)

        h = self._cross_attention(_to_compute(self.norm2(x.float()), dtype), text)
        x = (x + h).float()

        h = _modulate(self.norm3(x), scale_2, shift_2, token_unit)
        h = self.ffn(_to_compute(h, dtype))
        return _add_gated(x, h.float(), gate_2, token_unit).to(dtype)

    def _self_attention(self, h, rope, bias, prefix, write):
        attn = self.attn1
        value = attn.to_v(h)
        dtype = value.dtype
        query = _rms_norm(attn.norm_q, attn.to_q(h)).unflatten(2, (attn.heads, -1))
        key = _rms_norm(attn.norm_k, attn.to_k(h)).unflatten(2, (attn.heads, -1))
        value = value.unflatten(2, (attn.heads, -1))
        raw, query, key = key, rotate(query, rope).to(dtype), rotate(key, rope).to(dtype)
        if write is not None:
            key, value = write(raw, key, value)
        elif prefix is not None:
            key, value = torch.cat([prefix[0], key], dim=1), torch.cat([prefix[1], value], dim=1)
        out = attend(query, key, value, bias, attn.processor._attention_backend)
        return attn.to_out[0](out.flatten(2, 3))

    def _cross_attention(self, h, text):
        attn = self.attn2
        query = _rms_norm(attn.norm_q, attn.to_q(h)).to(text[0].dtype).unflatten(2, (attn.heads, -1))
        out = attend(query, text[0], text[1], backend=attn.processor._attention_backend)
        return attn.to_out[0](out.flatten(2, 3))


def _to_compute(h: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # Under autocast cast once here, not once in each of the linear layers that read h.
    kind = h.device.type
    return h.to(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else dtype)


class VideoARTransformer3DModel(WanTransformer3DModel):
    """Wan2.1's text-to-video transformer, generalised from a whole video to the tokens of any prediction unit.

    The state dict is the stock one, so `from_pretrained`, LoRA, offloading and sharding work as for the stock class.
    With full attention over a whole grid it computes the same function.

    prediction_type: what the network's raw output means, "flow" (velocity, as Wan) or "sample" (x0). forward returns
        the velocity in both cases.
    spatial_embedding: adds waves of each token's row and column to its embedding. Rotary embedding tells differences of
        place only; small models learn sooner where things are if they are told.
    conv_width: channels of convolutions over single latent cells beside the embedding and behind the head
        (convolution.py), 0 for none. `add_convolutions` gives them to a network that was trained without.
    """

    _no_split_modules = ["VideoARBlock"]  # noqa: RUF012  (diffusers' convention)
    _repeated_blocks = ["VideoARBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = (*WanTransformer3DModel._skip_layerwise_casting_patterns, "conv_")

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        prediction_type: str = "flow",
        spatial_embedding: bool = False,
        conv_width: int = 0,
    ) -> None:
        if prediction_type not in ("flow", "sample"):
            raise ValueError(f"prediction_type is 'flow' or 'sample', not {prediction_type!r}")
        if image_dim is not None or added_kv_proj_dim is not None:
            raise ValueError("image-conditioned Wan transformers are not supported: use a text-to-video one")
        super().__init__(
            patch_size=patch_size,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            rope_max_seq_len=rope_max_seq_len,
        )
        for block in self.blocks:
            block.__class__ = VideoARBlock  # same parameters, another forward
        if conv_width:
            self.conv_stem, self.conv_head = new_branches(self.config, conv_width)

    @classmethod
    def from_wan(cls, wan: WanTransformer3DModel) -> VideoARTransformer3DModel:
        """The same network as a VideoAR transformer, sharing the stock model's weights (nothing is copied)."""
        if isinstance(wan, cls):
            return wan
        with torch.device("meta"):
            model = cls.from_config(dict(wan.config))
        model.rope = wan.rope
        own = dict(model.named_parameters())
        for name, parameter in wan.named_parameters():
            assert own[name].shape == parameter.shape
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, parameter)
        return model.train(wan.training)

    def encode_text(self, text_BLE: torch.Tensor) -> TextKV:
        """Each block's (key, value) of the prompt, [B, L, heads, head_dim]: computed once per prompt.

        text_BLE: embeddings of the text encoder, padding zeroed; the padding is attended to, as Wan was trained.
        """
        text = self.condition_embedder.text_embedder(text_BLE)
        return [block(None, text) for block in self.blocks]

    def forward(
        self,
        tokens_BND: torch.Tensor,
        timestep_BU: torch.Tensor,
        text_kv: TextKV | torch.Tensor,
        positions_N3: torch.Tensor,
        token_unit_N: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
        hidden: list[torch.Tensor] | None = None,
        unit_shapes: Sequence[Shape] | None = None,
    ) -> torch.Tensor:
        """Velocity [B, N, D] of tokens at any coordinates.

        timestep_BU: in [0, 1000], 1000 = pure noise, one per unit (U = 1: for all tokens). text_kv: from encode_text,
        or the embeddings themselves (sharded training). positions_N3: (t, y, x) in finest-level tokens, best on the
        CPU. token_unit_N: which of the U timesteps each token has, needed where U > 1; on the CPU, units of equal size
        in order are recognised and need no gather. mask: bool [N, S], True = attend. cache: its committed tokens are
        attended to, in front of these (S = length + N). Without gradients the new keys and values are left pending in
        it; with gradients it is only read. hidden: gets the output [B, N, E] of every block, for losses on features.
        unit_shapes: (frames, rows, columns) in tokens of each unit in the sequence, which convolutions must know; None:
        found from coordinates on the CPU, where the sequence is one unit or token_unit_N tells units apart.
        """
        assert token_unit_N is not None or timestep_BU.shape[1] == 1, "several timesteps need token_unit_N"
        if torch.is_tensor(text_kv):
            text_kv = self.encode_text(text_kv)
        if self.config.conv_width and unit_shapes is None:
            unit_shapes = find_shapes(positions_N3, token_unit_N)
        if cache is not None:
            positions_N3 = cache.open(positions_N3)
        device = tokens_BND.device
        rope = rope_table(positions_N3, self.config.attention_head_dim, device)
        token_unit = _unit_layout(token_unit_N, timestep_BU.shape[1], device)
        x = self._embed(tokens_BND)
        if self.config.spatial_embedding:
            x = x + send(spatial_waves(positions_N3[:, 1:], x.shape[-1]), device).to(x.dtype)
        if self.config.conv_width:
            x = x + self.conv_stem(tokens_BND, unit_shapes).to(x)
        temb_BUE, modulation = self._embed_time(timestep_BU, x.dtype)
        bias = attention_bias(mask, _to_compute(x[:0], x.dtype).dtype)

        grad = torch.is_grad_enabled()
        for i, block in enumerate(self.blocks):
            # With gradients the prefix is pinned here: a recomputation must not see what the cache became meanwhile.
            prefix = cache.prefix(i) if cache is not None and grad and cache.length else None
            write = None if cache is None or grad else _Writer(cache, i)
            args = (x, text_kv[i], modulation, rope, token_unit, bias, prefix, write)
            recompute = grad and self.gradient_checkpointing
            x = self._gradient_checkpointing_func(block, *args) if recompute else block(*args)
            if hidden is not None:
                hidden.append(x)

        shift, scale = (self.scale_shift_table.unsqueeze(0) + temb_BUE.unsqueeze(2)).float().unbind(2)
        x = _modulate(self.norm_out(x.float()), scale, shift, token_unit).to(x.dtype)
        out = self._to_token_order(self.proj_out(x))
        if self.config.conv_width:
            out = out + self.conv_head(out, tokens_BND, unit_shapes).to(out)
        if self.config.prediction_type == "flow":
            return out
        sigma = (timestep_BU.float() / 1000).clamp(min=SMALLEST_SIGMA)
        if token_unit_N is not None and sigma.shape[1] > 1:
            sigma = sigma.index_select(1, token_unit_N.to(device))
        return (tokens_BND.float() - out.float()) / sigma.unsqueeze(-1)

    def new_cache(
        self,
        batch: int = 1,
        window: int | None = None,
        sink: int = 0,
        relative: bool = True,
        capacity: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> KVCache:
        """An empty KV cache for one clip; capacity in tokens is allocated at once and grows if it does not suffice."""
        c = self.config
        return KVCache(
            c.num_layers,
            batch,
            c.num_attention_heads,
            c.attention_head_dim,
            window=window,
            sink=sink,
            relative=relative,
            capacity=capacity,
            dtype=dtype or self.dtype,
            device=device or self.device,
        )

    def _embed(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        conv = self.patch_embedding
        if type(conv) is nn.Conv3d and not hasattr(conv, "_diffusers_hook"):
            # A patch convolution of separate patches is a linear layer, and runs as one several times faster.
            x = F.linear(tokens_BND.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)
            return x.to(conv.weight.dtype)
        # Wrapped by LoRA or an offloading hook: N tokens are a "video" of N frames of one patch each.
        pt, ph, pw = self.config.patch_size
        patches = tokens_BND.to(self.dtype).unflatten(2, (-1, pt, ph, pw)).transpose(1, 2).flatten(2, 3)
        return conv(patches).flatten(2).transpose(1, 2).contiguous()

    def _embed_time(self, timestep_BU: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        embedder = self.condition_embedder
        # Few rows, and bfloat16 would round timestep 937.5 to 936: never under autocast.
        with torch.autocast(timestep_BU.device.type, enabled=False):
            waves = embedder.timesteps_proj(timestep_BU.flatten().float()).unflatten(0, timestep_BU.shape)
            temb = embedder.time_embedder(waves.to(embedder.time_embedder.linear_1.weight.dtype)).to(dtype)
            return temb, embedder.time_proj(embedder.act_fn(temb)).unflatten(2, (6, -1))

    def _to_token_order(self, out_BND: torch.Tensor) -> torch.Tensor:
        # Wan's head writes (pt, ph, pw, C) per token; tokens here are (C, pt, ph, pw) like the patch embedding reads.
        pt, ph, pw = self.config.patch_size
        return out_BND.unflatten(2, (pt, ph, pw, -1)).movedim(5, 2).flatten(2)


class _Writer:
    """Stores one layer's keys and values of the unit in flight."""

    __slots__ = ("cache", "layer")

    def __init__(self, cache: KVCache, layer: int) -> None:
        self.cache, self.layer = cache, layer

    def __call__(self, raw, rotated, value):
        return self.cache.extend(self.layer, raw, rotated, value)


def _unit_layout(token_unit_N: torch.Tensor | None, units: int, device: torch.device):
    """None for one unit, n if the units are n tokens each in order, else the indices."""
    if token_unit_N is None or units == 1:
        return None
    n, rest = divmod(len(token_unit_N), units)
    cheap = token_unit_N.device.type == "cpu" and not torch.compiler.is_compiling()
    if cheap and not rest and torch.equal(token_unit_N, torch.arange(units).repeat_interleave(n)):
        return n
    return token_unit_N.to(device)
