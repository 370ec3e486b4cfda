"""A stage's folder: weights, optimizer, step and log, written so that kill -9 at any moment loses nothing that was
saved.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def flatten_optimizer(state: dict, prefix: str) -> dict[str, Tensor]:
    """The tensors of an optimizer's state dict under flat names; hyper-parameters are not state, presets hold them."""
    return {
        f"{prefix}.{index}.{name}": value if torch.is_tensor(value) else torch.tensor(value)
        for index, slots in state["state"].items()
        for name, value in slots.items()
        if value is not None
    }


def whole(value: Tensor) -> Tensor:
    """A sharded tensor put together (all processes must ask for it), any other as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def placed_like(value: Tensor, reference: Tensor) -> Tensor:
    """A tensor sharded, or moved to the device, as the reference is."""
    if isinstance(reference, DTensor) and value.shape == reference.shape:
        return distribute_tensor(value, reference.device_mesh, reference.placements)
    return value.to(reference.device)


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix + "."):
            index, name = key[len(prefix) + 1 :].split(".", 1)
            parameter = parameters[int(index)]
            value = placed_like(value, parameter) if value.shape == parameter.shape else value
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Run:
    """The folder of one stage.

    `save` writes a complete checkpoint under a temporary name and renames it; only then is the one before removed.
    `load` returns the newest complete one.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("step-????????"))

    def save(self, step: int, tensors: dict[str, Tensor], info: dict) -> Path:
        """Write a checkpoint. Raises OSError (disk full, say) and leaves the earlier checkpoints as they were.

        A checkpoint of this step that reads whole is kept: a run that is repeated comes to the same one.
        """
        final = self.folder / f"step-{step:08d}"
        partial = self.folder / f".partial-{os.getpid()}"
        for left in self.folder.glob(".partial-*"):  # by a process that was killed while it saved
            shutil.rmtree(left, ignore_errors=True)
        if self._read(final) is not None:
            return final
        try:
            partial.mkdir()
            save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, partial / "state.safetensors")
            (partial / "info.json").write_text(json.dumps({"step": step, **info}))
            older = self.checkpoints()
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"could not save {final}: {error}; the earlier checkpoints are untouched") from error
        for path in older:
            if path != final:
                shutil.rmtree(path, ignore_errors=True)
        return final

    def load(self) -> tuple[dict[str, Tensor], dict] | None:
        """The newest checkpoint that reads whole, or None; damaged ones are skipped."""
        return next((saved for path in reversed(self.checkpoints()) if (saved := self._read(path)) is not None), None)

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict] | None:
        try:
            return load_file(path / "state.safetensors"), json.loads((path / "info.json").read_text())
        except (OSError, SafetensorError, ValueError):
            return None

    def rows(self) -> list[dict]:
        """The rows of the log, without lines that were cut off when the process was killed."""
        path, rows = self.folder / "log.jsonl", []
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def log(self, **row) -> None:
        with open(self.folder / "log.jsonl", "a") as f:
            f.write(json.dumps({"time": round(time.time(), 1), **row}) + "\n")


class Average:
    """Exponential moving average of a module's parameters and buffers, with the usual warm-up of the decay.

    tensors: the averages, by name; may be replaced by others of the same names.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.tensors = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self._held: tuple[nn.Module, dict[str, tuple[dict, str]]] | None = None

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        now = self._state(module)
        floating = [k for k, v in now.items() if v.is_floating_point()]
        if any(isinstance(v, DTensor) for v in now.values()):
            for k in floating:
                self.tensors[k].lerp_(now[k], 1 - decay)
        elif floating:
            torch._foreach_lerp_([self.tensors[k] for k in floating], [now[k] for k in floating], 1 - decay)
        for k in now.keys() - floating:
            self.tensors[k].copy_(now[k])

    def _state(self, module: nn.Module) -> dict[str, Tensor]:
        """The state dict; making one takes milliseconds, so it is read where the parts of the module hold it."""
        if self._held is None or self._held[0] is not module:
            self._held = module, {k: held for k, held in holders(module).items() if k in self.tensors}
        now = {k: kept[leaf] for k, (kept, leaf) in self._held[1].items()}
        sharded = any(isinstance(v, DTensor) for v in now.values())  # has hooks that put its shards in order
        return module.state_dict() if sharded or len(now) < len(self.tensors) else now


def holders(module: nn.Module) -> dict[str, tuple[dict, str]]:
    """The dictionary and the key in it under which a part of the module holds each parameter and buffer, by name: they
    stay the same when tensors are moved or replaced.
    """
    return {
        f"{prefix}.{leaf}" if prefix else leaf: (kept, leaf)
        for prefix, part in module.named_modules(remove_duplicate=False)
        for kept in (part._parameters, part._buffers)
        for leaf in kept
    }
