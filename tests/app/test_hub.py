"""The log of a job: replayable, resumable, bounded, and stopped once."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.hub import KEEPALIVE, Hub, Job
from app.wire import unpack


def run(coroutine):
    """Runs it on a loop in another thread: Playwright keeps one running in this one after the first browser test."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def collect(job: Job, start: int = 0) -> list[int]:
    """The numbers of the messages that a reader gets until the job is over."""

    async def read() -> bytes:
        return b"".join([part async for part in job.read(start)])

    return [head["seq"] for head, _ in unpack(run(read()))]


def full_job(messages: int = 5, most_bytes: int = 1 << 20, body: bytes = b"x") -> Job:
    job = Job("page", most_bytes)
    for _ in range(messages):
        job.put({"kind": "paint"}, body)
    job.close()
    return job


def test_a_late_reader_gets_everything():
    assert collect(full_job()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("start", [0, 3, 5, 100, -7])
def test_reading_resumes_where_it_broke_off(start):
    assert collect(full_job(), start) == list(range(max(0, start), 5))


def test_names_cannot_be_guessed():
    names = {Job("page", 1).id for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) >= 32 for name in names)  # 24 random bytes


def test_the_log_is_bounded_and_keeps_its_opening():
    job = full_job(100, most_bytes=5000, body=bytes(500))
    assert job.size <= 5000
    numbers = collect(job)
    assert numbers[0] == 0
    assert numbers[1:] == list(range(100 - len(numbers) + 1, 100))
    assert collect(job, 98) == [98, 99]


def test_two_readers_and_a_writer_in_another_thread():
    job = Job("page", 1 << 20)

    async def read(start: int) -> list[int]:
        data = b"".join([part async for part in job.read(start)])
        return [head["seq"] for head, _ in unpack(data)]

    async def both() -> list[list[int]]:
        writer.start()
        return await asyncio.gather(read(0), read(10))

    def write() -> None:
        for index in range(50):
            job.put({"kind": "paint"}, bytes(index))
            time.sleep(0.001)
        job.close()

    writer = threading.Thread(target=write)
    assert run(both()) == [list(range(50)), list(range(10, 50))]
    writer.join()


def test_a_silent_stream_is_kept_alive():
    job = Job("page", 1 << 20)

    async def first() -> bytes:
        stream = job.read(0, keepalive=0.01)
        part = await anext(stream)
        await stream.aclose()
        return part

    assert run(first()) == KEEPALIVE
    assert not job._readers


def test_stopping_twice_stops_once():
    job, calls = Job("page", 1 << 20), []
    job.on_stop(lambda: calls.append(1))
    job.stop()
    job.stop()
    assert calls == [1]


def test_a_stop_that_came_first_still_counts():
    job, calls = Job("page", 1 << 20), []
    job.stop()
    job.on_stop(lambda: calls.append(1))
    assert calls == [1]


def test_a_finished_job_is_not_stopped():
    job = full_job()
    job.on_stop(lambda: pytest.fail("there is nothing to stop"))
    job.stop()
    assert not job.stopped


def test_waiting_ends_with_the_job():
    job = Job("page", 1 << 20)
    assert not job.wait(0.01)
    threading.Timer(0.05, job.close, [{"status": "done"}]).start()
    assert job.wait(10)
    assert job.outcome == {"status": "done"}


def test_pages_do_not_see_each_other():
    hub = Hub()
    mine, yours = hub.new("mine"), hub.new("yours")
    hub.drop("mine")
    assert mine.stopped
    assert mine.done
    assert hub.get(mine.id) is None
    assert hub.get(yours.id) is yours
    assert hub.of("mine") == []
    assert not yours.stopped


def test_old_jobs_are_forgotten():
    hub = Hub(keep_seconds=0)
    old, running = hub.new("page"), hub.new("page")
    old.close()
    time.sleep(0.01)
    hub.new("page")
    assert hub.get(old.id) is None
    assert hub.get(running.id) is running


def test_jobs_share_a_bound():
    hub = Hub(most_bytes=1000)
    for _ in range(3):
        job = hub.new("page")
        job.put({"kind": "paint"}, bytes(800))
        job.close()
    assert len(hub) == 2  # the last two: the bound is checked when the next one begins


def test_closing_the_hub_ends_everything():
    hub = Hub()
    jobs = [hub.new(name) for name in "abc"]
    hub.close()
    assert all(job.done and job.stopped for job in jobs)
    assert len(hub) == 0
