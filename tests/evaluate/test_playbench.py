"""Scores, the evaluation's rows, its intervals, and going on after a stop."""

import dataclasses
import json
import random
import xml.etree.ElementTree

import numpy as np
import pytest
import torch

from tests.videoar.tiny import make_model
from videoar.evaluate import main
from videoar.evaluate.detect import Seen, SeenThing
from videoar.evaluate.playbench import SUMS, codec_psnr, evaluate, fingerprint, held_out_cases, psnr, summarise
from videoar.evaluate.quality import QUALITY
from videoar.evaluate.score import DIMENSIONS, match, score, verdict
from videoar.playworld import Attributes, ThingAttributes, caption, is_held_out, render, sample_world
from videoar.request import Request


def seen(subject="ball", color="red", motion="rises", direction="up", size="medium", x=0.0):
    return SeenThing(subject, color, size, motion, direction, x, 0.0)


def wanted(subject="ball", color="red", motion="rises", size="medium"):
    return ThingAttributes(subject, color, size, motion)


def test_a_clip_that_shows_what_was_asked_for_is_right_in_everything():
    result = score(Seen((seen(),), "night", "none", None), Attributes((wanted(),), "night", "none"))
    assert result == {**dict.fromkeys(DIMENSIONS, True), "multiple_objects": None}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"subject": "cube"}, {"subject", "all"}),
        ({"color": "blue"}, {"color", "all"}),
        ({"motion": "falls", "direction": "down"}, {"motion", "direction", "all"}),
        ({"size": "big"}, {"size"}),
        ({"motion": None, "direction": None}, {"motion", "direction", "all"}),
    ],
)
def test_each_mistake_counts_where_it_belongs(change, wrong):
    result = score(Seen((seen(**change),), "night", "none", None), Attributes((wanted(),), "night", "none"))
    assert {name for name, right in result.items() if right is False} == wrong


def test_what_the_prompt_does_not_say_is_not_scored():
    result = score(Seen((seen(),), "night", "none", None), Attributes((wanted(motion="spins"),), None, None))
    assert result["scene"] is None
    assert result["camera"] is None
    assert result["direction"] is None
    assert result["motion"] is False


def test_two_things_are_compared_to_the_ones_they_resemble_and_both_must_be_right():
    a, b = seen("ball", "red", x=-0.5), seen("star", "blue", x=0.5)
    asked = (wanted("star", "blue"), wanted("ball", "red"))
    assert match((a, b), asked) == [(b, asked[0]), (a, asked[1])]
    result = score(Seen((a, b), "night", "none", None), Attributes(asked, "night", "none"))
    assert result == dict.fromkeys(DIMENSIONS, True)
    assert not score(Seen((a,), "night", "none", None), Attributes(asked, "night", "none"))["subject"]


def test_two_subjects_are_there_whatever_else_is_wrong():
    asked = Attributes((wanted("star", "blue"), wanted("ball", "red")), "night", "none")
    for things, there in (
        ((seen("ball", "blue", "spins"), seen("star", "green", "spins")), True),
        ((seen("ball"), seen("ball", "blue")), False),
        ((seen("star"),), False),
    ):
        assert score(Seen(things, "snow", "none", None), asked)["multiple_objects"] is there
    unsaid = Attributes((wanted(), wanted(None)), None, "none")
    assert score(Seen((), "night", "none", None), unsaid)["multiple_objects"] is None


def test_nothing_seen_is_wrong_and_not_an_error():
    result = score(Seen((), "night", "none", None), Attributes((wanted(),), "night", "none"))
    assert result["subject"] is False
    assert result["scene"] is True


def test_held_out_cases_are_held_out_and_repeat():
    cases = held_out_cases(20)
    assert cases == held_out_cases(20)
    assert all(case.other != case.wanted for case in cases)
    for case in cases:
        first = case.world.things[0]
        assert is_held_out(first.subject, first.color, first.motion, case.world.scene)


def test_films_of_one_prompt_have_seeds_of_their_own_and_another_prompt_as_control():
    cases = held_out_cases(5, films=3)
    assert [case.index for case in cases] == list(range(15))
    assert [case.film for case in cases] == [0] * 5 + [1] * 5 + [2] * 5
    assert [case.prompt for case in cases[:5]] == [case.prompt for case in cases[10:]]
    assert all(case.other != case.wanted for case in cases)
    with pytest.raises(ValueError, match="at least two prompts"):
        held_out_cases(1)


def test_decibels():
    black, grey = np.zeros((3, 8, 8, 3), np.uint8), np.full((3, 8, 8, 3), 51, np.uint8)
    assert psnr(black, grey) == pytest.approx(20 * np.log10(255 / 51), abs=1e-4)
    assert psnr(grey, grey) == 99
    figures = codec_psnr([{"codec_psnr_db": float(i)} for i in range(101)] + [{"index": 7}])
    assert figures == {"codec_psnr_db": 50, "codec_psnr_db_p5": 5}


def test_a_fingerprint_is_that_of_the_weights():
    model = make_model()
    before = fingerprint(model)
    assert fingerprint(make_model()) == before
    with torch.no_grad():
        model.vae.decoder.conv_out.bias[0] += 1e-3
    assert fingerprint(model) != before


def test_real_renders_read_as_their_captions():
    rng = random.Random(5)
    worlds = [sample_world(rng, two=0.0) for _ in range(6)]
    rows = [row for w in worlds for row in verdict(render([w])[0].numpy(), caption(w))]
    assert len(rows) == 24
    assert sum(row.right for row in rows) >= 23
    assert verdict(np.zeros((5, 64, 64, 3), np.uint8), "nothing that this world knows qzx") == ()


def test_intervals_hold_the_share():
    results = [{row: dict.fromkeys(DIMENSIONS, i % 4 != 0) for row in ("real", "codec", "model", "shuffled")} for i in range(80)]  # fmt: skip  # noqa: E501
    results = [{"prompt": str(i), **row} for i, row in enumerate(results)]
    figures = summarise(results)["model"]["scene"]
    assert figures["share"] == 0.75
    assert figures["low"] < 0.75 < figures["high"]
    assert figures["clips"] == 80


def test_intervals_are_over_prompts():
    """Three equal films of a prompt say no more than one."""
    once = [{"prompt": str(i), "model": dict.fromkeys(DIMENSIONS, i % 4 != 0)} for i in range(40)]
    one, three = (summarise(rows)["model"]["scene"] for rows in (once, 3 * once))
    assert (one["low"], one["high"]) == (three["low"], three["high"])
    assert (one["clips"], three["clips"]) == (40, 120)


def scores(value, **others):
    return {**dict.fromkeys((*DIMENSIONS, *QUALITY), value), **others}


def test_sums():
    """Direction and size are no part of them; Quality weighs four times as much."""
    clip = scores(1.0, dynamic_degree=0.0, imaging_quality=0.5, scene=False, motion=False, direction=False, size=False)
    row = summarise([{"prompt": str(i), "model": clip} for i in range(5)])["model"]
    quality, semantic = 4.5 / 6, 5 / 7
    expected = dict(zip(SUMS, (quality, semantic, (4 * quality + semantic) / 5), strict=True))
    for name, value in expected.items():
        assert row[name] == {**dict.fromkeys(("share", "low", "high"), pytest.approx(value, abs=6e-4)), "clips": 5}


def test_sums_are_of_dimensions_and_not_of_clips():
    """Two clips of a hundred with two subjects weigh as much as a hundred with a scene."""
    clips = [scores(1.0, multiple_objects=None if i > 1 else False) for i in range(100)]
    row = summarise([{"prompt": str(i), "model": clip} for i, clip in enumerate(clips)])["model"]
    assert row["semantic"]["share"] == pytest.approx(6 / 7, abs=6e-4)


def test_the_interval_of_a_sum_knows_that_dimensions_fail_together():
    """Prompts that fail in everything leave the total as unsure as one dimension; others make it surer."""
    together = [{"prompt": str(i), "model": scores(float(i % 2))} for i in range(40)]
    apart = [
        {"prompt": str(i), "model": {name: float((i + k) % 2) for k, name in enumerate((*DIMENSIONS, *QUALITY))}}
        for i in range(40)
    ]
    together, apart = summarise(together)["model"], summarise(apart)["model"]

    def width(figure):
        return figure["high"] - figure["low"]

    assert width(together["scene"]) > 0.2
    assert width(together["total"]) == pytest.approx(width(together["scene"]), abs=2e-3)
    assert width(apart["total"]) < 0.2 * width(apart["scene"])


def test_a_sum_lacking_a_dimension_is_left_out():
    results = [{"prompt": str(i), "model": scores(1.0, multiple_objects=None)} for i in range(5)]
    row = summarise(results)["model"]
    assert row["quality"]["share"] == 1
    assert not {"multiple_objects", "semantic", "total"} & set(row)
    old = [{"prompt": str(i), "model": dict.fromkeys(("scene", "all"), True)} for i in range(5)]
    assert set(summarise(old)["model"]) == {"scene", "all"}


def test_an_evaluation_that_was_stopped_goes_on(tmp_path, monkeypatch):
    """Finished clips are kept, a line that was cut off is not taken for one, and other settings start anew."""
    made, model = [], make_model()
    request = Request("-", "cube")
    blank = np.zeros((17, 64, 64, 3), np.uint8)
    monkeypatch.setattr(
        "videoar.evaluate.playbench.make", lambda model, case, request: made.append(case.index) or blank
    )
    monkeypatch.setattr("videoar.evaluate.playbench.through_codec", lambda model, video: torch.as_tensor(video).numpy())
    cases, progress = held_out_cases(3), tmp_path / "clips.jsonl"
    running = evaluate(model, cases, request, progress)
    next(running)
    next(running)
    running.close()
    old = json.loads(progress.read_text().splitlines()[0])
    old["key"].pop("dimensions")
    old |= {"index": 2, "model": {"scene": True}}
    progress.write_text(f'{progress.read_text()}{{"key": {{"requ\n{json.dumps(old)}\n')
    results = list(evaluate(model, cases, request, progress))
    assert made == [0, 1, 2]
    assert [r["index"] for r in results] == [0, 1, 2]
    for row in ("real", "codec", "model", "shuffled"):
        assert all(set(r[row]) == {*DIMENSIONS, *QUALITY} for r in results)
    assert all(r["codec_psnr_db"] > 20 for r in results)
    list(evaluate(model, cases, Request("-", "frame"), progress))
    assert made == 2 * [0, 1, 2]
    with torch.no_grad():
        model.transformer.proj_out.bias += 1  # other weights under the same name
    list(evaluate(model, cases, request, progress))
    assert made == 3 * [0, 1, 2]
    model.info = dataclasses.replace(model.info, shift=3.0)
    list(evaluate(model, cases, request, progress))
    assert made == 4 * [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--clips", "0"], "from 2"),
        (["--clips", "1"], "from 2"),
        (["--plan", "foo"], "unknown plan"),
        (["--steps", "0"], "steps"),
        (["--guidance", "nan"], "guidance"),
        (["--drift", "-1"], "from 0 to 100"),
        (["--base", "x"], "leave out --quick"),
        (["--out", "/"], "not the name of a file"),
        (["--contact-sheet", "/"], "not the name of a file"),
    ],
)
def test_unusable_arguments_are_one_line_before_the_model_is_loaded(arguments, says, capsys, monkeypatch):
    monkeypatch.setattr("videoar.evaluate.command.load", lambda arguments: pytest.fail("loaded"))
    assert main(["--quick", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_model_that_is_not_there_is_one_line(capsys, tmp_path):
    assert main(["--quick", "--model", "/no/such/folder", "--out", str(tmp_path / "a.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("quick", [True, False])
def test_quick_is_one_film_of_each_prompt_and_the_best_plan(quick, tmp_path, monkeypatch, capsys):
    model, made = make_model(), []
    model.info = dataclasses.replace(model.info, plans=("frame:1", "full"))
    blank = np.zeros((17, 64, 64, 3), np.uint8)
    blank[:, 14:, 40:] = 255
    monkeypatch.setattr("videoar.evaluate.command.load", lambda arguments: model)
    monkeypatch.setattr(
        "videoar.evaluate.playbench.make", lambda model, case, request: made.append((case.index, request.plan)) or blank
    )
    monkeypatch.setattr("videoar.evaluate.command.make", lambda model, case, request: blank)
    monkeypatch.setattr("videoar.evaluate.drift.make", lambda model, case, request: np.repeat(blank, 3, 0))
    for place in ("playbench", "command"):
        monkeypatch.setattr(f"videoar.evaluate.{place}.through_codec", lambda model, video: video.numpy() // 2)
    out, sheet = tmp_path / "result.json", tmp_path / "sheet.png"
    arguments = ["--clips", "2", "--drift", "2", "--out", str(out), "--contact-sheet", str(sheet)]
    assert main([*arguments, *(["--quick"] if quick else [])]) == 0
    result = json.loads(out.read_text())
    films = 2 if quick else 6
    assert made == [(i, plan) for plan in (("frame:1",) if quick else ("frame:1", "full")) for i in range(films)]
    assert list(result["plans"]) == (["frame:1"] if quick else ["frame:1", "full"])
    assert (result["clips"], result["seeds"]) == (2, 1 if quick else 3)
    assert result["rows"]["model"]["scene"]["clips"] == films
    assert result["rows"]["real"]["scene"]["clips"] == 2
    assert 3 < result["codec_psnr_db_p5"] <= result["codec_psnr_db"] < 20
    assert result["settings"]["weights"] == fingerprint(model)
    names = {out.name, sheet.name}
    if not quick:
        names |= {"result.md", "result.svg", "result.png"}
        page, picture = out.with_suffix(".md").read_text(), out.with_suffix(".svg").read_text()
        for row in (
            "real renders",
            "through the codec",
            "held (control)",
            "noise (control)",
            "other prompts",
            "model, full",
        ):
            assert row in page
            assert row in picture
        assert xml.etree.ElementTree.fromstring(picture).tag.endswith("svg")
        assert "result.svg" in page
        assert "result.png" in page
        for said in ("Quality", "Semantic", "Total", "imaging quality", "not comparable with published VBench scores"):
            assert said in page
        assert "spatial relationship (captions" in page
        assert result["rows"]["frozen"]["dynamic_degree"]["share"] == 0
        assert result["rows"]["noise"]["imaging_quality"]["share"] < 0.3
        assert result["rows"]["frozen"]["scene"]["clips"] == 2
        assert result["rows"]["noise"]["all"]["share"] == 0
        ends = [piece["until_s"] for piece in result["drift"]["pieces"]]
        assert ends == [round(k * 17 / model.info.fps, 2) for k in (1, 2)]
        assert result["drift"]["pieces"][0]["real"]["scene"] == 1
    assert {path.name for path in tmp_path.iterdir()} == names
    said = capsys.readouterr().out
    assert "codec: " in said
    assert "| PlayBench | Quality | Semantic | Total | subject consistency |" in said
    assert "not comparable with published VBench scores" in said
    assert result["note"] in said
    assert "A dash: " in said  # neither prompt has two subjects
    assert result["motion"] == result["rows"]["model"]["motion"]["share"]


def test_the_base_has_a_row_of_its_own_and_cubes_their_seams(tmp_path, monkeypatch, capsys):
    model, base = make_model(), make_model()
    model.info = dataclasses.replace(model.info, plans=("cube:2x2x2",))
    blank = np.zeros((17, 64, 64, 3), np.uint8)
    blank[:, ::2] = 2
    blank[:, :, 32:] = 250
    monkeypatch.setattr("videoar.evaluate.command.load", lambda arguments: base if arguments.model == "b" else model)
    for place in ("playbench", "command"):
        monkeypatch.setattr(f"videoar.evaluate.{place}.make", lambda model, case, request: blank + (model is base))
    out = tmp_path / "result.json"
    assert main(["--clips", "2", "--drift", "0", "--base", "b", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["base"]["model"]["scene"]["clips"] == 6
    assert "drift" not in result
    seams = result["plans"]["cube:2x2x2"]["seams"]
    assert seams["model"]["low"] <= seams["model"]["mean"] <= seams["model"]["high"]
    assert seams["model"]["mean"] > 5 > seams["real"]["mean"]
    page = out.with_suffix(".md").read_text()
    assert "base: all at once" in page
    assert "**Seams**" in page
    assert main(["--quick", "--base", "b", "--out", str(out)]) == 2
