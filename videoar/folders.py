"""Where a model's folder is: the built-in one, a path, or an id of the Hugging Face hub. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from pathlib import Path

BUILT_IN = "assets/builtin"
_HUB_FILES = ["*.json", "*.safetensors", "tokenizer/*"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def find_folder(path_or_hub_id: str | Path | None) -> Path:
    """The folder of a model, downloaded from the hub if it is an id. Raises ValueError if there is none to be had."""
    if path_or_hub_id is None or str(path_or_hub_id) == BUILT_IN:
        path = Path(__file__).resolve().parent.parent / BUILT_IN
        if not path.is_dir():
            raise ValueError(f"the built-in model is missing: there is no folder {BUILT_IN} beside the videoar package")
        return path
    if not str(path_or_hub_id).strip():
        raise ValueError("the name of the model folder is empty")
    path = Path(path_or_hub_id).expanduser()
    if os.path.isdir(path):  # unlike Path's own method, False for names that are too long
        return path
    if os.path.lexists(path) or not _HUB_ID.fullmatch(str(path_or_hub_id)):
        raise ValueError(f"there is no model folder {str(path_or_hub_id)[:200]!r}")
    return _download(str(path_or_hub_id))


def model_name(path_or_hub_id: str | Path) -> str:
    """What a model without videoar.json is called: its id, or its folder's own name (the way there is private)."""
    path = Path(path_or_hub_id).expanduser()
    return path.resolve().name if os.path.isdir(path) else str(path_or_hub_id)


def _download(hub_id: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise ValueError(
            f"there is no folder {hub_id!r} and no such model on the hub that you may read "
            "(private and gated ones want `hf auth login`)"
        ) from error
    except Exception as error:  # the hub client raises dozens of kinds; for a user the rest mean the same
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(
            f"there is no folder {hub_id!r}, and the hub cannot be reached ({reason[:200]}). Where there is a network: "
            f"`hf download {hub_id} --local-dir FOLDER`, then name that folder"
        ) from error
