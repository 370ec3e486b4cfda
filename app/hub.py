"""One append-only, replayable and bounded log of messages per run; writers are threads, readers are coroutines."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from app.wire import Message, pack, unpack

KEEPALIVE = pack({"kind": "alive"})


class Job:
    """The log of one run (docs/how-it-works.md, "A run as data"), and the switch that stops it.

    `outcome` stays empty until the run is over; then it holds what the page is told about it.
    """

    def __init__(self, owner: str, most_bytes: int) -> None:
        # Whoever knows the name may read the log, so it cannot be guessed: 192 random bits.
        self.id = secrets.token_urlsafe(24)
        self.owner = owner
        self.most_bytes = most_bytes
        self.size = 0
        self.began = self.touched = time.monotonic()
        self.outcome: dict[str, Any] = {}
        self.films: dict[int, tuple[bytes, dict[str, Any]]] = {}  # pane -> the MP4 and its settings
        self.long_film: tuple[Path, dict[str, Any]] | None = None  # one that is too long for memory, and its settings
        self.source: str | None = None  # the file that the film goes on from
        self.seen: tuple[int | None, float] = None, self.began  # the last picture that was looked at, and since when
        self.direct: Callable[[str], None] | None = None  # what gives the film another prompt, while it is made
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._opening: bytes | None = None
        self._log: deque[bytes] = deque()
        self._dropped = 0
        self._closed = False
        self._stopped = False
        self._on_stop: Callable[[], None] | None = None
        self._changed = threading.Condition()
        self._readers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def done(self) -> bool:
        """No more messages will come."""
        return self._closed

    @property
    def stopped(self) -> bool:
        """Somebody asked for an early end."""
        return self._stopped

    def put(self, head: dict[str, Any], body: bytes = b"") -> None:
        """Appends a message, with its number and time.

        The oldest go when the log is over its size, but the first one, which opens the run.
        """
        with self._changed:
            if self._closed:
                return
            at = round(time.monotonic() - self.began, 4)
            message = pack({**head, "seq": self._dropped + len(self._log), "at": at}, body)
            if self._opening is None:
                self._opening = message
            self._log.append(message)
            self.size += len(message)
            while self.size > self.most_bytes and len(self._log) > 1:
                self.size -= len(self._log.popleft())
                self._dropped += 1
        self._wake()

    def close(self, outcome: dict[str, Any] | None = None) -> None:
        """Ends the log; readers finish what is there."""
        with self._changed:
            if not self._closed:
                self._closed, self.outcome = True, outcome or {"status": "stopped"}
        self._wake()

    def on_stop(self, action: Callable[[], None]) -> None:
        """What ends the work behind this job; called at once if the stop came first."""
        with self._changed:
            self._on_stop = action
            late = self._stopped
        if late:
            action()

    def stop(self) -> None:
        """Asks the work to end; returns at once, and a second call does nothing."""
        with self._changed:
            if self._stopped or self._closed:
                return
            self._stopped, action = True, self._on_stop
        if action:
            action()
        self._wake()

    def see(self, frame: int) -> None:
        """The viewer says which picture is on the screen."""
        if frame != self.seen[0]:
            self.seen = frame, time.monotonic()

    def folder(self) -> Path:
        """A place for files that exist as long as the job."""
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="videoar_job-", ignore_cleanup_errors=True)
        return Path(self._folder.name)

    def forget(self) -> None:
        """Stops the work, ends the log and removes the files."""
        self.stop()
        self.close()
        if self._folder:
            self._folder.cleanup()

    def wait(self, seconds: float) -> bool:
        """Blocks a thread until the job is done, at most `seconds`; true if it is done."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, seconds)

    def messages(self) -> list[Message]:
        """A copy of the log, unpacked."""
        with self._changed:
            log = list(self._log)
        return [message for data in log for message in unpack(data)]

    async def read(self, start: int = 0, keepalive: float = 15.0) -> AsyncIterator[bytes]:
        """Whole messages from number `start` on, as they come, until the job is done."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        reader = (loop, news)
        self._readers.add(reader)
        position = max(0, start)
        try:
            while True:
                news.clear()
                with self._changed:
                    over = self._closed
                    batch = list(self._log)[max(0, position - self._dropped) :]
                    if position == 0 and self._dropped and self._opening is not None:
                        batch.insert(0, self._opening)
                    position = max(position, self._dropped + len(self._log))
                if batch:
                    yield b"".join(batch)
                elif over:
                    return
                else:
                    try:
                        await asyncio.wait_for(news.wait(), keepalive)
                    except asyncio.TimeoutError:
                        yield KEEPALIVE
        finally:
            self._readers.discard(reader)

    def _wake(self) -> None:
        with self._changed:
            self.touched = time.monotonic()
            self._changed.notify_all()
        for loop, news in list(self._readers):
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.set)


class Hub:
    """All jobs of a server. Old finished ones are forgotten, and so is everything of a page that was closed."""

    def __init__(self, keep_seconds: float = 600, job_bytes: int = 256 << 20, most_bytes: int = 1 << 30) -> None:
        self.keep_seconds = keep_seconds
        self.job_bytes = job_bytes
        self.most_bytes = most_bytes
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def new(self, owner: str) -> Job:
        """A fresh job. owner: the page (Gradio's session hash) that it belongs to."""
        self._sweep()
        job = Job(owner, self.job_bytes)
        with self._lock:
            self._jobs[job.id] = job
        return job

    def get(self, job_id: str) -> Job | None:
        """The job of that name, if it is still known."""
        with self._lock:
            return self._jobs.get(job_id)

    def of(self, owner: str) -> list[Job]:
        """The jobs of one page, oldest first."""
        with self._lock:
            return [job for job in self._jobs.values() if job.owner == owner]

    def busy(self) -> int:
        """How many runs are not over."""
        with self._lock:
            return sum(not job.done for job in self._jobs.values())

    def drop(self, owner: str) -> None:
        """Stops and forgets everything of one page."""
        for job in self.of(owner):
            self._forget(job)

    def close(self) -> None:
        """Stops and forgets everything."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            self._forget(job)

    def __len__(self) -> int:
        return len(self._jobs)

    def _forget(self, job: Job) -> None:
        job.forget()
        with self._lock:
            self._jobs.pop(job.id, None)

    def _sweep(self) -> None:
        now = time.monotonic()
        with self._lock:
            finished = sorted((job for job in self._jobs.values() if job.done), key=lambda job: job.touched)
            size = sum(job.size for job in self._jobs.values())
        for job in finished:
            if now - job.touched > self.keep_seconds or size > self.most_bytes:
                size -= job.size
                self._forget(job)
