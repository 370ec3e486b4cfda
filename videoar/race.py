"""Several clips on one device, fairly: the next step goes to the contender that has used the device least."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence

import torch

from .checkpoint import Model
from .events import MOST_CONTENDERS, ClipFailed, ClipFinished, Event, Turn
from .generate import generate
from .request import Request, resolve

logger = logging.getLogger(__name__)

# As `generate`: (model, request, overlap=...) -> events.
Run = Callable[..., Iterator[Event]]


class Race(Iterator[Turn]):
    """The turns of up to 5 clips that are being made; with one clip also the handle to direct it by."""

    def __init__(
        self, models: Sequence[Model], requests: Sequence[Request], run: Run, one_by_one: bool, keep: bool
    ) -> None:
        options = {"overlap": one_by_one or len(requests) == 1} | ({} if keep else {"keep": False})
        films = enumerate(zip(models, requests, strict=True))
        self._clips = {i: run(model, request, **options) for i, (model, request) in films}
        self._alone = self._clips[0] if len(requests) == 1 else None
        self._turns = _turns(self._clips, one_by_one)

    def __next__(self) -> Turn:
        return next(self._turns)

    def switch(self, prompt: str) -> None:
        """As `Generation.switch`, for the only clip. Raises ValueError for a comparison."""
        if self._alone is None:
            raise ValueError("the prompts of a comparison cannot be switched")
        self._alone.switch(prompt)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Ends all clips where they are."""
        self._turns.close()


def race(
    model: Model | Sequence[Model],
    requests: Sequence[Request],
    run: Run = generate,
    *,
    one_by_one: bool = False,
    keep: bool = True,
) -> Race:
    """Makes up to 5 clips at once, so that at every moment each shows what its settings reach with the same compute.

    Every contender's clip equals the one it would be alone, and the device times of those that are still running never
    differ by more than one event of `generate`: a denoising step, or a unit's clean pass and decoding. The first turns
    are all contenders' ClipStarted; the last one of each is its ClipFinished, or ClipFailed, which leaves the others
    going. Only work is counted: a consumer may rest between two turns.

    With more than one contender at once, decoding does not overlap with denoising, which would slow somebody else down.

    model: of all contenders, or one for each of them. one_by_one: no contest; the first clip is finished before the
    second one begins. keep: as in `generate`.

    Raises ValueError at once for a request that does not fit the model, or for too few or many of them.
    """
    if not 1 <= len(requests) <= MOST_CONTENDERS:
        raise ValueError(f"a comparison has 1 to {MOST_CONTENDERS} contenders, not {len(requests)}")
    models = list(model) if isinstance(model, Sequence) else [model] * len(requests)
    for each, request in zip(models, requests, strict=True):
        resolve(each, request)
    return Race(models, requests, run, one_by_one, keep)


def _turns(clips: dict[int, Iterator[Event]], one_by_one: bool) -> Generator[Turn, None, None]:
    used = dict.fromkeys(clips, 0.0)
    waiting = list(clips)  # for their first turn: nobody waits for anybody to be announced
    try:
        while clips:
            i = waiting.pop(0) if waiting else min(clips, key=lambda i: i if one_by_one else used[i])
            start = time.perf_counter()
            event: Event | None
            try:
                event = next(clips[i], None)
            except Exception as error:  # one contender's failure must not take the others down
                event = ClipFailed(explain(error))
            used[i] += time.perf_counter() - start
            if event is None or isinstance(event, (ClipFinished, ClipFailed)):
                _close(clips.pop(i))
            if event is not None:
                yield Turn(i, event, used[i])
    finally:
        for clip in clips.values():
            _close(clip)


def explain(error: Exception) -> str:
    """What a viewer is told about a clip that could not be finished; frees what an out-of-memory error holds."""
    out_of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)
    if out_of_memory:
        logger.warning("out of memory: %s", error)
        error.__traceback__ = None  # it holds the frames that hold the tensors
        gc.collect()
        if torch.accelerator.is_available() and hasattr(torch.accelerator, "empty_cache"):
            torch.accelerator.empty_cache()
        return "The device is out of memory: choose a smaller size, fewer frames or a smaller window."
    if isinstance(error, ValueError):
        return str(error)
    logger.error("a clip failed", exc_info=error)
    return f"The clip could not be finished ({type(error).__name__})."


def _close(clip: Iterator[Event]) -> None:
    try:
        clip.close()  # type: ignore[attr-defined]
    except Exception:
        logger.exception("closing a clip failed")
