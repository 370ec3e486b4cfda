"""What a block does between its matrices: chains of element-wise operations, run as written or fused into few kernels.

Shapes: B batch, N tokens, U timesteps (one per unit), E width, D head dimension.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.fx.experimental import _config as shapes
from torch.nn import functional as F

from .rope import rotate

# A module as it is, so that its hooks fire, or what a compiled chain reads of it: (weight, bias, eps).
Norm = nn.Module | tuple


def norm_modulate(norm: Norm, x_BNE, scale_BUE, shift_BUE, token_unit, dtype) -> torch.Tensor:
    """Layer norm, times (1 + scale), plus shift, with scale and shift of units spread over their tokens.

    token_unit: None (one unit), int n (units of n tokens each, in order: no gather), or [N] indices.
    """
    h_BNE, scale_BUE = _layer_norm(norm, x_BNE.float()), 1 + scale_BUE
    if token_unit is None:
        h = torch.addcmul(shift_BUE, h_BNE, scale_BUE)
    elif isinstance(token_unit, int):
        h_BUnE = h_BNE.unflatten(1, (-1, token_unit))
        h = torch.addcmul(shift_BUE.unsqueeze(2), h_BUnE, scale_BUE.unsqueeze(2)).flatten(1, 2)
    else:
        h = torch.addcmul(shift_BUE.index_select(1, token_unit), h_BNE, scale_BUE.index_select(1, token_unit))
    return h.to(dtype)


def add_gated(x_BNE, h_BNE, gate_BUE, token_unit, dtype) -> torch.Tensor:
    """x + h gate in float32, with the units' gates spread over their tokens (see norm_modulate)."""
    x_BNE, h_BNE = x_BNE.float(), h_BNE.float()
    if token_unit is None:
        x = torch.addcmul(x_BNE, h_BNE, gate_BUE)
    elif isinstance(token_unit, int):
        x_BUnE, h_BUnE = (part.unflatten(1, (-1, token_unit)) for part in (x_BNE, h_BNE))
        x = torch.addcmul(x_BUnE, h_BUnE, gate_BUE.unsqueeze(2)).flatten(1, 2)
    else:
        x = torch.addcmul(x_BNE, h_BNE, gate_BUE.index_select(1, token_unit))
    return x.to(dtype)


def layer_norm(norm: Norm, x_BNE, dtype) -> torch.Tensor:
    """Layer norm in float32."""
    return _layer_norm(norm, x_BNE.float()).to(dtype)


def rms_norm(norm: nn.RMSNorm | tuple, x_BNE, dtype) -> torch.Tensor:
    """RMS norm over all heads."""
    return _rms_norm(norm, x_BNE).to(dtype)


def norm_rotate(norm: nn.RMSNorm | tuple, x_BNE, table, dtype, raw: bool) -> tuple[torch.Tensor | None, torch.Tensor]:
    """RMS norm over all heads and rotation of each, [B, N, heads, D]; raw: before the rotation as well, else None."""
    x_BNHD = _rms_norm(norm, x_BNE).unflatten(2, (-1, 2 * table.shape[1]))
    return x_BNHD if raw else None, rotate(x_BNHD, table).to(dtype)


def _layer_norm(norm: Norm, x: torch.Tensor) -> torch.Tensor:
    if not isinstance(norm, tuple):
        return norm(x)
    weight, bias, eps = norm
    return F.layer_norm(x, x.shape[-1:], _float(weight), _float(bias), eps)


def _float(x: torch.Tensor | None) -> torch.Tensor | None:
    return None if x is None else x.float()


def _rms_norm(norm: nn.RMSNorm | tuple, x: torch.Tensor) -> torch.Tensor:
    if isinstance(norm, tuple):
        weight, _, eps = norm
        return F.rms_norm(x.to(weight.dtype), x.shape[-1:], weight, eps)
    if x.device.type != "cpu" or torch.compiler.is_compiling() or hasattr(norm, "_diffusers_hook"):
        return norm(x.to(norm.weight.dtype))
    x = x.float()  # torch's CPU version runs a chain of a dozen operations backwards; this is twice as fast
    return x * (torch.linalg.vecdot(x, x) / x.shape[-1] + norm.eps).rsqrt().unsqueeze(-1) * norm.weight


class Elementwise:
    """The chains as they are written, a kernel for each operation."""

    norm_modulate = staticmethod(norm_modulate)
    add_gated = staticmethod(add_gated)
    layer_norm = staticmethod(layer_norm)
    rms_norm = staticmethod(rms_norm)
    norm_rotate = staticmethod(norm_rotate)

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        """What several chains read, in float32: converted once."""
        return x.float()

    def parts(self, modulation_BUKE: torch.Tensor, token_unit) -> Sequence[torch.Tensor]:
        """The K modulations of all units, as norm_modulate and add_gated want them."""
        return modulation_BUKE.unbind(2)


class Fused(Elementwise):
    """The chains compiled: about a kernel each, forwards and backwards.

    A graph is made when a chain is first used with gradients, or without, and with units of equal or of other sizes; it
    serves all sizes, all blocks and all networks of that width. If none can be made, a warning says so once and the
    chains run as they are written. backend: torch.compile's.
    """

    def __init__(self, backend: str | Callable = "inductor"):
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        chains = (norm_modulate, add_gated, layer_norm, rms_norm, norm_rotate)
        self.compiled = {chain: torch.compile(chain, dynamic=True, backend=backend) for chain in chains}
        self.failed, self.proved = False, set[tuple]()

    def __deepcopy__(self, memo: dict) -> Fused:
        return self  # a copy of a network shares its graphs

    def widen(self, x):
        return x  # read where it is needed, at no cost

    def parts(self, modulation_BUKE, token_unit):
        if torch.is_tensor(token_unit):
            return torch.unbind_copy(modulation_BUKE, 2)
        return torch.split_copy(modulation_BUKE.flatten(0, 1), 1, 1)  # [B U, 1, E]: as many clips of one unit each

    def norm_modulate(self, norm, x, scale, shift, token_unit, dtype):
        if torch.is_tensor(token_unit):
            return self._run(norm_modulate, norm, _own(x, x.shape), scale, shift, token_unit, dtype)
        x, whole = _by_unit(x, token_unit), x.shape
        return _own(self._run(norm_modulate, norm, x, _for_all(scale, x), _for_all(shift, x), None, dtype), whole)

    def add_gated(self, x, h, gate, token_unit, dtype):
        if torch.is_tensor(token_unit):
            return self._run(add_gated, _own(x, x.shape), _own(h, x.shape), gate, token_unit, dtype)
        x, h, whole = _by_unit(x, token_unit), _by_unit(h, token_unit), x.shape
        return _own(self._run(add_gated, x, h, _for_all(gate, x), None, dtype), whole)

    def layer_norm(self, norm, x, dtype):
        return self._run(layer_norm, norm, _own(x, x.shape), dtype)

    def rms_norm(self, norm, x, dtype):
        return self._run(rms_norm, norm, _own(x, x.shape), dtype)

    def norm_rotate(self, norm, x, table, dtype, raw):
        table = _own(table, table.shape)
        torch._dynamo.mark_static(table, 1)  # the heads' width as well
        return self._run(norm_rotate, norm, _own(x, x.shape), table, dtype, raw)

    def _run(self, chain: Callable, *given: Any) -> Any:
        arguments = (_tensors_of(given[0]), *given[1:]) if isinstance(given[0], nn.Module) else given
        if self.failed or arguments[0] is None or torch.compiler.is_compiling():
            return chain(*given)
        kind = (chain, torch.is_grad_enabled(), *map(_kind, given))
        if kind not in self.proved:
            try:
                _try_out(self.compiled[chain], arguments)
            except Exception as error:  # no compiler, or one that fails in its own way
                self.failed = True
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                warnings.warn(f"element-wise operations run unfused, for no kernel was made: {reason}", stacklevel=3)
                return chain(*given)
            self.proved.add(kind)
        return self.compiled[chain](*arguments)


def _own(x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The same numbers in a shape and as no view: views get graphs of their own. (And so do widths, which are few:
    kernels for one are faster.)
    """
    if x.storage_offset() or not x.is_contiguous():
        x = x.clone(memory_format=torch.contiguous_format)
    if x._is_view() or x.shape != shape:
        x = torch.ops.aten._unsafe_view.default(x, shape)
    torch._dynamo.mark_static(x, x.ndim - 1)
    return x


def _by_unit(x_BNE: torch.Tensor, token_unit: int | None) -> torch.Tensor:
    """Tokens [B U, n, E] of units of equal size: as many clips of one unit each."""
    batch, n, width = x_BNE.shape
    size = token_unit or n
    return _own(x_BNE, torch.Size((batch * n // size, size, width)))


def _for_all(part: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A modulation for each clip where all of them share one."""
    return part if len(part) == len(x) else part.repeat(len(x) // len(part), 1, 1)


def _kind(given: Any) -> Any:
    if torch.is_tensor(given):
        return given.dtype, given.requires_grad, torch.is_autocast_enabled(given.device.type)
    return given if isinstance(given, (torch.dtype, bool)) else type(given)


def _tensors_of(norm: nn.Module) -> tuple | None:
    """Weight, bias and eps of a norm; None if it does something else, or has hooks (offloading), besides."""
    own = vars(norm)
    hooked = own["_forward_hooks"] or own["_forward_pre_hooks"] or "_diffusers_hook" in own or "_hf_hook" in own
    if hooked or not isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
        return None
    weights = [norm.weight, own["_parameters"].get("bias")]
    if not torch.is_grad_enabled():  # where it makes no difference, nor a graph, whether weights are trained
        weights = [None if w is None else w.detach() for w in weights]
    return (*weights, norm.eps)


def _try_out(compiled: Callable, arguments: tuple) -> None:
    """Make the graphs of a call, that of its backward pass too: there nobody could go on without.

    With tensors like those given, so that no gradient arrives anywhere. Sizes that are equal by chance stay apart.
    """
    like = [_stand_in(a) for a in arguments]
    with (
        saved_tensors_hooks(lambda x: x, lambda x: x),  # those of a recomputation would miss what is kept here
        shapes.patch(use_duck_shape=False),  # type: ignore[attr-defined]
    ):
        out = compiled(*like)
    outputs = [o for o in (out if isinstance(out, tuple) else (out,)) if o is not None and o.requires_grad]
    flat = [a for argument in like for a in (argument if isinstance(argument, tuple) else (argument,))]
    learning = [a for a in flat if torch.is_tensor(a) and a.requires_grad]
    if outputs:
        torch.autograd.grad(outputs, learning, [torch.zeros_like(o) for o in outputs])


def _stand_in(given: Any) -> Any:
    if not torch.is_tensor(given) or not given.requires_grad or isinstance(given, nn.Parameter):
        return given
    return _own(torch.empty_like(given).requires_grad_(), given.shape)
