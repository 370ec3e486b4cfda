"""Scores, the evaluation's rows, its intervals, and going on after a stop."""

import random

import numpy as np
import pytest
import torch

from tests.videoar.tiny import make_model
from videoar.evaluate import main
from videoar.evaluate.detect import Seen, SeenThing
from videoar.evaluate.playbench import evaluate, held_out_cases, summarise
from videoar.evaluate.score import DIMENSIONS, match, score, verdict
from videoar.playworld import Attributes, ThingAttributes, caption, is_held_out, render, sample_world


def seen(subject="ball", color="red", motion="rises", direction="up", size="medium", x=0.0):
    return SeenThing(subject, color, size, motion, direction, x, 0.0)


def wanted(subject="ball", color="red", motion="rises", size="medium"):
    return ThingAttributes(subject, color, size, motion)


def test_a_clip_that_shows_what_was_asked_for_is_right_in_everything():
    result = score(Seen((seen(),), "night", "none", None), Attributes((wanted(),), "night", "none"))
    assert result == dict.fromkeys(DIMENSIONS, True)


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
    assert {name for name, right in result.items() if not right} == wrong


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
    assert score(Seen((a, b), "night", "none", None), Attributes(asked, "night", "none"))["all"]
    assert not score(Seen((a,), "night", "none", None), Attributes(asked, "night", "none"))["subject"]


def test_nothing_seen_is_wrong_and_not_an_error():
    result = score(Seen((), "night", "none", None), Attributes((wanted(),), "night", "none"))
    assert result["subject"] is False
    assert result["scene"] is True


def test_held_out_cases_are_held_out_and_repeat():
    cases = held_out_cases(20)
    assert cases == held_out_cases(20)
    for case in cases:
        first = case.world.things[0]
        assert is_held_out(first.subject, first.color, first.motion, case.world.scene)


def test_real_renders_read_as_their_captions():
    rng = random.Random(5)
    worlds = [sample_world(rng, two=0.0) for _ in range(6)]
    rows = [row for w in worlds for row in verdict(render([w])[0].numpy(), caption(w))]
    assert len(rows) == 24
    assert sum(row.right for row in rows) >= 23
    assert verdict(np.zeros((5, 64, 64, 3), np.uint8), "nothing that this world knows qzx") == ()


def test_intervals_hold_the_share():
    results = [{row: dict.fromkeys(DIMENSIONS, i % 4 != 0) for row in ("real", "codec", "model", "shuffled")} for i in range(80)]  # fmt: skip  # noqa: E501
    figures = summarise(results)["model"]["scene"]
    assert figures["share"] == 0.75
    assert figures["low"] < 0.75 < figures["high"]
    assert figures["clips"] == 80


def test_an_evaluation_that_was_stopped_goes_on(tmp_path, monkeypatch):
    """Finished clips are kept, a line that was cut off is not taken for one, and other settings start anew."""
    made, model = [], make_model()
    blank = np.zeros((9, 32, 32, 3), np.uint8)
    monkeypatch.setattr(
        "videoar.evaluate.playbench.make", lambda model, case, request: made.append(case.index) or blank
    )
    monkeypatch.setattr("videoar.evaluate.playbench.through_codec", lambda model, video: torch.as_tensor(video).numpy())
    cases, progress, request = held_out_cases(3), tmp_path / "clips.jsonl", {"plan": "cube"}
    running = evaluate(model, cases, request, progress)
    next(running)
    next(running)
    running.close()
    progress.write_text(progress.read_text() + '{"key": {"requ\n')
    results = list(evaluate(model, cases, request, progress))
    assert made == [0, 1, 2]
    assert [r["index"] for r in results] == [0, 1, 2]
    list(evaluate(model, cases, {"plan": "frame"}, progress))
    assert made == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("arguments", [["--clips", "0"], ["--model", "/no/such/folder"]])
def test_unusable_arguments_are_one_line_and_exit_code_2(arguments, capsys):
    assert main(["--quick", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
