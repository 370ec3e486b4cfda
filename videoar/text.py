"""Prompts to embeddings, in WanPipeline's convention: fixed length, the padding zeroed and attended to."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import torch

from .memory import call_elsewhere, free_bytes, module_bytes

_ROOM = 1.1  # weights and a little for what 512 tokens need


def clean(prompt: str) -> str:
    """HTML entities resolved (twice, as Wan's training captions were) and white space collapsed."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(prompt))).strip()


class TextEncoder:
    """tokenizer: a transformers tokenizer; encoder: a UMT5EncoderModel; max_length: text tokens per prompt.

    visits: a device on which the encoder works if it has room at that moment, and leaves again. Without room it works
    where it rests.
    """

    def __init__(self, tokenizer: Any, encoder: Any, max_length: int = 512, visits: torch.device | None = None) -> None:
        self.tokenizer, self.encoder, self.max_length, self.visits = tokenizer, encoder, max_length, visits

    @torch.no_grad()
    def __call__(self, prompts: str | Sequence[str]) -> torch.Tensor:
        """Embeddings [B, L, E] of B prompts; L = max_length, longer prompts are cut. The empty prompt is allowed."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        tokens = self.tokenizer(
            [clean(prompt) for prompt in prompts],
            padding="max_length",
            max_length=self.max_length,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        device = self._workplace()
        return self.embed(tokens.input_ids.to(device), tokens.attention_mask.to(device))

    @torch.no_grad()
    def embed(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """Return embeddings [B, L, E] of token numbers, on their device; mask_BL is 0 where there is padding."""
        device = ids_BL.device
        if device == self.encoder.device:
            embeddings = self.encoder(ids_BL, mask_BL).last_hidden_state
        else:
            embeddings = call_elsewhere(self.encoder, device, ids_BL, mask_BL).last_hidden_state
        # Selecting instead of multiplying: an overflow in the padding would turn 0 x inf into NaN.
        return torch.where(mask_BL[..., None] > 0, embeddings, torch.zeros((), dtype=embeddings.dtype, device=device))

    def _workplace(self) -> torch.device:
        free = None if self.visits is None else free_bytes(self.visits)
        roomy = free is not None and free > _ROOM * module_bytes(self.encoder)
        return self.visits if roomy and self.visits is not None else self.encoder.device
