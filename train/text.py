"""Stage `text`: a tokenizer and a small UMT5 that learns to read attributes off captions, so that the generator need
not.

Learnt queries attend over the encoder's output, one per attribute slot, as the generator's cross-attention later
does; the queries and their classifiers are thrown away.
"""

from __future__ import annotations

import math
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

from videoar.playworld import CAMERAS, COLORS, MOTIONS, SCENES, SIZES, SUBJECTS, World, caption, sample_world

from .optim import learning_rate, set_learning_rate
from .presets import TextPreset
from .run import Run, flatten_optimizer, restore_optimizer

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
LETTERS = string.ascii_lowercase + string.digits
MARKS = ",.!?;:"
CHARACTERS = LETTERS + string.punctuation


def make_tokenizer(seed: int = 0) -> T5TokenizerFast:
    """A Unigram tokenizer: every word of the captions is one piece; anything else is spelt in single characters.

    The pieces are set, not learnt: on a vocabulary this small the usual training merges parts of frequent words
    across captions and spells half of the words out.
    """
    rng = random.Random(seed)
    words = Counter(
        word for _ in range(20_000) for word in re.findall(r"[a-z]+", caption(sample_world(rng), rng).lower())
    )
    total = sum(words.values())
    pieces = [(PAD, 0.0), (EOS, 0.0), (UNK, -30.0), ("▁", -6.0)]
    pieces += [(f"▁{word}", math.log(count / total)) for word, count in sorted(words.items()) if len(word) > 1]
    pieces += (
        [(f"▁{mark}", -4.0) for mark in MARKS]
        + [(f"▁{letter}", -10.0) for letter in LETTERS]
        + [(character, -12.0) for character in CHARACTERS]
    )
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    apart = [normalizers.Replace(mark, f" {mark}") for mark in MARKS]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), *apart, spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return T5TokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNK, eos_token=EOS, pad_token=PAD, model_max_length=512, extra_ids=0
    )


def make_encoder(preset: TextPreset, vocab: int) -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=vocab,
        d_model=preset.width,
        d_kv=preset.width // preset.heads,
        d_ff=preset.ffn,
        num_layers=preset.layers,
        num_heads=preset.heads,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=48,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return UMT5EncoderModel(config)


# Slots that a caption fills; index 0 of each means "not there".
_PER_THING: list[tuple[str, list[str]]] = [
    ("subject", list(SUBJECTS)),
    ("color", list(COLORS)),
    ("size", list(SIZES)),
    ("motion", list(MOTIONS)),
]
SLOTS: list[tuple[str, list[str]]] = [(f"{name}{i}", values) for i in (0, 1) for name, values in _PER_THING]
SLOTS += [("scene", list(SCENES)), ("camera", list(CAMERAS)), ("wall", list(COLORS))]


def targets(world: World) -> list[int]:
    """The class of each slot, in the order of SLOTS."""
    row = []
    for i in (0, 1):
        thing = world.things[i] if i < len(world.things) else None
        for name, values in _PER_THING:
            row.append(1 + values.index(getattr(thing, name)) if thing else 0)
    row.append(1 + list(SCENES).index(world.scene))
    row.append(1 + list(CAMERAS).index(world.camera))
    row.append(1 + list(COLORS).index(world.wall_color) if world.scene == "wall" else 0)
    return row


class AttributeReader(nn.Module):
    """One learnt query and one classifier per slot."""

    def __init__(self, width: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(SLOTS), width) * width**-0.5)
        self.key = nn.Linear(width, width)
        self.heads = nn.ModuleList(nn.Linear(width, 1 + len(values)) for _, values in SLOTS)

    def forward(self, hidden_BLE: Tensor, mask_BL: Tensor) -> list[Tensor]:
        scores = torch.einsum("se,ble->bsl", self.queries, self.key(hidden_BLE))
        weights = scores.masked_fill(~mask_BL[:, None].bool(), float("-inf")).softmax(-1)
        read_BSE = weights @ hidden_BLE
        return [head(read_BSE[:, i]) for i, head in enumerate(self.heads)]


def train_text(
    run: Run,
    tokenizer: T5TokenizerFast,
    encoder: UMT5EncoderModel,
    preset: TextPreset,
    seed: int = 0,
    save_every: int = 500,
    progress: Callable[[dict], None] = lambda row: None,
    device: torch.device | str = "cpu",
) -> None:
    """Train the encoder in place, continuing from the newest checkpoint, and leave it on the device.

    The accuracy that is logged is that of unseen captions.
    """
    torch.manual_seed(seed)
    reader = AttributeReader(preset.width)
    both = nn.ModuleDict({"encoder": encoder, "reader": reader}).to(device)
    optimizer = torch.optim.AdamW(both.parameters(), lr=preset.lr, betas=(0.9, 0.98), weight_decay=0.01)
    step = 0
    if (saved := run.load()) is not None:
        tensors, info = saved
        both.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        restore_optimizer(optimizer, tensors, "opt")
        step = info["step"]
    while step < preset.steps:
        rng = random.Random(f"text-{seed}-{step}")
        worlds = [sample_world(rng) for _ in range(preset.batch)]
        tokens = tokenizer(
            [caption(w, rng) for w in worlds],
            padding=True,
            truncation=True,
            max_length=preset.max_length,
            return_tensors="pt",
        ).to(device)
        hidden = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        logits = reader(hidden, tokens.attention_mask)
        wanted = torch.tensor([targets(w) for w in worlds], device=device)
        loss = torch.stack([F.cross_entropy(logit, wanted[:, i]) for i, logit in enumerate(logits)]).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        set_learning_rate([optimizer], learning_rate(step, preset.steps, preset.lr, preset.steps // 10, 0.9))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        # The batch was not yet trained on when it was scored, so this is accuracy on unseen captions.
        right = torch.stack([logit.argmax(-1) == wanted[:, i] for i, logit in enumerate(logits)])
        accuracy = right.float().mean().item()
        row: dict[str, Any] = {"step": step, "steps": preset.steps, "loss": loss.item(), "accuracy": accuracy}
        row["slots"] = {name: round(r.float().mean().item(), 2) for (name, _), r in zip(SLOTS, right, strict=True)}
        run.log(**row)
        progress(row)
        if step % save_every == 0 or step == preset.steps:
            tensors = {f"model.{k}": v for k, v in both.state_dict().items()}
            run.save(step, tensors | flatten_optimizer(optimizer.state_dict(), "opt"), {})
