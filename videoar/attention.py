"""Attention over explicit queries, keys and values, with the fast route of each device.

Shapes: B batch, N query tokens, S key tokens, H heads, D head dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

# Names of diffusers' backends, fastest first.
_FAST_KERNELS = ("_flash_3", "flash")

# Scores held at once by the CPU route: about 2 MB in bfloat16, so that they stay in the processor's cache.
_SCORES_AT_ONCE = 2**20


def attention_bias(mask_NS: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """The mask as attend() wants it: [1, 1, N, S], boolean (True = attend), on a CPU additive (made once per forward).

    Four dimensions always: with fewer, some backends ignore the mask silently.
    """
    if mask_NS is None:
        return None
    if mask_NS.device.type == "cpu":
        mask_NS = torch.zeros(mask_NS.shape, dtype=dtype).masked_fill_(~mask_NS, float("-inf"))
    return mask_NS[None, None]


def choose_kernel(transformer: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> str:
    """Sets the fastest attention kernel that imports and agrees with PyTorch's own on this device; returns its name.

    Tried once, when a model is loaded. On each attention module rather than for the whole process, so that models on
    several devices can live side by side.
    """
    config: Any = transformer.config
    shape = (1, 64, config.num_attention_heads, config.attention_head_dim)
    if device.type == "cpu" and dtype == torch.bfloat16:
        return "bmm"  # _attend_cpu_bf16
    name = next((k for k in _FAST_KERNELS if device.type == "cuda" and agrees(k, shape, device, dtype)), None)
    for module in transformer.modules():
        processor: Any = getattr(module, "processor", None)
        if processor is not None:
            processor._attention_backend = name and AttentionBackendName(name)
    return name or "sdpa"


@torch.no_grad()
def agrees(kernel: str, shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a kernel of diffusers' runs here and gives what PyTorch's own gives, within the rounding of dtype."""
    generator = torch.Generator().manual_seed(0)
    try:
        q, k, v = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3))
        got = dispatch_attention_fn(q, k, v, backend=AttentionBackendName(kernel)).float()
        expected = dispatch_attention_fn(q.float(), k.float(), v.float(), backend=AttentionBackendName.NATIVE)
    except Exception:  # it is not installed, wants another GPU, dtype or head size, or the GPU is not there yet
        return False
    return bool((got - expected).abs().max() < 4 * torch.finfo(dtype).eps * expected.abs().max().clamp(min=1))


def attend(q_BNHD, k_BSHD, v_BSHD, bias=None, backend=None) -> torch.Tensor:
    """Softmax attention, [B, N, H, D]; bias from attention_bias()."""
    if q_BNHD.device.type == "cpu" and q_BNHD.dtype == torch.bfloat16:
        return _attend_cpu_bf16(q_BNHD, k_BSHD, v_BSHD, bias)
    # With a mask (training) PyTorch's own: others ignore it silently.
    return dispatch_attention_fn(q_BNHD, k_BSHD, v_BSHD, attn_mask=bias, backend=backend if bias is None else None)


def _attend_cpu_bf16(q_BNHD, k_BSHD, v_BSHD, bias) -> torch.Tensor:
    # Two matrix products and a softmax per head: 2 to 6 times as fast as the fused CPU kernel, whose bfloat16 products
    # do not use the processor's bfloat16 instructions.
    batch, n, heads, dim = q_BNHD.shape
    q = (q_BNHD * dim**-0.5).transpose(1, 2).reshape(batch * heads, n, dim)
    k = k_BSHD.permute(0, 2, 3, 1).reshape(batch * heads, dim, -1)
    v = v_BSHD.transpose(1, 2).reshape(batch * heads, -1, dim)
    at_once = max(1, _SCORES_AT_ONCE // (n * k.shape[-1]))
    out = []
    with torch.autocast("cpu", enabled=False):
        for q_, k_, v_ in zip(q.split(at_once), k.split(at_once), v.split(at_once), strict=True):
            scores = torch.bmm(q_, k_) if bias is None else torch.baddbmm(bias[0], q_, k_)
            out.append(torch.bmm(scores.softmax(-1), v_))
    return torch.cat(out).unflatten(0, (batch, heads)).transpose(1, 2)
