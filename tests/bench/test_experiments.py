"""Experiments train their arms once, go on where they stopped, and the report says no more than the file."""

import json

import numpy as np
import pytest

from bench import experiments
from bench.experiments_report import report
from train.presets import SMOKE
from train.stages import STAGES
from train.workshop import Workshop
from videoar.evaluate.seams import borders, seam_ratio
from videoar.plan import Grid, PlanSpec


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    workshop = Workshop(SMOKE, folder, threads=1)
    for stage in ("text", "linear", "data", "base"):
        STAGES[stage](workshop, lambda row: None)
    return folder


def test_arms_are_trained_and_measured_once(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "glance", lambda clip, things: ("night", ("red",)))
    monkeypatch.setattr(experiments, "REAL", 24)
    out, docs = tmp_path / "experiments.json", tmp_path / "experiments.md"

    def run(*more):
        return experiments.main(
            ["--preset", "smoke", "--runs", str(runs), "--clips", "20", "--out", str(out), "--docs", str(docs), *more]
        )

    assert run("scorers", "--seeds", "1") == 0
    first = json.loads(out.read_text())
    stages = [(r["stage"], r["scorers"], r["sampler"]) for r in first["records"]]
    assert sorted(map(str, stages)) == sorted(map(str, {*stages}))
    assert {s for stage, s, _ in stages if stage == "dmd"} == {"full", "forward", "backward", "both"}
    text = docs.read_text()
    assert "too few seeds to say" in text
    assert "84.87" in text

    monkeypatch.setattr(experiments, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    assert run("scorers", "--seeds", "1") == 0
    assert json.loads(out.read_text())["records"] == first["records"]
    with pytest.raises(ValueError, match="of another base"):
        run("scorers", "--seeds", "1", "--clips", "21")
    out.unlink()
    assert run("scorers", "--seeds", "1") == 0  # the arms' folders are enough
    again = json.loads(out.read_text())["records"]
    assert [r["figures"] for r in again] == [r["figures"] for r in first["records"]]


def test_bad_input_is_named(tmp_path):
    for wrong, said in ((["seeds"], "no table seeds"), (["--clips", "3"], "20 films"), (["--report"], "nothing")):
        with pytest.raises(ValueError, match=said):
            experiments.main([*wrong, "--out", str(tmp_path / "none.json"), "--docs", str(tmp_path / "none.md")])


def records(plan, frechet, **more):
    made = {"plan": plan, "stage": "dmd", "scorers": "both", "sampler": "few_step", "steps": 4, **more}
    figures = {"scene": 0.5, "color": 0.5, "energy": 1.0, "seams": None}
    about = {"hardware": "a machine", "commit": "abc"}
    return [made | about | {"seed": s, "figures": figures | {"frechet": f}} for s, f in enumerate(frechet)]


def test_the_report_calls_a_difference_inside_the_interval_a_tie():
    recipe = {
        "preset": "tiny",
        "clip": "a clip",
        "base_steps": 1,
        "clips": 20,
        "transformer": {"layers": 1, "width": 1},
    }
    recipe |= {"causal": {"steps": 1}, "dmd": {"steps": 1, "batch": 1}}
    cube = records("cube:2x2x2", (1.0, 2.0, 3.0))
    better, same = records("frame", (2.0, 3.0, 4.1)), records("scale:3", (3.0, 1.0, 2.5))
    text = report({"recipe": recipe, "records": [*cube, *better, *same]})
    assert "against frame (the paper: +1.15 for cube:2x2x2): -1.03 ± 0.03, **nearer to real clips**" in text
    assert "against scale:3 (the paper: +0.36 for cube:2x2x2): -0.17 ± 0.93, **a tie**" in text
    assert "Not measured yet." in report({"recipe": recipe, "records": []})


def test_seams_are_found_where_the_plan_cuts():
    plan = PlanSpec("cube", (2, 2, 2)).build(Grid(4, 4, 4))
    assert borders(plan, (8, 8)) == ([16], [16])
    smooth = np.broadcast_to((np.arange(32) * 4)[None, None, :, None], (3, 32, 32, 3)).astype(np.uint8)
    assert seam_ratio(smooth, plan, (8, 8)) == pytest.approx(1.0, abs=0.05)
    cut = smooth.copy()
    cut[:, 16:] += 60
    assert seam_ratio(cut, plan, (8, 8)) > 5
    assert seam_ratio(cut, PlanSpec("frame").build(Grid(4, 4, 4)), (8, 8)) is None
    assert seam_ratio(np.zeros_like(cut), plan, (8, 8)) is None
