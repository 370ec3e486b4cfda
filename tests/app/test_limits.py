"""What comes over the API is checked once, with a sentence that says what to change."""

from __future__ import annotations

import pytest

from app.limits import MOST_STEPS, read_film, read_requests

GOOD = {"prompt": "a ball", "plan": "cube", "steps": 4, "seed": 7, "randomise": False}
NUMBERS_THAT_ARE_NONE = [True, float("nan"), float("inf"), -1, 1.5, "4", "", [4], {}, 10**400]


def request(**changes):
    asked = GOOD | changes
    contender = {"plan": asked.pop("plan"), "steps": asked.pop("steps")}
    (made,) = read_requests(contenders=[contender], **asked)
    return made


def contenders(value):
    return read_requests("a ball", value, 7, False)


def test_a_good_request():
    made = request()
    assert (made.prompt, made.plan, made.steps, made.seed) == ("a ball", "cube:2x2x2", 4, 7)


def test_sliders_send_floats():
    assert request(steps=4.0, seed=12.0).steps == 4
    assert type(request(seed=12.0).seed) is int


def test_without_a_number_of_steps_the_model_decides():
    assert request(steps=None).steps is None


def test_seeds_are_kept_or_drawn():
    assert request(seed=0).seed == 0
    assert request(seed=2**53 - 1).seed == 2**53 - 1
    drawn = {request(randomise=True).seed for _ in range(20)} | {request(seed=None).seed}
    assert len(drawn) > 15
    assert max(drawn) < 2**31


@pytest.mark.parametrize("prompt", ["", "  \n\t", "\0\x01", None, 3, ["a"], "x" * 501, "x" * 10_000])
def test_bad_prompts(prompt):
    with pytest.raises(ValueError, match="prompt"):
        request(prompt=prompt)


def test_control_characters_go_and_markup_stays_text():
    assert request(prompt="a\0 ball\x07\nrolls").prompt == "a ball rolls"
    assert request(prompt="<script>alert(1)</script> ${x} {{y}}").prompt == "<script>alert(1)</script> ${x} {{y}}"


@pytest.mark.parametrize("steps", [*NUMBERS_THAT_ARE_NONE, 0, MOST_STEPS + 1])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match="steps"):
        request(steps=steps)


@pytest.mark.parametrize("seed", [*NUMBERS_THAT_ARE_NONE, 2**53, 2.0**53, 2**63])
@pytest.mark.parametrize("randomise", [True, False])
def test_bad_seeds(seed, randomise):
    with pytest.raises(ValueError, match="seed"):
        request(seed=seed, randomise=randomise)


@pytest.mark.parametrize("plan", ["", "cubes", "cube:0x1x1", None, 4, {"a": 1}, "x" * 9999, "frame:nan"])
def test_bad_plans(plan):
    with pytest.raises(ValueError, match="plan"):
        request(plan=plan)


def test_too_many_units():
    with pytest.raises(ValueError, match="at most 128"):
        request(plan="cube:8x8x8")
    assert request(plan="cube:2x8x8").plan == "cube:2x8x8"


@pytest.mark.parametrize("randomise", [None, 1, "true"])
def test_randomise_is_a_yes_or_no(randomise):
    with pytest.raises(ValueError, match="randomise"):
        request(randomise=randomise)


def test_contenders_share_prompt_and_seed():
    asked = [{"plan": "cube"}, {"plan": "frame:2", "steps": 3.0, "window": 4, "guidance": 2}, {"plan": "full"}]
    made = read_requests("a ball", asked, None, False)
    assert len({request.seed for request in made}) == 1
    assert [request.plan for request in made] == ["cube:2x2x2", "frame:2", "full"]
    assert (made[1].steps, made[1].window, made[1].guidance_scale) == (3, 4, 2.0)
    assert (made[0].steps, made[0].window, made[0].guidance_scale) == (None, None, None)


@pytest.mark.parametrize(
    "value", [None, "cube", [], {}, [{"plan": "cube"}] * 6, ["cube"], [None], [{}], [{"plan": "cube", "seed": 3}]]
)
def test_bad_contenders(value):
    with pytest.raises(ValueError, match=r"contender|plan"):
        contenders(value)


@pytest.mark.parametrize("name", ["steps", "window", "guidance"])
@pytest.mark.parametrize("number", [True, float("nan"), float("inf"), -1, "4", [4], 10**400])
def test_bad_numbers_of_contenders(name, number):
    with pytest.raises(ValueError, match=name):
        contenders([{"plan": "cube"}, {"plan": "frame", name: number}])


def film(start=None, **more):
    return read_film("a ball", "cube", 4, 7, False, more, start)


def test_what_else_a_film_has():
    made = film(seconds=12, storyboard="0:04 at night", window=4.0, sink=1)
    [request] = made.requests
    assert made.seconds == 12
    assert (request.prompt, request.storyboard, request.window, request.sink) == ("a ball", ((4.0, "at night"),), 4, 1)
    assert film(storyboard="0 by day\n4 at night").requests[0].prompt == "by day"
    assert film(endless=True).requests[0].endless
    assert [request.seed for request in film(films=3).requests] == [7, 8, 9]
    assert film({"path": "/tmp/a.mp4"}).source == "/tmp/a.mp4"
    assert read_film("a ball", "cube", 4, 7, False, None).requests[0].frames is None


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"seconds": 0}, "seconds"),
        ({"seconds": 601}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"seconds": "9"}, "seconds"),
        ({"endless": 1}, "endless"),
        ({"endless": True, "seconds": 4}, "endless"),
        ({"storyboard": "0 a\nsoon b"}, "line 2: begins with a time"),
        ({"storyboard": "4 a\n4 b"}, "line 2"),
        ({"storyboard": ["0 a"]}, "storyboard"),
        ({"storyboard": "601 a"}, "600 seconds"),
        ({"window": 0}, "window"),
        ({"sink": -1}, "sink"),
        ({"films": 5}, "films"),
        ({"films": 2, "endless": True}, "several films"),
        ({"colour": "red"}, "beside its prompt"),
    ],
)
def test_what_a_film_cannot_have(more, says):
    with pytest.raises(ValueError, match=says):
        film(**more)


def test_more_is_a_dictionary():
    with pytest.raises(ValueError, match="dictionary"):
        read_film("a ball", "cube", 4, 7, False, [1])
