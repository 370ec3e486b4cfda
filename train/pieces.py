"""Weights as a few small files with checksums, for machines that give back little and may be taken away at any moment.

A folder of pieces holds the newest weights of some stages, each cut into files of at most 15 MB, and `sprint.json`,
which says how they fit together. New pieces are written in a hidden folder inside of it (what is beside it may be
another disk, or not ours to write) and moved up before the old ones go, so that what is there joins at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import weakref
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

PIECE = 15_000_000  # bytes
MANIFEST = "sprint.json"
STAGING = ".new-"  # and the number of the process
_PIECE_NAME = re.compile(r"(?:base|causal|guidance|dmd)-(\d+)\.\d{2,}")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Pieces:
    """A folder of pieces that is being written. info: what the manifest holds beside the weights.

    Raises ValueError where another process writes to the folder, and OSError where nobody can.
    """

    def __init__(self, folder: Path, info: dict[str, Any]):
        self.folder, self.info = folder, info
        self.networks: dict[str, dict[str, Any]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim()
            for left in folder.glob(f"{STAGING}*"):  # by a process that was killed while it wrote
                shutil.rmtree(left, ignore_errors=True)
            self._staging.mkdir()  # asked now: the first weights are written a minute later
            self._staging.rmdir()
        except OSError as error:
            raise OSError(f"could not write {folder}: {error}") from error
        # An earlier sprint's pieces go when the first of this one's are there.
        self._left = {p.name: int(m[1]) for p in folder.iterdir() if (m := _PIECE_NAME.fullmatch(p.name))}
        self._count = max(self._left.values(), default=0)

    @property
    def _staging(self) -> Path:
        return self.folder / f"{STAGING}{os.getpid()}"

    def _claim(self) -> None:
        """Keep others from writing to the folder for as long as this object lives."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another sprint writes to {self.folder}; choose another --out") from None
        except OSError:
            pass  # not every file system can

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
        staging = self._staging
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
            with contextlib.suppress(OSError):  # what was written is whole without it
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
        assert manifest["newest"] in manifest["networks"], f"there are no weights of {manifest['newest']!r}"
        for name, network in manifest["networks"].items():
            pieces = [(piece["name"], piece["sha256"], piece["bytes"]) for piece in network["pieces"]]
            assert pieces, f"{name} has no pieces"
            for piece in pieces:
                assert _PIECE_NAME.fullmatch(piece[0]), f"{piece[0]!r} is no piece's name"
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: --join takes the folder that `sprint --out` wrote") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({_reason(error)}); copy the folder once more") from error
    return manifest


def _reason(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)


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
        path = folder / piece["name"]
        try:
            content = path.read_bytes()
        except OSError as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
            raise ValueError(f"{path} {what}; copy it once more{hint}") from error
        if digest(content) != piece["sha256"]:
            size = f"{len(content):,} of {piece['bytes']:,} bytes, another checksum than when it was written"
            raise ValueError(f"{path} is damaged ({size}); copy it once more{hint}")
        data += content
    try:
        return load(data), manifest
    except SafetensorError as error:
        raise ValueError(f"{folder} holds no weights of {name!r} that can be read ({error}){hint}") from error
