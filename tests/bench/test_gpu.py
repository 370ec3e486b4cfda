"""The GPU benchmark: a run at a tiny shape, and with made-up films what it does when time or memory runs out."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json

import pytest
import torch

from bench import films, gpu
from bench.films import Film
from tests.bench.tiny import TINY
from videoar.tiny_decoder import TinyDecoder

CASES = (("frame", None), ("frame", 2), ("cube:1x2x1", None))
ROUNDING = 5e-4  # of a figure of four digits


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the benchmark at the tiny shape: returns a function of more arguments that gives the exit code and result."""
    monkeypatch.setattr(gpu, "SMALL", TINY)
    monkeypatch.setattr(gpu, "CASES", CASES)
    out = tmp_path / "gpu.json"

    def benchmark(*more, clock=None):
        code = gpu.main(["--device", "cpu", "--dtype", "float32", "--out", str(out), *more], clock)
        return code, json.loads(out.read_text())

    return benchmark


class Studio:
    """In the place of `film`, with a clock of its own: a step or a clean pass takes a second, a guided step two.

    Decoding takes three, with the tiny decoder one. slow: plans that take ten times as long. fails: by plan what films
    of the usual length raise. patience: after how many films somebody presses Ctrl-C.
    """

    def __init__(self, slow=(), fails=None, patience=10**9):
        self.now, self.slow, self.fails, self.patience = 0.0, slow, fails or {}, patience
        self.made = []

    def clock(self):
        return self.now

    def film(self, model, request, check):
        self.made.append(request)
        if len(self.made) > self.patience:
            raise KeyboardInterrupt
        if request.plan in self.fails and request.frames is None:
            raise self.fails[request.plan]
        passes = request.steps * 2 if request.guidance_scale else (request.steps or model.info.steps) + 1
        diffusion = passes * (10 if request.plan in self.slow else 1)
        decode = 3 if model.decoder is None else int(isinstance(model.decoder, TinyDecoder))
        for _ in range(diffusion + decode):
            self.now += 1
            check()
        return Film(TINY.frames, float(diffusion + decode), 1.0, float(decode), (float(diffusion),))


@pytest.fixture
def studio(monkeypatch):
    """Return a function that puts a studio in the place of real films."""

    def build(**settings):
        made = Studio(**settings)
        monkeypatch.setattr(films, "film", made.film)
        return made

    return build


def names(rows):
    return [(row["plan"], row["window"]) for row in rows]


def test_a_run_at_a_tiny_shape(run, capsys):
    code, result = run("--runs", "2", "--full-steps", "3")
    assert code == 0
    assert (result["shape"], result["weights"], result["attention"]) == ("tiny", "random", "sdpa")
    assert result["complete"]
    assert result["left_out"] == []
    full = result["full"]
    assert (full["units"], full["steps"], full["measured_steps"]) == (1, 50, 3)
    assert full["diffusion_s"] == pytest.approx(full["measured_diffusion_s"] * 50 / 3, rel=2 * ROUNDING)
    assert names(result["plans"]) == list(CASES)
    for row in result["plans"]:
        assert row["runs"] == row["runs_end_to_end"] == row["runs_tiny_decoder"] == 2
        assert row["diffusion_fps"] == pytest.approx(9 / row["diffusion_s"], rel=2 * ROUNDING)
        assert row["unit_s_median"] <= row["unit_s_p95"]
        assert row["ratio_to_full"] == pytest.approx(full["diffusion_s"] / row["diffusion_s"], rel=3 * ROUNDING)
        expected = full["end_to_end_s"] / row["end_to_end_s"]
        assert row["ratio_to_full_end_to_end"] == pytest.approx(expected, rel=3 * ROUNDING)
    assert capsys.readouterr().out.count("\n") == 2 + 1 + 3 + 1


def test_what_cannot_be_used_is_told(run):
    with pytest.raises(ValueError, match="--plan is one of cube:1x2x1, frame"):
        run("--plan", "spiral")
    for given in (("--runs", "0"), ("--full-steps", "0")):
        with pytest.raises(ValueError, match="at least 1"):
            run(*given)
    for seconds in ("0", "-5", "nan"):
        with pytest.raises(ValueError, match="--budget"):
            run("--budget", seconds)


def test_the_whole_clip_is_scaled_to_fifty_steps_and_decoded_once(run, studio):
    studio()
    full = run("--full-steps", "10")[1]["full"]
    assert (full["steps"], full["measured_steps"], full["runs"]) == (50, 10, 1)
    assert (full["measured_diffusion_s"], full["measured_end_to_end_s"]) == (20.0, 23.0)
    assert (full["diffusion_s"], full["decode_s"], full["end_to_end_s"]) == (100.0, 3.0, 103.0)
    assert full["end_to_end_fps_tiny_decoder"] == pytest.approx(TINY.frames / 101, rel=ROUNDING)


def test_ratios_are_those_of_the_scaled_clip(run, studio):
    studio()
    for row in run("--full-steps", "7")[1]["plans"]:
        assert row["ratio_to_full"] == pytest.approx(100 / 5)
        assert row["ratio_to_full_end_to_end"] == pytest.approx(103 / 8, rel=ROUNDING)


def test_without_a_budget_everything_is_measured_in_full(run, studio):
    made = studio()
    _, result = run()
    assert result["full"]["measured_steps"] == 50
    assert [row["runs"] for row in result["plans"]] == [3, 3, 3]
    assert len(made.made) == 2 + 3 + 3 * (1 + 3 * 3)  # warm-ups: two decoders together, then once a row


def test_a_budget_is_kept_and_every_row_accounted_for(run, studio, capsys):
    runs = []
    for seconds in range(4, 400, 18):
        made = studio()
        code, result = run("--budget", str(seconds), clock=made.clock)
        assert code == 0
        assert made.now <= seconds
        assert result["complete"]
        rows = [result["full"]] if result["full"] else []
        assert sorted(row["plan"] for row in rows + result["plans"] + result["left_out"]) == sorted(
            ["full", *(plan for plan, _ in CASES)]
        )
        shown = capsys.readouterr().out.splitlines()
        assert len([line for line in shown if "s expected" in line]) == len(result["left_out"])
        runs.append([row["runs"] for row in result["plans"]])
    assert runs[0] == []
    assert [1, 1, 1] in runs  # fewer films of each rather than fewer rows
    assert runs[-1] == [3, 3, 3]


def test_the_most_telling_rows_come_first():
    assert gpu.CASES[:2] == (("cube:2x2x2", None), ("frame:3", 12))
    assert len(set(gpu.CASES)) == 7


def test_rows_that_do_not_fit_are_named(run, studio, capsys):
    made = studio()
    _, result = run("--budget", "85", clock=made.clock)
    assert result["full"]["measured_steps"] == 10
    assert names(result["plans"]) == [CASES[0], CASES[1]]
    assert [row["runs_tiny_decoder"] for row in result["plans"]] == [1, 0]
    assert "end_to_end_fps_tiny_decoder" not in result["plans"][1]  # there was no time for that film
    (row,) = result["left_out"]
    assert (row["plan"], row["window"], row["begun"]) == (*CASES[2], False)
    assert row["expected_s"] >= row["left_s"]
    assert "cube:1x2x1, window all      left out: " in capsys.readouterr().out


def test_the_whole_clip_takes_half_of_the_time_at_most(run, studio):
    made = studio()
    _, result = run("--budget", "41", "--full-steps", "50", clock=made.clock)
    # Of 36 seconds 8 + 4 warm up; a half of the 24 that are left is 6 steps of two seconds.
    assert made.made[2].steps == 2
    assert result["full"]["measured_steps"] == 6
    assert result["full"]["diffusion_s"] == 100.0


def test_a_row_that_is_slower_than_expected_keeps_what_it_has(run, studio):
    made = studio(slow=("frame:1",))
    _, result = run("--budget", "150", "--plan", "frame", clock=made.clock)
    assert made.now <= 150
    row, *others = result["plans"]
    assert not others
    assert (row["runs"], row["diffusion_s"], row["ratio_to_full"]) == (1, 50.0, 2.0)
    assert row["runs_tiny_decoder"] == 0
    assert names(result["left_out"]) == [("frame", 2)]


def test_a_row_that_is_stopped_before_its_first_film_is_named(run, studio, capsys):
    made = studio(slow=("frame:1",))
    _, result = run("--budget", "90", "--plan", "frame", clock=made.clock)
    assert made.now <= 90
    assert result["plans"] == []
    assert [row["begun"] for row in result["left_out"]] == [True, False]
    assert "stopped, slower than expected" in capsys.readouterr().out


def test_a_budget_ends_real_films_in_the_middle(run, monkeypatch):
    """Every look at the clock comes a second later, and nothing is expected to take any time."""
    film, begun = films.film, []

    def at_once(model, request, check):
        made = film(model, request, check)
        return dataclasses.replace(made, decode_s=0.0, units=(1e-9,) * len(made.units))

    monkeypatch.setattr(films, "film", at_once)
    for seconds in (5, 50, 60, 70):
        code, result = run("--budget", str(seconds), "--full-steps", "2", clock=itertools.count().__next__)
        assert code == 0
        assert result["complete"]
        assert sorted(names(result["plans"] + result["left_out"]), key=str) == sorted(
            [*CASES] if result["full"] else [("full", None), *CASES], key=str
        )
        begun += [row["begun"] for row in result["left_out"]]
    assert any(begun)


def test_what_is_finished_is_on_the_disk_when_the_benchmark_is_stopped(run, studio, tmp_path):
    films_of_rows = [0, 2 + 3, 2 + 3 + 10, 2 + 3 + 20]
    for finished, patience in enumerate(films_of_rows):
        studio(patience=patience)
        with pytest.raises(KeyboardInterrupt):
            run()
        result = json.loads((tmp_path / "gpu.json").read_text())
        assert result["shape"] == "tiny"
        assert not result["complete"]
        assert (result["full"] is not None) == (finished > 0)
        assert names(result["plans"]) == list(CASES[: max(0, finished - 1)])
        assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def test_a_row_that_fails_says_why_and_the_next_one_follows(run, studio, capsys):
    studio(fails={"frame:1": torch.OutOfMemoryError("CUDA out of memory.\nMuch more about it.")})
    code, result = run()
    assert code == 0
    failed = {"plan": "frame", "error": "OutOfMemoryError: CUDA out of memory."}
    assert result["plans"][:2] == [failed | {"window": None}, failed | {"window": 2}]
    assert result["plans"][2]["runs"] == 3
    assert result["complete"]
    assert "failed: OutOfMemoryError: CUDA out of memory.\n" in capsys.readouterr().out


def test_without_the_whole_clip_there_is_no_ratio(run, studio):
    studio(fails={"full": RuntimeError("no kernel image")})
    _, result = run()
    assert result["full"] == {"plan": "full", "error": "RuntimeError: no kernel image"}
    assert [row["diffusion_s"] for row in result["plans"]] == [5.0, 5.0, 5.0]
    assert not any("ratio_to_full" in row for row in result["plans"])


def test_a_result_that_cannot_be_written_is_told_and_the_benchmark_goes_on(run, studio, monkeypatch, capsys):
    studio()
    write, full_disks = gpu.write_result, [False, True, True, False, True, False]

    def sometimes(name, result, path):
        if full_disks.pop(0):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(name, result, path)

    monkeypatch.setattr(gpu, "write_result", sometimes)
    code, result = run()
    assert (code, full_disks, len(result["plans"])) == (0, [], 3)
    assert capsys.readouterr().err.count("could not be written: [Errno 28] No space left on device") == 3
    full_disks[:] = [True] * 6
    assert run()[0] == 1
    assert len(capsys.readouterr().out.splitlines()) == 2 + 1 + 3  # every row is shown nevertheless
