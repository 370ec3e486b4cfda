"""One thread owns the device; any number of sessions submit to it, read events and stop without blocking."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .checkpoint import Model
from .events import ClipFailed, ClipFinished
from .generate import generate
from .race import Run, explain, race
from .request import Request, resolve

logger = logging.getLogger(__name__)

_END = object()
# A reader that far behind gets no more device time until it has caught up: an endless film must not pile up.
_UNREAD = 128


class Busy(RuntimeError):
    """The queue is full."""


class _Job:
    """The engine's side of a session."""

    def __init__(self, iterator: Iterator[Any], unread: int) -> None:
        self.unread = unread
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()  # of Event or Turn, and _END
        self.stopped = threading.Event()
        self.iterator: Iterator[Any] | None = iterator
        self.device_s = 0.0
        self.share = 0.0  # device time for the purpose of fair turns: newcomers start level with the others


class Session:
    """An iterator over a clip's events, or the turns of a race; it ends after the last one, or once stopped.

    Read it from one thread. A session that is thrown away stops by itself.
    """

    def __init__(self, job: _Job, wake: Callable[[], None]) -> None:
        self._job, self._wake, self._over = job, wake, False

    def __iter__(self) -> Session:
        return self

    def __next__(self) -> Any:
        event = _END if self._over else self._job.events.get()
        if event is _END:
            self._over = True
            raise StopIteration
        if isinstance(event, (ClipFinished, ClipFailed)):
            self._over = True
        return event

    def stop(self) -> None:
        """Ends the session at once; never blocks. Events that are already there can still be read."""
        if not self._job.stopped.is_set():
            self._job.stopped.set()
            self._job.events.put(_END)
            self._wake()

    def switch(self, prompt: str) -> None:
        """Goes on under another prompt from the next border on (see Generation.switch); without effect after the end.

        Never blocks. Raises ValueError for a prompt that cannot be used, and for a comparison.
        """
        generation = self._job.iterator
        if generation is not None:
            generation.switch(prompt)  # type: ignore[attr-defined]

    @property
    def device_s(self) -> float:
        """Seconds of the device this session has used so far."""
        return self._job.device_s

    def __del__(self) -> None:
        self._job.stopped.set()


class Engine:
    """Shares a device among clips: the next step goes to the one that has used the device least.

    active: clips that are generated side by side (each holds a KV cache); waiting: how many more may queue.
    """

    def __init__(self, model: Model, active: int = 8, waiting: int = 16, run: Run = generate) -> None:
        self.model, self.active, self.waiting, self._run = model, active, waiting, run
        self._condition = threading.Condition()
        self._queue: list[_Job] = []
        self._running: list[_Job] = []
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="videoar-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, model: Model | None = None, **options: bool) -> Session:
        """Queues a clip. Raises ValueError if it does not fit the model, Busy if the queue is full.

        options: of `generate`, such as keep=False for a long film that the reader does not want at once in the end.
        """
        model = model or self.model
        resolve(model, request)
        return self._queue_up(self._run(model, request, **options))

    def race(
        self,
        requests: Sequence[Request],
        models: Sequence[Model] | None = None,
        *,
        unread: int = _UNREAD,
        **options: bool,
    ) -> Session:
        """Queues a comparison (see videoar.race), which counts as one clip. Raises as `submit` does.

        models: one for each request; None takes the engine's own.

        unread: how many turns may wait for the reader before the device rests. options: of `race`.
        """
        return self._queue_up(race(models or self.model, requests, self._run, **options), unread)

    def _queue_up(self, iterator: Iterator[Any], unread: int = _UNREAD) -> Session:
        job = _Job(iterator, unread)
        with self._condition:
            if self._closed:
                raise Busy("the engine is shutting down")
            if len(self._queue) + len(self._running) >= self.active + self.waiting:
                raise Busy(f"{len(self._queue)} clips are waiting already: try again in a moment")
            self._queue.append(job)
            self._condition.notify()
        return Session(job, self._notify)

    def load(self) -> tuple[int, int]:
        """How many clips are being generated and how many wait."""
        with self._condition:
            return len(self._running), len(self._queue)

    def close(self) -> None:
        """Ends all sessions and the thread; waits for the step in progress."""
        with self._condition:
            self._closed = True
            for job in [*self._queue, *self._running]:
                job.stopped.set()
                job.events.put(_END)
            self._condition.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _notify(self) -> None:
        with self._condition:
            self._condition.notify()

    def _serve(self) -> None:
        while True:
            job = self._next_job()
            if job is None:
                return
            self._advance(job)

    def _next_job(self) -> _Job | None:
        """Waits for something to do and picks whose turn it is; None = closed."""
        while True:
            with self._condition:
                gone = [job for job in self._running if job.stopped.is_set()]
                self._running = [job for job in self._running if not job.stopped.is_set()]
                self._queue = [job for job in self._queue if not job.stopped.is_set()]
                while self._queue and len(self._running) < self.active:
                    job = self._queue.pop(0)
                    job.share = min((other.share for other in self._running), default=0.0)
                    self._running.append(job)
                ready = [job for job in self._running if job.events.qsize() < job.unread]
                if not ready and not gone:
                    if self._closed:
                        return None
                    # With a slow reader only, look again soon: reading does not notify.
                    self._condition.wait(timeout=0.05 if self._running else None)
                    continue
            for job in gone:
                _close(job)
            if ready:
                return min(ready, key=lambda job: job.share)

    def _advance(self, job: _Job) -> None:
        start = time.perf_counter()
        event: Any
        try:
            assert job.iterator is not None, "a job that is over gets no turn"
            event = next(job.iterator, None)
        except Exception as error:  # one clip's failure must not take the others down
            event = ClipFailed(explain(error))
        seconds = time.perf_counter() - start
        job.device_s += seconds
        job.share += seconds
        if event is None or isinstance(event, (ClipFinished, ClipFailed)):
            with self._condition:
                self._running.remove(job)
            _close(job)
            job.events.put(_END if event is None else event)
        else:
            job.events.put(event)


def _close(job: _Job) -> None:
    iterator, job.iterator = job.iterator, None
    try:
        if iterator is not None:
            iterator.close()  # type: ignore[attr-defined]
    except Exception:
        logger.exception("closing a clip failed")
