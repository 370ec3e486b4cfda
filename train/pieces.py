"""Weights as a few small files with checksums, for machines that give back little and may be taken away at any moment.

A folder of pieces holds the newest weights of some stages, each cut into files of at most 15 MB, and `sprint.json`,
which says how they fit together. New pieces are written beside the folder and moved in before the old ones go, so that
what is in the folder joins at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

PIECE = 15_000_000  # bytes
MANIFEST = "sprint.json"
_PIECE_NAME = re.compile(r"[a-z]+-(\d+)\.\d\d")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Pieces:
    """A folder of pieces that is being written. info: what the manifest holds beside the weights."""

    def __init__(self, folder: Path, info: dict[str, Any]):
        self.folder, self.info = folder, info
        self.networks: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        # An earlier sprint's pieces go when the first of this one's are there.
        self._left = {p.name: int(m[1]) for p in folder.iterdir() if (m := _PIECE_NAME.fullmatch(p.name))}
        self._count = max(self._left.values(), default=0)

    def write(self, name: str, weights: dict[str, Tensor], keep: tuple[str, ...] = (), **record: Any) -> None:
        """Write a network's weights as bfloat16 in the place of its earlier ones and of all networks not in `keep`.

        record: goes into the manifest beside them. Raises OSError and leaves what was there as it was.
        """
        data = save({k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in weights.items()})
        chunks = [data[i : i + PIECE] for i in range(0, len(data), PIECE)]
        self._count += 1
        names = [f"{name}-{self._count}.{i:02d}" for i in range(len(chunks))]
        pieces = [{"name": n, "bytes": len(c), "sha256": digest(c)} for n, c in zip(names, chunks, strict=True)]
        networks = {k: v for k, v in self.networks.items() if k in keep} | {name: {"pieces": pieces, **record}}
        manifest = json.dumps({**self.info, "newest": name, "networks": networks}).encode()
        staging = self.folder.with_name(f".{self.folder.name}-{os.getpid()}")
        try:
            staging.mkdir(exist_ok=True)
            for file, content in zip([*names, MANIFEST], [*chunks, manifest], strict=True):
                _write(staging / file, content)
            for file in [*names, MANIFEST]:  # the manifest last: until then it names the old pieces
                os.replace(staging / file, self.folder / file)
        except OSError as error:
            for file in names:
                (self.folder / file).unlink(missing_ok=True)
            raise OSError(f"could not write {self.folder}: {error}; the weights before these are untouched") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        gone = self._left.keys() | {p["name"] for network in self.networks.values() for p in network["pieces"]}
        self.networks, self._left = networks, {}
        for file in gone - {p["name"] for network in networks.values() for p in network["pieces"]}:
            (self.folder / file).unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what `sprint.json` says. Raises ValueError, naming the file."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        assert manifest["newest"] in manifest["networks"]
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: --join takes the folder that `sprint --out` wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy the folder once more") from error
    return manifest


def join(folder: Path, name: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a network's weights and the manifest. name: a stage; None takes the newest.

    Raises ValueError that names the first piece that is missing or damaged.
    """
    manifest = read_manifest(folder)
    networks, name = manifest["networks"], name or manifest["newest"]
    if name not in networks:
        raise ValueError(f"{folder} holds no weights of {name!r}, only of {', '.join(networks)}")
    others = [other for other in networks if other != name]
    hint = f", or join another stage's weights: --network {others[0]}" if others else ""
    data = b""
    for piece in networks[name]["pieces"]:
        path = folder / Path(piece["name"]).name
        try:
            content = path.read_bytes()
        except OSError as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
            raise ValueError(f"{path} {what}; copy it once more{hint}") from error
        if digest(content) != piece["sha256"]:
            size = f"{len(content):,} of {piece['bytes']:,} bytes, another checksum than when it was written"
            raise ValueError(f"{path} is damaged ({size}); copy it once more{hint}")
        data += content
    return load(data), manifest
