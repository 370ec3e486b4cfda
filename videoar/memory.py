"""What a model will need of a device's memory, from shapes alone, and what the device has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import torch

# Where the parts are: all on the device; the text encoder in CPU memory except while it reads a prompt; that, and the
# transformer's layers brought in one after another.
OFFLOADS = ("none", "text", "blocks")


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device; None where it does not say."""
    if device.type == "cpu":
        return psutil.virtual_memory().available
    if device.type in ("cuda", "xpu"):
        try:
            return getattr(torch, device.type).mem_get_info(device)[0]
        except RuntimeError:  # a GPU that is lent later, film by film
            return None
    return None


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device, without waiting for what the device still has to do."""
    if tensor.device == device:
        return tensor
    # From memory that may be swapped out a copy is never asynchronous.
    from_cpu = tensor.device.type == "cpu" and device.type == "cuda"
    return (tensor.pin_memory() if from_cpu else tensor).to(device, non_blocking=True)


def module_bytes(module: torch.nn.Module, dtype_of: Callable[[str], torch.dtype] | None = None) -> int:
    """Memory of a module's parameters and buffers; dtype_of: what each floating point one (by its name) will become."""
    total = 0
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        kept = dtype_of(name) if dtype_of and tensor.is_floating_point() else tensor.dtype
        total += tensor.numel() * kept.itemsize
    return total


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"


def check_room(needs: dict[str, int], device: torch.device, advice: str, free: int | None = None) -> None:
    """Raises ValueError, with what is needed, what is there and what to do, if a device cannot hold all of `needs`."""
    free = free_bytes(device) if free is None else free
    total = sum(needs.values())
    if free is None or total <= free:
        return
    parts = ", ".join(f"{name} {gigabytes(count)}" for name, count in needs.items() if count)
    raise ValueError(f"{device} needs {gigabytes(total)} ({parts}) and has {gigabytes(free)} free: {advice}")


def call_elsewhere(module: torch.nn.Module, device: torch.device, *inputs: torch.Tensor) -> Any:
    """What a module returns on another device: copies of its tensors go there for this call, its own stay at home."""
    copies = {name: tensor.to(device) for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    return torch.func.functional_call(module, copies, tuple(tensor.to(device) for tensor in inputs))
