"""Tiny random models, built in memory once: all properties are tested on them, on a CPU, in float32."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from videoar.checkpoint import Model, ModelInfo
from videoar.text import TextEncoder
from videoar.transformer import VideoARTransformer3DModel

PATCH = (1, 2, 2)


def make_transformer(seed: int = 0, **config) -> VideoARTransformer3DModel:
    """2 blocks, 48 wide: the golden tensors' size."""
    torch.manual_seed(seed)
    small = {
        "patch_size": PATCH,
        "num_attention_heads": 2,
        "attention_head_dim": 24,
        "text_dim": 32,
        "freq_dim": 32,
        "ffn_dim": 96,
        "num_layers": 2,
    }
    return VideoARTransformer3DModel(**(small | config)).eval().requires_grad_(False)


def make_vae(seed: int = 0):
    from diffusers import AutoencoderKLWan

    torch.manual_seed(seed)
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=16,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=8,
    )
    return vae.eval().requires_grad_(False)


def make_text(seed: int = 0, max_length: int = 12) -> TextEncoder:
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    words = ["a red ball rolls", "two fish swim at night", "abcdefghijklmnopqrstuvwxyz ABC 0123456789 .,!?"]
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(words * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    torch.manual_seed(seed)
    config = UMT5Config(
        vocab_size=128, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, relative_attention_num_buckets=8
    )
    return TextEncoder(wrapped, UMT5EncoderModel(config).eval().requires_grad_(False), max_length)


INFO = ModelInfo(
    name="tiny",
    plans=("cube:2x2x2", "frame:1", "key_detail:4", "scale:2", "full"),
    sampler="few_step",
    steps=2,
    timesteps=(1000.0, 500.0),
    shift=5.0,
    guidance_scale=1.0,
    height=64,
    width=64,
    frames=17,
    fps=8.0,
    text_length=12,
)


def make_model() -> Model:
    """A complete model: 64x64, 17 frames = a 5x4x4 token grid, two-step sampler."""
    return Model(make_transformer(), make_vae(), make_text(), INFO)
