"""Prompts to embeddings, in WanPipeline's convention: fixed length, the padding zeroed and attended to."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import torch


def clean(prompt: str) -> str:
    """HTML entities resolved (twice, as Wan's training captions were) and white space collapsed."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(prompt))).strip()


class TextEncoder:
    """tokenizer: a transformers tokenizer; encoder: a UMT5EncoderModel; max_length: text tokens per prompt."""

    def __init__(self, tokenizer: Any, encoder: torch.nn.Module, max_length: int = 512) -> None:
        self.tokenizer, self.encoder, self.max_length = tokenizer, encoder, max_length

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
        device = next(self.encoder.parameters()).device
        mask_BL = tokens.attention_mask.to(device)
        embeddings = self.encoder(tokens.input_ids.to(device), mask_BL).last_hidden_state
        # Selecting instead of multiplying: an overflow in the padding would turn 0 x inf into NaN.
        return torch.where(mask_BL[..., None] > 0, embeddings, torch.zeros((), dtype=embeddings.dtype, device=device))
