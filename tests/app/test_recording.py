"""A run as a file: equal after the round trip, replayed at its own pace, and clear about what is wrong with a file."""

from __future__ import annotations

import io
import json
import threading
import zipfile

import gradio as gr
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.export import export_routes, montage, takes
from app.figures import Figures
from app.films import film_so_far
from app.hub import Hub, Job
from app.limits import read_requests
from app.recording import read_recording, replay, save_recording
from app.runs import Runs
from app.wire import messages
from videoar.race import race
from videoar.video import read_settings

from .fake import FakeModel, generate, make_device


@pytest.fixture(scope="module")
def job():
    """A finished comparison, recorded as the page records it."""
    contenders = [{"plan": "cube", "steps": 1}, {"plan": "scale", "steps": 2}]
    asked = read_requests('a "red" ball, ça & <b>', contenders, 7, False)
    job, figures = Job("page", 1 << 28), Figures()
    for head, body in messages(race(FakeModel(0.02), asked, generate), len(asked)):
        figures.add(head)
        if head["kind"] == "film":
            job.films[head["pane"]] = body, head["settings"]
        else:
            job.put(head, body)
    summary = figures.summary(1.5)
    for contender in summary["contenders"]:
        contender["reads"] = [{"attribute": "color", "wanted": "red", "seen": "red", "right": True}]
    job.put({"kind": "over", "status": "done", "summary": summary})
    return job


@pytest.fixture(scope="module")
def saved(job):
    file = io.BytesIO()
    save_recording(file, job.messages(), job.films)
    return file.getvalue()


def rewritten(saved: bytes, change) -> io.BytesIO:
    """The file with `change` applied to its entries (name -> bytes)."""
    with zipfile.ZipFile(io.BytesIO(saved)) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    change(entries)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        for name, data in entries.items():
            new.writestr(name, data)
    file.seek(0)
    return file


def with_head(saved: bytes, number: int, **changes) -> io.BytesIO:
    """The file with other fields in one of its messages."""

    def change(entries):
        said = json.loads(entries["run.json"])
        said["heads"][number] |= changes
        entries["run.json"] = json.dumps(said).encode()

    return rewritten(saved, change)


def first(job, kind: str) -> int:
    return next(head["seq"] for head, _ in job.messages() if head["kind"] == kind)


def test_what_is_read_is_what_was_saved(job, saved, tmp_path):
    (tmp_path / "run.videoar").write_bytes(saved)
    recording = read_recording(tmp_path / "run.videoar")
    assert recording.messages == job.messages()
    assert recording.films == job.films
    assert len(saved) < 1.2 * (job.size + sum(len(film) for film, _ in job.films.values()))


def test_a_saved_run_is_the_same_film(job, saved):
    recording = read_recording(io.BytesIO(saved))
    for pane in (0, 1):
        assert np.array_equal(film_so_far(recording.messages, pane), film_so_far(job.messages(), pane))


def test_a_replay_keeps_the_times(saved, monkeypatch):
    recorded, now = read_recording(io.BytesIO(saved)).messages, [0.0]
    monkeypatch.setattr("app.recording.time.monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    replayed = []
    for message in replay(recorded, wait, speed=2.0):
        assert now[0] == pytest.approx(message[0]["at"] / 2)
        replayed.append(message)
    assert replayed == recorded
    assert now[0] > 0


def test_a_replay_waits_and_can_be_stopped(saved):
    recording = read_recording(io.BytesIO(saved))
    asked = []
    list(replay(recording.messages, asked.append))
    assert sum(asked) > 0
    stop = threading.Event()
    stop.set()
    late = [({**head, "at": head["at"] + 60.0}, body) for head, body in recording.messages]
    assert list(replay(late, stop.wait)) == []
    with pytest.raises(ValueError, match="above 0"):
        replay([], speed=0)


def test_a_run_that_is_not_whole_is_not_saved(job):
    with pytest.raises(ValueError, match="not over yet"):
        save_recording(io.BytesIO(), job.messages()[:-1])
    with pytest.raises(ValueError, match="too long"):
        save_recording(io.BytesIO(), job.messages()[5:])
    with pytest.raises(ValueError, match="made nothing"):
        save_recording(io.BytesIO(), job.messages()[-1:])


def test_files_that_are_no_runs(saved):
    for data in (b"", b"hello", saved[: len(saved) // 2]):
        with pytest.raises(ValueError, match=r"no whole \.videoar file"):
            read_recording(io.BytesIO(data))
    with pytest.raises(ValueError, match=r"no run\.json"):
        read_recording(rewritten(saved, dict.clear))
    for text, message in (
        (b"{", "is damaged"),
        (b"[" * 10**5, "is damaged"),
        (b"[]", "does not say 'videoar run'"),
        (b'{"format": "videoar run", "version": 2}', "has version 2"),
        (b'{"format": "videoar run", "version": 1}', "no list of messages"),
    ):
        with pytest.raises(ValueError, match=message):
            read_recording(rewritten(saved, lambda entries, text=text: entries.update({"run.json": text})))


def test_a_changed_byte_is_found(saved):
    place = saved.index(b"\xff\xd8\xff") + 200  # within the first picture
    damaged = saved[:place] + bytes([saved[place] ^ 255]) + saved[place + 1 :]
    with pytest.raises(ValueError, match="CRC"):
        read_recording(io.BytesIO(damaged))


def test_missing_and_wrong_pictures_are_named(job, saved):
    name = f"pictures/{first(job, 'paint'):06}-000.jpg"
    size = len(zipfile.ZipFile(io.BytesIO(saved)).read(name))
    for change, message in (
        (lambda entries: entries.pop(name), "There is no item named 'pictures"),
        (lambda entries: entries.update({name: b"x"}), "has 1 bytes instead of"),
        (lambda entries: entries.update({name: b"x" * size}), "is no JPEG picture"),
        (lambda entries: entries.pop("films/1.mp4"), "films/1.mp4"),
    ):
        with pytest.raises(ValueError, match=message):
            read_recording(rewritten(saved, change))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("clip", {"panes": []}),
        ("clip", {"panes": [{"label": "a"}]}),
        ("unit", {"kind": "clip"}),
        ("unit", {"kind": "alive"}),
        ("unit", {"kind": ["unit"]}),
        ("unit", {"pane": 2}),
        ("unit", {"pane": True}),
        ("unit", {"region": [0, 0, 1]}),
        ("paint", {"sizes": "12"}),
        ("paint", {"sizes": [-1]}),
        ("paint", {"preview": "yes"}),
        ("done", {"seconds": [0, 0, 0, float("nan")]}),
        ("step", {"at": -1.0}),
        ("step", {"at": 1e300}),
        ("step", {"seq": 0}),
        ("end", {"clock": None}),
        ("over", {"summary": None}),
        ("over", {"status": "lost"}),
    ],
)
def test_messages_that_no_player_could_use_are_refused(job, saved, kind, changes):
    number = first(job, kind)
    with pytest.raises(ValueError, match=f"message {number} of the run is damaged"):
        read_recording(with_head(saved, number, **changes))


def test_the_film_of_a_run_shows_what_its_panes_showed(job):
    recorded = takes(job.messages())
    assert [take.units for take in recorded] == [8, 3]
    film = montage(job.messages(), "film")
    width, height = film._cell
    picture = film._panes[1].picture(0.0)[round(1.5 * film._font) :][:height, :width]
    shown = np.asarray(picture[::2, ::2], dtype=float)
    assert np.abs(shown - film_so_far(job.messages(), 1)[0]).mean() < 12
    assert film.settings()["comparison"][0]["seed"] == 7
    with pytest.raises(ValueError, match="nothing to compare"):
        montage([])


def test_settings_that_could_name_other_files_are_refused(job, saved):
    panes = job.messages()[0][0]["panes"]
    panes[0]["settings"]["plan"] = "../../cube"
    with pytest.raises(ValueError, match="message 0 of the run is damaged"):
        read_recording(with_head(saved, 0, panes=panes))

    def change(entries):
        said = json.loads(entries["run.json"])
        said["films"]["1"]["plan"] = "/etc/cube"
        entries["run.json"] = json.dumps(said).encode()

    with pytest.raises(ValueError, match="a film of contender '1' that does not belong"):
        read_recording(rewritten(saved, change))


class Visitor:
    session_hash = "page"


@pytest.fixture
def runs():
    device = make_device()  # never started: a replay needs no model
    return Runs(device, Hub())


def test_the_page_replays_a_saved_run(job, saved, runs, tmp_path):
    path = tmp_path / "run.videoar"
    path.write_bytes(saved)
    shown = list(runs.open_file(str(path), Visitor()))
    again = runs._hub.of("page")[0]

    def without_times(messages):
        return [({k: v for k, v in head.items() if k not in ("at", "summary")}, body) for head, body in messages]

    assert without_times(again.messages()) == without_times(job.messages())
    for (head, _), (once, _) in zip(again.messages()[:-1], job.messages(), strict=False):
        assert head["at"] >= once["at"] - 1e-3
    summary, before = shown[-1][0]["summary"], job.messages()[-1][0]["summary"]
    assert {**summary, "seconds": 0} == {**before, "seconds": 0}
    assert again.films == job.films
    assert len(shown[-1][1]) == 2


def test_a_replay_can_be_stopped(saved, runs):
    recording = read_recording(io.BytesIO(saved))
    late = [
        ({**head, "at": head["at"] + (60.0 if i > 4 else 0)}, body) for i, (head, body) in enumerate(recording.messages)
    ]
    again = runs._hub.new("page")
    thread = threading.Thread(target=runs._play, args=(again, type(recording)(late, recording.films)))
    thread.start()
    again.stop()
    thread.join(10)
    assert again.done
    assert again.outcome["status"] == "stopped"
    assert not again.films


def test_a_file_that_is_no_run_is_explained(runs, tmp_path):
    path = tmp_path / "run.videoar"
    path.write_bytes(b"hello")
    with pytest.raises(gr.Error, match=r"This is no whole \.videoar file"):
        next(runs.open_file(str(path), Visitor()))


def test_the_page_offers_a_run_as_files(job, saved, tmp_path):
    hub = Hub()
    hub._jobs = {job.id: job}
    client, base = TestClient(Starlette(routes=export_routes(hub))), f"/gradio_api/units/{job.id}"
    assert read_recording(io.BytesIO(client.get(f"{base}/run.videoar").content)).messages == job.messages()
    answer = client.get(f"{base}/film.mp4?sync=film")
    assert answer.headers["content-disposition"] == 'attachment; filename="videoar-film.mp4"'
    (tmp_path / "film.mp4").write_bytes(answer.content)
    assert read_settings(tmp_path / "film.mp4")["comparison"][1]["plan"] == "scale:3"
    assert "synchronised by" in client.get(f"{base}/film.mp4?sync=never").json()["error"]
    for path in (f"{base}/film.avi", f"{base}/run.json", "/gradio_api/units/nobody/run.videoar"):
        assert client.get(path).status_code == 404
    fresh = hub.new("page")
    for name in ("run.videoar", "film.gif"):
        answer = client.get(f"/gradio_api/units/{fresh.id}/{name}")
        assert (answer.status_code, "not over yet" in answer.json()["error"]) == (409, True)
