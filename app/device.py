"""Where films are made: an engine thread that owns the device, or a ZeroGPU call per run."""

from __future__ import annotations

# First, before anything imports torch: on ZeroGPU it has to take CUDA's place in time. Elsewhere it does nothing.
import spaces  # isort: skip
from spaces.config import Config as SpacesConfig  # isort: skip

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from typing import Any, Protocol

from app.legs import Legs
from app.wire import Message, messages
from videoar.request import Request, resolve

log = logging.getLogger(__name__)

ON_ZERO_GPU = bool(SpacesConfig.zero_gpu)
# A call on ZeroGPU starts a process and moves the weights before the first unit.
_ZERO_GPU_START_SECONDS = 15
# Events of a film that may wait for its reader: a unit or two.
_UNREAD = 8

# What makes the model; or, for several, what makes each of them, by name, the usual one first.
Load = Callable[[], Any] | Mapping[str, Callable[[], Any]]


class Running(Protocol):
    """A run in the making: iterate over its messages; direct and stop it from any thread."""

    def __iter__(self) -> Iterator[Message]: ...

    def switch(self, prompt: str) -> None:
        """Goes on under another prompt as soon as that can be. Raises ValueError for one that cannot be used."""

    def stop(self) -> None:
        """Ends it soon, without waiting for that."""


class Device(Protocol):
    """What the page needs of the machine behind it. names: of the models to choose from; empty if there is one only."""

    names: tuple[str, ...]

    def start(self) -> None:
        """Begins to load the model."""

    def model(self, seconds: float | None = None) -> Any:
        """The usual model, waiting at most `seconds` for it (TimeoutError); raises what loading raised."""

    def run(self, requests: Sequence[Request], models: Sequence[str | None] = (), one_by_one: bool = False) -> Running:
        """Begins a film, or several: side by side, or one after another.

        models: for each request the name of its model, or None for the usual one. Raises ValueError for what cannot be
        made, or not now.
        """

    def close(self) -> None:
        """Ends everything."""


def make_device(load: Load) -> Device:
    """The device of this machine. load: called once."""
    return ZeroGpuDevice(load) if ON_ZERO_GPU else EngineDevice(load)


class _Models:
    """The models of a device, loaded one after another."""

    def __init__(self, load: Load) -> None:
        self._loads = dict(load) if isinstance(load, Mapping) else {"": load}
        self.names = tuple(self._loads) if len(self._loads) > 1 else ()
        self.loaded: list[Any] = []

    def load(self) -> Any:
        """Loads all of them; returns the usual one. They are called what they are called here, in files as well."""
        for name, load in self._loads.items():
            model = load()
            self.loaded.append(replace(model, info=replace(model.info, name=name)) if self.names else model)
        return self.loaded[0]

    def pick(self, requests: Sequence[Request], names: Sequence[str | None]) -> list[Any]:
        """The model of every request. Raises ValueError for a name that is not served."""
        for name in names:
            if name is not None and name not in self.names:
                known = f"choose one of {', '.join(self.names)}" if self.names else "there is one model only"
                raise ValueError(f"no model {str(name)[:80]!r} is served here: {known}")
        wanted = [*names, *[None] * (len(requests) - len(names))]
        return [self.loaded[self.names.index(name) if name else 0] for name in wanted]


class EngineDevice:
    """One engine thread owns the device; the model loads in the background while the page is already there."""

    def __init__(self, load: Load, make_engine: Callable[[Any], Any] | None = None) -> None:
        self._models = _Models(load)
        self.names = self._models.names
        self._make_engine = make_engine
        self._ready: Future[tuple[Any, Any]] = Future()

    def start(self) -> None:
        threading.Thread(target=self._prepare, name="load-model", daemon=True).start()

    def model(self, seconds: float | None = None) -> Any:
        try:
            return self._ready.result(seconds)[0]
        except FutureTimeoutError:  # before Python 3.11 not the same as TimeoutError
            raise TimeoutError("the model is still loading") from None

    def run(self, requests: Sequence[Request], models: Sequence[str | None] = (), one_by_one: bool = False) -> Running:
        from videoar.engine import Busy  # loads the whole library, which the page need not wait for

        _, engine = self._ready.result()
        # A film alone is directed while it is made, so it is not made further ahead of its reader than it must be.
        alone = {"unread": _UNREAD} if len(requests) == 1 else {}
        picked = self._models.pick(requests, models)
        keep = _is_whole(picked, requests)
        try:
            session = engine.race(requests, picked, one_by_one=one_by_one, keep=keep, **alone)
            return _EngineRun(session, len(requests))
        except Busy as error:
            raise ValueError(f"the server is busy: {error}") from None

    def close(self) -> None:
        if self._ready.done() and not self._ready.exception():
            self._ready.result()[1].close()

    def _prepare(self) -> None:
        try:
            model = self._models.load()
            if self._make_engine is None:
                from videoar.engine import Engine

                self._make_engine = Engine
            self._ready.set_result((model, self._make_engine(model)))
        except ValueError as error:  # what a person can mend; the page says it as well
            log.error("The model did not load: %s", error)
            self._ready.set_exception(error)
        except Exception as error:
            log.exception("The model did not load.")
            self._ready.set_exception(error)


def _is_long(model: Any, request: Request) -> bool:
    """Whether a film has more than one slab, so that nobody holds it whole."""
    settings = resolve(model, request)
    return settings.unit_total() != len(settings.plan.units)


def _is_whole(models: Sequence[Any], requests: Sequence[Request]) -> bool:
    """Whether the films are kept to be encoded at the end; `app.long` writes the others while they are made."""
    films = zip(models, requests, strict=True)
    return not any(_is_long(model, request) or request.start is not None for model, request in films)


class _EngineRun:
    def __init__(self, session: Any, contenders: int) -> None:
        self._session = session
        self._contenders = contenders

    def __iter__(self) -> Iterator[Message]:
        return messages(self._session, self._contenders)

    def switch(self, prompt: str) -> None:
        self._session.switch(prompt)

    def stop(self) -> None:
        self._session.stop()


class ZeroGpuDevice:
    """A call per run in a process with a GPU. The model loads before launch; yields are bytes, as they are pickled.

    A film that is longer than a few clips is a chain of calls, so that none of them asks for more than a visitor has.
    """

    def __init__(self, load: Load, generate: Callable[..., Iterator[Any]] | None = None) -> None:
        self._models = _Models(load)
        self.names = self._models.names
        self._generate = generate
        self._model: Any = None
        self._call = spaces.GPU(duration=self._seconds)(self._messages)

    def start(self) -> None:
        self._model = self._models.load()
        if self._generate is None:
            from videoar.generate import generate

            self._generate = generate

    def model(self, seconds: float | None = None) -> Any:
        return self._model

    def run(self, requests: Sequence[Request], models: Sequence[str | None] = (), one_by_one: bool = False) -> Running:
        # Here, where a ValueError keeps its sentence; from the other process only its name would come back.
        picked = self._models.pick(requests, models)
        for request, model in zip(requests, picked, strict=True):
            resolve(model, request)
        if len(requests) == 1 and _is_long(picked[0], requests[0]):
            return Legs(lambda leg: self._call([leg], models), picked[0], requests[0])
        return _ZeroGpuRun(self._call(requests, models, one_by_one))

    def close(self) -> None:
        pass

    def _messages(
        self, requests: Sequence[Request], models: Sequence[str | None], one_by_one: bool = False
    ) -> Generator[Message, None, None]:
        from videoar.race import race

        assert self._generate is not None, "start() comes before the first film"
        picked = self._models.pick(requests, models)
        turns = race(picked, requests, self._generate, one_by_one=one_by_one, keep=_is_whole(picked, requests))
        yield from messages(turns, len(requests))

    def _seconds(self, requests: Sequence[Request], models: Sequence[str | None], one_by_one: bool = False) -> int:
        """How long a run may take, which is what a visitor's quota is asked for."""
        films = zip(requests, self._models.pick(requests, models), strict=True)
        return _ZERO_GPU_START_SECONDS + round(sum(self._film_seconds(*film) for film in films))

    def _film_seconds(self, request: Request, model: Any) -> float:
        info = model.info
        guidance = info.guidance_scale if request.guidance_scale is None else request.guidance_scale
        passes = (request.steps or info.steps) * (1 if guidance == 1 else 2) + 1  # and the clean one
        # An estimate with room: 2.5 seconds for a pass of the 1.3B model over 81 frames of 832x480, twice.
        pixels = (request.frames or info.frames) * info.height * info.width
        return 5 * passes * pixels / (81 * 832 * 480)


class _ZeroGpuRun:
    def __init__(self, call: Generator[Message, None, None]) -> None:
        self._call = call
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Message]:
        try:
            for message in self._call:
                if self._stopped.is_set():
                    return
                yield message
        finally:
            self._call.close()

    def switch(self, prompt: str) -> None:
        raise ValueError("this film is too short to change its prompt: choose a longer one")

    def stop(self) -> None:
        self._stopped.set()
