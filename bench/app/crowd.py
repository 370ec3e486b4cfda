"""Twenty viewers at once, then more than the queue holds: does everybody get the own film or a clear no, and does the
server answer others meanwhile and forget it all afterwards?"""

from __future__ import annotations

import hashlib
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psutil

from app.hub import KEEPALIVE
from app.wire import jpeg, unpack
from bench.serving import serving
from videoar.plan import picture_range
from videoar.video import read_settings

from .scripted import TEXTURES, ScriptedModel, command, make_textures, stamped

_PLAN, _STEPS = "frame:1", 4
_PROBE_EVERY_S = 0.1
_FILM_TIMEOUT_S = 120.0
_SETTLE_S = 30.0
_SETTLED_MB = 1.0
_BUSY = ("queue is full", "busy")


def measure(viewers: int = 20, too_many: int = 40) -> dict[str, Any]:
    """Outcomes, latencies and memory. too_many: viewers of a second crowd, for which the queue has no room."""
    model = ScriptedModel(unit_s=0.1)
    with serving(command(model)) as (url, server), ThreadPoolExecutor(too_many) as pool:
        memory = psutil.Process(server.pid)
        _crowd(url, model, viewers, pool)  # what is loaded and allocated once does not count
        before = _settled(memory)
        with _probing(url) as quiet:
            time.sleep(5)
        with _probing(url) as busy, _peak(memory) as peak:
            outcomes = _crowd(url, model, viewers, pool)
        after = _settled(memory)
        flood = _crowd(url, model, too_many, pool)
        after_flood = _settled(memory)
        again = dict(Counter(_crowd(url, model, 2, pool)))
    return {
        "viewers": viewers,
        "outcomes": dict(Counter(outcomes)),
        "page_ms": latency(busy["page"]),
        "light_endpoint_ms": latency(busy["light"]),
        "page_alone_ms": latency(quiet["page"]),
        "light_endpoint_alone_ms": latency(quiet["light"]),
        "too_many": too_many,
        "outcomes_of_too_many": dict(Counter(flood)),
        "outcomes_afterwards": again,
        "memory_mb": {"before": before, "peak": peak[0], "after": after, "after_too_many": after_flood},
        "memory_growth_percent": round(100 * (after / before - 1), 2),
    }


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum in milliseconds."""
    if len(seconds) < 2:
        return {"count": len(seconds)}
    p95 = statistics.quantiles(seconds, n=20)[-1]
    named = {"median": statistics.median(seconds), "p95": p95, "max": max(seconds)}
    return {"count": len(seconds)} | {name: round(1000 * value, 1) for name, value in named.items()}


def expected_pictures(model: ScriptedModel, seed: int) -> str:
    """The hash of all pictures of a film, as the page gets them."""
    textures, pictures = make_textures(seed, model.width, model.height), hashlib.sha256()
    for latent in range(model.grid(model).T):
        for t in range(*picture_range(latent, latent + 1)):
            pictures.update(jpeg(stamped(textures[t % TEXTURES], seed, t)))
    return pictures.hexdigest()


def _crowd(url: str, model: ScriptedModel, viewers: int, pool: ThreadPoolExecutor) -> list[str]:
    """What became of each viewer: "film", "busy", or what went wrong."""
    from gradio_client import Client

    clients = list(pool.map(lambda _: Client(url, verbose=False), range(viewers)))
    together = threading.Barrier(viewers)

    def view(number: int) -> str:
        together.wait()
        try:
            return _view(clients[number], url, model, 1000 + number)
        except Exception as error:
            text = str(error)
            return "busy" if any(word in text.lower() for word in _BUSY) else f"{type(error).__name__}: {text[:200]}"

    try:
        return list(pool.map(view, range(viewers)))
    finally:
        for client in clients:
            client.close()


def _view(client: Any, url: str, model: ScriptedModel, seed: int) -> str:
    """One viewer: asks for a film, follows its stream, gets the file, and checks that all is the own one."""
    prompt = f"the film of viewer {seed}"
    asked = {"prompt": prompt, "plan": _PLAN, "steps": _STEPS, "seed": seed, "randomise": False}
    job = client.submit(**asked, api_name="/generate")
    began = time.monotonic()
    while not job.outputs() and not job.done():
        if time.monotonic() - began > _FILM_TIMEOUT_S:
            return "no answer"
        time.sleep(0.02)
    if not job.outputs():
        job.result()  # raises what went wrong
    name = job.outputs()[0][0]["job"]
    data = httpx.get(f"{url}/gradio_api/units/{name}", timeout=_FILM_TIMEOUT_S).content
    messages = list(unpack(data.replace(KEEPALIVE, b"")))
    opening = next(head for head, _ in messages if head["kind"] == "clip")["panes"]
    pictures = hashlib.sha256(b"".join(body for head, body in messages if head["kind"] == "paint"))
    _, used_seed, film, settings = job.result(timeout=_FILM_TIMEOUT_S)
    file = film["video"] if isinstance(film, dict) else film
    wanted = {"prompt": prompt, "seed": seed, "plan": _PLAN, "steps": _STEPS}
    told = opening[0]["settings"], settings, read_settings(file)
    same = (
        all(each is not None and wanted.items() <= each.items() for each in told)
        and len(opening) == 1
        and used_seed == seed
    )
    return "film" if same and pictures.hexdigest() == expected_pictures(model, seed) else "another's film"


@contextmanager
def _meanwhile(every_s: float, act: Callable[[], None]) -> Iterator[None]:
    """Acts over and over on a thread of its own."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every_s):
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _probing(url: str) -> Iterator[dict[str, list[float]]]:
    """Asks for the page and for something light, over and over: seconds each."""
    found: dict[str, list[float]] = {"page": [], "light": []}
    with httpx.Client(timeout=60) as client:

        def probe() -> None:
            for name, path in (("page", "/"), ("light", "/gradio_api/units/none")):
                begin = time.perf_counter()
                client.get(url + path)
                found[name].append(time.perf_counter() - begin)

        with _meanwhile(_PROBE_EVERY_S, probe):
            yield found


@contextmanager
def _peak(process: psutil.Process) -> Iterator[list[float]]:
    """The most resident memory in MB, in a list of one."""
    most = [0.0]

    def look() -> None:
        most[0] = max(most[0], round(_mb(process), 1))

    with _meanwhile(0.2, look):
        yield most


def _settled(process: psutil.Process) -> float:
    """Resident memory in MB once it has not moved for three seconds, or after half a minute."""
    begin, last, since = time.monotonic(), _mb(process), time.monotonic()
    while time.monotonic() - begin < _SETTLE_S and time.monotonic() - since < 3:
        time.sleep(0.2)
        if abs(_mb(process) - last) > _SETTLED_MB:
            last, since = _mb(process), time.monotonic()
    return round(_mb(process), 1)


def _mb(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20
