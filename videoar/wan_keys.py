"""Wan's original parameter names, as released checkpoints carry them, turned into diffusers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

# Released files wrap the generator and its keys in these.
_PREFIX = re.compile(
    r"^(generator_ema\.|generator\.|base_model\.|model\.|diffusion_model\.|transformer\.|module\."
    r"|_fsdp_wrapped_module\.|_orig_mod\.)+"
)
_INNER_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")

# PEFT puts the adapter's name, here any one, between factor and "weight".
_LORA = re.compile(r"\.(lora_A|lora_B|lora_down|lora_up|alpha)((\.[^.]+)?\.weight)?$")
_LORA_PARTS = {"lora_A": "A", "lora_down": "A", "lora_B": "B", "lora_up": "B", "alpha": "alpha"}

_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
        (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
        (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
        (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
        (r"^time_projection\.1\.", "condition_embedder.time_proj."),
        (r"^head\.modulation$", "scale_shift_table"),
        (r"^head\.head\.", "proj_out."),
        (r"^(blocks\.\d+)\.modulation$", r"\1.scale_shift_table"),
        (r"^(blocks\.\d+)\.self_attn\.", r"\1.attn1."),
        (r"^(blocks\.\d+)\.cross_attn\.", r"\1.attn2."),
        (r"^(blocks\.\d+\.attn[12])\.([qkv])\.", r"\1.to_\2."),
        (r"^(blocks\.\d+\.attn[12])\.o\.", r"\1.to_out.0."),
        # Wan numbers the affine norm before cross-attention 3; diffusers calls it norm2.
        (r"^(blocks\.\d+)\.norm3\.", r"\1.norm2."),
        (r"^(blocks\.\d+)\.ffn\.0\.", r"\1.ffn.net.0.proj."),
        (r"^(blocks\.\d+)\.ffn\.2\.", r"\1.ffn.net.2."),
    )
)


def to_diffusers(name: str) -> str:
    """One parameter's name in diffusers' WanTransformer3DModel; names that are already diffusers' stay."""
    name = _PREFIX.sub("", name)
    for wrapper in _INNER_WRAPPERS:
        name = name.replace(wrapper, "")
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def lora_part(name: str) -> tuple[str, str] | None:
    """(layer, "A", "B" or "alpha") for a tensor of a LoRA adapter in PEFT's or kohya's names, None for any other."""
    found = _LORA.search(name)
    return (name[: found.start()], _LORA_PARTS[found.group(1)]) if found else None


def without_adapter(name: str) -> str:
    """The name of a layer's own weight in a network that PEFT has wrapped."""
    return name.replace(".base_layer.", ".")


def rename_state_dict(state: Mapping[str, Value]) -> dict[str, Value]:
    """A state dict under diffusers' names. Raises ValueError if two names would become one."""
    renamed = {to_diffusers(name): value for name, value in state.items()}
    if len(renamed) != len(state):
        raise ValueError("two parameters of this file get the same name: it seems to hold more than one network")
    return renamed
