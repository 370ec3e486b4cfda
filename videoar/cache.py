"""The keys and values of what has been generated: one cache per clip, passed to the transformer.

Shapes: B batch, N tokens, H heads, D head dimension. Lengths are Python ints: the loop never waits for the device.
"""

from __future__ import annotations

import torch

from .memory import send
from .rope import rope_table, rotate


class KVCache:
    """Preallocated keys and values of the committed tokens, with the unit in flight written behind them.

    A unit is pending while it is denoised: each forward overwrites it, `commit` keeps it, so that stopping midway
    never poisons the cache. Keys are kept un-rotated and rotated when read; since a rotation changes only after an
    eviction, a rotated copy is held and redone then (and without a window, only that copy exists).

    window: at most this many latent frames are attended to, counting the unit in flight and the sink; None = all.
    sink: the film's first frames, which are never evicted.
    relative: after an eviction the times of what follows close up, so that an endless film stays at the times the model
        knows. With False keys keep their absolute time, as in Self-Forcing's cache.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        heads: int,
        head_dim: int,
        *,
        window: int | None = None,
        sink: int = 0,
        relative: bool = True,
        capacity: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if window is not None and not 0 <= sink < window:
            raise ValueError(f"the sink ({sink} frames) is part of the window ({window} frames) and must be smaller")
        self.window, self.sink, self.relative = window, sink, relative
        self.length = 0  # committed tokens
        self.pending = 0  # tokens of the unit in flight, written by the last forward
        self._positions = torch.empty(0, 3)  # of the committed tokens, absolute, on the CPU
        self._frames: list[float] = []  # latent frames of the committed tokens, ascending
        self._evicted: list[tuple[float, float]] = []  # latent frames that are gone, as half-open runs, ascending
        self._opened: torch.Tensor | None = None
        names = ("rotated", "value", "raw") if relative and window is not None else ("rotated", "value")
        empty = (batch, capacity, heads, head_dim)
        self._layers = [{name: torch.empty(empty, dtype=dtype, device=device) for name in names} for _ in range(layers)]

    @property
    def frames(self) -> list[int]:
        """The latent frames of which committed tokens are held, ascending."""
        return [int(t) for t in self._frames]

    @property
    def kept_bytes(self) -> int:
        """Bytes of the keys and values that are kept for later units."""
        return sum(b[:, : self.length].nbytes for buffers in self._layers for b in buffers.values())

    def open(self, positions_N3: torch.Tensor) -> torch.Tensor:
        """Makes room for a unit at these coordinates and returns the coordinates at which to rotate it.

        Called by the transformer before each forward. Evicting is idempotent: the same unit may be opened again.
        """
        self.pending, self._opened = 0, positions_N3
        if self.window is not None:
            self._evict(set(positions_N3[:, 0].unique().tolist()), self.window)
        return self._shift(positions_N3)

    def prefix(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotated keys and values of the committed tokens, [B, length, H, D] each."""
        buffers = self._layers[layer]
        return buffers["rotated"][:, : self.length], buffers["value"][:, : self.length]

    def extend(self, layer: int, raw_BNHD, rotated_BNHD, value_BNHD) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the unit in flight behind the committed tokens; returns all keys and values up to its end."""
        buffers, end = self._layers[layer], self.length + value_BNHD.shape[1]
        if end > buffers["value"].shape[1]:
            self._grow(buffers, max(end, 2 * self.length))
        for name, new in (("rotated", rotated_BNHD), ("value", value_BNHD), ("raw", raw_BNHD)):
            if name in buffers:
                buffers[name][:, self.length : end] = new
        self.pending = value_BNHD.shape[1]
        return buffers["rotated"][:, :end], buffers["value"][:, :end]

    def commit(self) -> None:
        """Keeps the pending unit: from now on later units attend to it."""
        assert self._opened is not None, "nothing to commit: the unit was rolled back or kept already"
        assert self.pending, "nothing to commit: the last forward ran with gradients"
        self._positions = torch.cat([self._positions, self._opened.detach().float().cpu()])
        self._frames = self._positions[:, 0].unique().tolist()
        self.length += self.pending
        self.rollback()

    def rollback(self) -> None:
        """Forgets the pending unit."""
        self.pending, self._opened = 0, None

    def clear(self) -> None:
        """Forgets all committed tokens, but not which frames are gone: to encode what is held anew, in its place."""
        self.rollback()
        self.length, self._positions, self._frames = 0, self._positions[:0], []

    def _evict(self, incoming: set[float], window: int) -> None:
        excess = len(incoming.union(self._frames)) - window
        gone = [t for t in self._frames if t >= self.sink and t not in incoming][: max(excess, 0)]
        if not gone:
            return
        keep = torch.isin(self._positions[:, 0], torch.tensor(gone), invert=True).nonzero()[:, 0]
        self._positions, self.length = self._positions[keep], len(keep)
        self._frames = [t for t in self._frames if t not in gone]
        self._evicted = _joined([*self._evicted, *((t, t + 1) for t in gone)])
        shifted = self._shift(self._positions)
        index = send(keep, self._layers[0]["value"].device)
        for buffers in self._layers:
            # New tensors rather than edits in place: a recomputation for gradients may still hold the old ones.
            for name, old in buffers.items():
                buffers[name] = torch.empty_like(old)
                buffers[name][:, : self.length] = old[:, index]
            if "raw" in buffers and self.length:
                raw = buffers["raw"][:, : self.length]
                buffers["rotated"][:, : self.length] = rotate(raw, rope_table(shifted, raw.shape[-1], raw.device))

    def _shift(self, positions_N3: torch.Tensor) -> torch.Tensor:
        if not self.relative or not self._evicted:
            return positions_N3
        times = positions_N3[:, 0].contiguous()
        starts, stops = torch.tensor(self._evicted, dtype=times.dtype, device=times.device).unbind(1)
        gone = (times[:, None] - starts).clamp(min=0).minimum(stops - starts).sum(1)
        return torch.cat([(times - gone)[:, None], positions_N3[:, 1:]], dim=1)

    def _grow(self, buffers: dict[str, torch.Tensor], capacity: int) -> None:
        for name, old in buffers.items():
            buffers[name] = old.new_empty(old.shape[0], capacity, *old.shape[2:])
            buffers[name][:, : self.length] = old[:, : self.length]


def _joined(runs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same frames in as few ascending runs as can be: an endless film has one, however much of it is gone."""
    joined: list[tuple[float, float]] = []
    for start, stop in sorted(runs):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
