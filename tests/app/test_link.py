"""Links that carry settings are read, and refused with a sentence where they cannot be."""

from __future__ import annotations

import pytest

from app.link import read_link


def test_an_address_without_settings_changes_nothing():
    assert read_link(None, None, []) is None


def test_a_link_to_a_comparison():
    link = read_link("a red  ball", "7", ["cube:2x2x2 steps:8 guidance:5.0", "frame:1 window:4"])
    assert link == {
        "prompt": "a red ball",
        "seed": 7,
        "contenders": [{"plan": "cube:2x2x2", "steps": 8, "guidance": 5}, {"plan": "frame:1", "window": 4}],
    }


def test_the_name_of_a_model_may_have_spaces():
    link = read_link("a ball", None, ["cube steps:4 model:my model: the 2nd", "full model:other"])
    assert link["contenders"] == [
        {"plan": "cube", "steps": 4, "model": "my model: the 2nd"},
        {"plan": "full", "model": "other"},
    ]


def test_parts_of_a_link_may_be_missing():
    assert read_link("a ball", None, []) == {"prompt": "a ball", "seed": None, "contenders": []}
    assert read_link(None, "3", ["full"])["contenders"] == [{"plan": "full"}]


@pytest.mark.parametrize(
    ("prompt", "seed", "units", "says"),
    [
        ("", None, [], "prompt is empty"),
        ("x" * 501, None, [], "prompt"),
        ("a", "-1", [], "seed"),
        ("a", "９", [], "seed"),
        ("a", "9" * 20, [], "seed"),
        ("a", "9" * 10_000, [], "seed"),
        ("a", None, [""], "plan"),
        ("a", None, ["pyramid"], "plan"),
        ("a", None, ["cube"] * 6, "contenders"),
        ("a", None, ["cube steps:nan"], "steps"),
        ("a", None, ["cube steps:many"], "steps"),
        ("a", None, ["cube window:0"], "window"),
        ("a", None, ["cube height:8"], "height"),
        ("a", None, ["cube " + "x" * 10_000], "units"),
    ],
)
def test_links_that_cannot_be_followed(prompt, seed, units, says):
    with pytest.raises(ValueError, match=says):
        read_link(prompt, seed, units)


def test_a_link_to_a_long_film():
    more = {"seconds": "12", "storyboard": "4 at night", "sink": "1"}
    assert read_link("a ball", "7", ["cube window:4"], more)["contenders"] == [{"plan": "cube", "window": 4}]
    assert read_link(None, None, [], {"continued_from": "cat.png"} | more)["continued_from"] == "cat.png"
    for bad, says in (
        ({"seconds": "long"}, "seconds"),
        ({"storyboard": "soon b"}, "line 1"),
        ({"films": "9"}, "films"),
    ):
        with pytest.raises(ValueError, match=says):
            read_link("a ball", "7", [], bad)
