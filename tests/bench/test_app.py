"""The benchmark of the page: what it makes of what it saw, and the films that it shows."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from app.wire import jpeg, messages
from app.wire import pictures as unpacked
from bench import app as bench_app
from bench.app import crowd, endless, fairness, latency
from bench.app.scripted import LEVELS, SQUARE, ScriptedModel, generate, make_textures, stamped
from videoar.events import ClipFinished, Turn, UnitDecoded, UnitStarted
from videoar.generate import Request
from videoar.race import race


def read_stamp(picture: np.ndarray) -> list[int]:
    return [int(picture[SQUARE // 2, SQUARE * i + SQUARE // 2].mean()) // LEVELS for i in range(4)]


def test_stamps_survive_the_wire():
    textures = make_textures(3, 832, 480)
    for clip, number in ((0, 0), (15, 255), (7, 300)):
        sent = jpeg(stamped(textures[0], clip, number))
        digits = [clip, number % 256 // 16, number % 16]
        assert read_stamp(unpacked([len(sent)], sent)[0]) == [*digits, sum(digits) % 16]


def test_scripted_films_are_whole_and_their_hash_is_known():
    model = ScriptedModel(unit_s=0.0, width=64, height=64, frames=13)
    turns = list(race(model, [Request("a film", "frame:1", seed=21)], generate))  # type: ignore[arg-type]
    film = turns[-1].event.video
    assert film.shape == (13, 64, 64, 3)
    bodies = b"".join(body for head, body in messages(iter(turns)) if head["kind"] == "paint")
    assert crowd.expected_pictures(model, 21) == hashlib.sha256(bodies).hexdigest()
    assert crowd.expected_pictures(model, 22) != crowd.expected_pictures(model, 21)


def test_an_endless_script_goes_on_and_holds_nothing():
    events = generate(
        ScriptedModel(unit_s=0.0, width=32, height=32), Request("a film", "frame:1", seed=1, endless=True)
    )
    decoded = [event for event, _ in zip(events, range(400), strict=False) if isinstance(event, UnitDecoded)]
    firsts = [event.patches[0].first_frame for event in decoded]
    assert firsts == [0, *range(1, 4 * len(decoded) - 4, 4)]


def test_the_time_of_a_unit_is_split_into_stages():
    marks = []
    for unit in range(5):
        marks += [
            {"what": "yielded", "clip": 4, "unit": unit, "at": unit + 0.1},
            {"what": "encoded", "pane": 0, "unit": unit, "at": unit + 0.107},
            {"what": "cost", "pane": 0, "unit": unit, "encode_s": 0.005},
            {"what": "sent", "pane": 0, "unit": unit, "at": unit + 0.108, "pictures": 4, "bytes": 100 * (unit + 1)},
        ]
    seen = {
        "arrived": [[100 * (unit + 1), 1000 * unit + 111] for unit in range(5)],
        "decoded": [1000 * unit + 112 + picture for unit in range(5) for picture in range(4)],
        "shown": [[0, unit, 1000 * unit + 130] for unit in (0, 1, 2, 4)],  # 3 was replaced before it could be seen
    }
    rows = latency.join(marks, seen)
    assert len(rows) == 2  # the first three warm up
    assert rows[1] == pytest.approx(
        {"encode": 5, "queue": 2, "send": 1, "wire": 3, "decode": 4, "paint": 15, "total": 30}, abs=1e-6
    )
    assert rows[0]["total"] == pytest.approx(1030)
    summary = latency.summarise(rows, 4)
    assert (summary["units"], summary["missing"]) == (2, 2)
    assert summary["median_ms"] == pytest.approx(530)
    assert latency.summarise([], 4) == {"units": 0, "missing": 4}


def test_gaps_and_growth_are_summed_up():
    found = {"pictures": 101, "skipped": 1, "unread": 0, "gaps": {"62": 99, "160": 1, "70": 1}, "long": [[2000, 160]]}
    summary = endless.gaps(found)
    assert (summary["gap_median_ms"], summary["gap_longest_ms"]) == (62, 160)
    assert summary["gaps_above_150_ms"] == [[2000, 160]]
    flat = {"server_mb": 500.0, "renderer_mb": 100.0, "browser_mb": 300.0}
    samples = [
        {"at_s": 5.0 * i, **flat, "heap_mb": 30.0 + i % 3 + (5 if i < 12 else 0) + i / 100} for i in range(1, 121)
    ]
    memory = endless.growth(samples)
    assert memory["server_mb"] == {"before": 500.0, "after": 500.0, "growth_percent": 0.0}
    assert memory["heap_mb"]["before"] == 30.1
    assert memory["heap_mb"]["growth_percent"] == pytest.approx(100 * (31.08 / 30.12 - 1), abs=0.1)
    assert endless.growth([]) == {}


def test_leads_are_those_of_contenders_that_still_run():
    def unit(contender, begins, ends):
        yield Turn(contender, UnitStarted(0, 1, None, (0, 0, 1, 1), (0, 1)), begins)  # type: ignore[arg-type]
        yield Turn(contender, UnitDecoded(0, 1, (), 0.0, 0.0, 0.0), ends)

    turns = [*unit(0, 0.0, 0.3), *unit(1, 0.0, 0.5), Turn(0, ClipFinished(0, 1, 1.0, 0.1, np.empty(0)), 0.4)]
    turns += unit(1, 0.5, 2.0)  # alone by now
    found = fairness.leads(turns)
    assert (found["contenders"], found["worst_lead_s"], found["longest_unit_s"]) == (2, 0.3, 1.5)
    assert found["worst_lead_units"] == 0.2


def test_the_models_race_is_measured(tiny_model, monkeypatch):
    monkeypatch.setattr(fairness, "load_model", lambda path: tiny_model)
    monkeypatch.setattr(fairness, "PLANS", ("cube", "full"))
    found = fairness.measure(repetitions=1)
    assert found["contenders"] == 2
    assert found["worst_lead_units"] < 1
    assert 0 < found["outside_percent"]["median"] < 100
    assert 0 < found["outside_percent_of_page"]["median"] < 100


def test_parts_are_merged_and_a_failure_keeps_the_others(tmp_path, monkeypatch, capsys):
    def fails(args):
        raise OSError("no port")

    parts = {"latency": lambda args: {"median_ms": args.units}, "crowd": fails, "endless": lambda args: {}}
    monkeypatch.setattr(bench_app, "PARTS", parts)
    out = tmp_path / "app.json"
    assert bench_app.main(["--only", "latency", "--units", "7", "--out", str(out)]) == 0
    assert bench_app.main(["--out", str(out), "--only", "crowd", "endless"]) == 1
    result = json.loads(out.read_text())
    assert result["latency"]["median_ms"] == 7
    assert result["crowd"]["error"] == "OSError: no port"
    assert "no browser" in result["endless"]["error"]
    assert all({"commit", "hardware", "load_average_before"} <= set(part) for part in result.values())
    with pytest.raises(ValueError, match="--minutes is at least"):
        bench_app.main(["--minutes", "nan"])
    capsys.readouterr()


def test_a_busy_machine_is_named():
    found = {"load_average_before": [1.9, 1.0, 1.0], "cores": 2, "median_ms": 3}
    assert "no figures" in bench_app.lines("latency", found)[0]
    quiet = bench_app.lines("latency", found | {"load_average_before": [0.1, 1.0, 1.0]})
    assert "no figures" not in quiet[0]
    assert quiet[1].split() == ["median_ms", "3"]
