"""Time that a device spends on something, measured without waiting for the device."""

from __future__ import annotations

import time
from typing import Any

import torch

_WITH_EVENTS = ("cuda", "xpu")


class Stopwatch:
    """Adds up the spans between start() and stop(); on a GPU those are marks in its queue, read when it gets there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._spans: list[list[Any]] = []  # of marks that have not been read: [start] or [start, stop]

    def start(self) -> None:
        self._spans.append([self._mark()])

    def stop(self) -> None:
        self._spans[-1].append(self._mark())

    def done(self) -> bool:
        """Whether the device has come to the last stop(), so that seconds() need not wait."""
        return all(isinstance(mark, float) or mark.query() for _, mark in self._spans)

    def seconds(self) -> float:
        """The sum of all spans; waits for the last one to end."""
        for start, stop in self._spans:
            if isinstance(stop, float):
                self._seconds += stop - start
            else:
                stop.synchronize()
                self._seconds += start.elapsed_time(stop) / 1000
        self._spans.clear()
        return self._seconds

    def _mark(self) -> Any:
        if self._device.type in _WITH_EVENTS:
            event = torch.Event(self._device, enable_timing=True)
            event.record(torch.accelerator.current_stream(self._device))
            return event
        if self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()
