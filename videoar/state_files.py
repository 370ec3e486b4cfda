"""Files in which others release weights: .safetensors, and .pt or .pth as PyTorch saves them.

The one place where `torch.load` stands, with weights_only=True: what else a pickle holds is refused, not run.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

State = dict[str, torch.Tensor]

# Which of a file's networks is the generator, best first. What stands beside it (critic, optimizer) is left out.
_GENERATORS = ("generator_ema", "ema", "generator", "generator_lora", "model", "state_dict")


def read_state(path: str | Path) -> State:
    """The generator's tensors in a checkpoint file, under the names they have there, wrappers removed.

    Raises ValueError if the file is missing, cut short, holds more than tensors, or no generator.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)[:200]!r}")
    tree = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    tensors = dict(_leaves(tree))
    if not tensors:
        raise ValueError(f"{path.name} holds no tensors")
    for wrapper in _GENERATORS:
        chosen = {name[len(wrapper) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{wrapper}.")}
        if chosen:
            return chosen
    return tensors


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is damaged or incomplete: {error}. Copy it again") from error


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path.name} is only a pointer of git-lfs: fetch the file itself (git lfs pull)")
    zipped = zipfile.is_zipfile(path)
    if not head or (head.startswith(b"PK") and not zipped):
        raise ValueError(f"{path.name} is damaged or incomplete: its end is missing. Copy it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} is refused: it is a pickle that holds more than tensors and could run any code. "
            "Ask for a safetensors file, or convert it where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path.name} is damaged or no checkpoint: {reason}") from error


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield prefix[:-1], tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}{key}.")
