"""A pretended second device: tensors that say they are on it, hold real numbers, and refuse what a GPU would refuse.

An operation that mixes them with tensors of the CPU fails (but for numbers and indices, which PyTorch lets in), and so
does whatever would make the program wait for the device: `.item()`, `.tolist()`, `.cpu()`, `bool()`, `nonzero()`, and
copies to the device that are not `non_blocking`, such as PyTorch makes of indices of the CPU by itself.
Inside `allowed()` waiting is all right.
"""

from __future__ import annotations

import contextlib
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE = torch.device("cuda", 0)
CPU = torch.device("cpu")
_WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique", "equal", "is_nonzero")
_INDEXED = ("index.Tensor", "index_put.default", "index_put_.default", "_index_put_impl_.default")


class ElsewhereTensor(torch.Tensor):
    """Wraps a tensor of the CPU; every operation goes through `Elsewhere`."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CPU,  # what PyTorch itself takes it for; what the program reads is `device`
            requires_grad=requires_grad,
        )

    def __init__(self, inner: torch.Tensor, requires_grad: bool = False):
        self.inner = inner

    @property
    def device(self) -> torch.device:
        return ELSEWHERE

    def __repr__(self) -> str:
        return f"ElsewhereTensor({tuple(self.shape)})"

    def cpu(self):
        return self.to("cpu")

    def tolist(self):
        assert Elsewhere.waiting_allowed, "tolist() waits for the device"
        return self.inner.tolist()

    def numpy(self):
        raise AssertionError("numpy() of a tensor that is not on the CPU")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return Elsewhere.run(func, args, kwargs or {})


_tensor_to, _tensor_of = torch.Tensor.to, torch.tensor


def _tensor(data, device=None, **options) -> torch.Tensor:
    """`torch.tensor`, which copies by ways that no subclass sees."""
    made = _tensor_of(data, **options)
    return made if device is None else _to(made, device)


def _to(tensor: torch.Tensor, *args, **kwargs) -> torch.Tensor:
    """`Tensor.to`, which PyTorch would not let go to a device that it was not built for."""
    if args and isinstance(args[0], torch.Tensor):
        device, dtype, non_blocking = args[0].device, args[0].dtype, False
    else:
        kwargs.pop("copy", None)
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
    dtype = dtype or tensor.dtype
    if device is None or device.type == tensor.device.type:
        return _tensor_to(tensor, dtype)
    if device.type == "cuda":
        waits = tensor.ndim > 0 and not non_blocking and not Elsewhere.waiting_allowed
        assert not waits, f"copying {tuple(tensor.shape)} there waits for the device: videoar.memory.send does not"
        return ElsewhereTensor(_tensor_to(tensor.detach(), dtype))
    assert Elsewhere.waiting_allowed, f"{tuple(tensor.shape)} is copied to the CPU, which waits for the device"
    return _tensor_to(tensor.detach().inner, dtype)


@torch.no_grad()
def _clip_grad_norm_(parameters, most: float) -> torch.Tensor:
    """PyTorch's, which asks its own core for the device and would hear the CPU."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([grad.norm() for grad in grads]).norm()
    for grad in grads:
        grad.mul_((most / (norm + 1e-6)).clamp(max=1))
    return norm


class Elsewhere(TorchDispatchMode):
    """While it is entered, tensors can be made on, and brought to, the pretended device."""

    waiting_allowed = False

    def __enter__(self):
        # PyTorch would look for a GPU as soon as it reads the device's name, and pin memory for its copies.
        self._patches = [
            mock.patch.object(torch.cuda, "_lazy_init", return_value=None),
            mock.patch.object(torch.cuda, "mem_get_info", return_value=(2**40, 2**40)),
            mock.patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor),
            mock.patch.object(torch.Tensor, "to", _to),
            mock.patch.object(torch, "tensor", _tensor),
            mock.patch.object(torch.nn.utils, "clip_grad_norm_", _clip_grad_norm_),
        ]
        for patch in self._patches:
            patch.start()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        for patch in self._patches:
            patch.stop()
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return Elsewhere.run(func, args, kwargs or {})

    @staticmethod
    def run(func, args, kwargs):
        name = str(func).removeprefix("aten.")
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        there = [isinstance(x, ElsewhereTensor) for x in tensors]
        wanted = kwargs.get("device")
        if any(there) and not Elsewhere.waiting_allowed:
            masked = name in _INDEXED and any(
                isinstance(x, ElsewhereTensor) and x.dtype == torch.bool for x in args[1] if x is not None
            )
            brought = name in _INDEXED and any(
                not isinstance(x, ElsewhereTensor) and x.ndim for x in args[1] if x is not None
            )
            waits = masked or brought or name.startswith(_WAITS)
            assert not waits, f"{name} waits for the device"
        moves = name.startswith(("_to_copy", "copy_", "_copy_from"))
        if any(there) and not all(there) and not moves and name not in _INDEXED:
            strangers = [x for x, is_there in zip(tensors, there, strict=True) if not is_there and x.ndim]
            assert not strangers, f"{name} mixes devices: {[tuple(x.shape) for x in strangers]} on the CPU"
        here = tree_map(lambda x: x.inner if isinstance(x, ElsewhereTensor) else x, (args, kwargs))
        if "device" in here[1]:
            here[1]["device"] = CPU
        out = func(*here[0], **here[1])
        # PyTorch's core takes what is there for the CPU's, and asks for new tensors of the CPU beside it.
        if not func._schema.returns or (not any(there) and (wanted is None or torch.device(wanted).type == "cpu")):
            return out
        written = _written(func, args, kwargs)
        if written is not None:
            return written
        return tree_map(lambda x: ElsewhereTensor(x) if isinstance(x, torch.Tensor) else x, out)


def _written(func, args, kwargs):
    """What an operation in place returns: the very tensor that it was given."""
    schema = func._schema
    if schema.returns[0].alias_info is None or not schema.returns[0].alias_info.is_write:
        return None
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return args[i] if i < len(args) else kwargs[argument.name]
    return None


@contextlib.contextmanager
def allowed():
    """Waiting for the device is all right in here."""
    before, Elsewhere.waiting_allowed = Elsewhere.waiting_allowed, True
    try:
        yield
    finally:
        Elsewhere.waiting_allowed = before
