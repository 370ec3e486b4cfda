"""Captions say what a world is, and are read back."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videoar.playworld import (
    MOTIONS,
    SCENES,
    SUBJECTS,
    Thing,
    ThingAttributes,
    World,
    attributes,
    caption,
    complete,
    example_prompts,
    guide,
    parse_caption,
    sample_world,
)


def test_canonical_captions():
    rocket = Thing("rocket", "red", "medium", "rises")
    assert caption(World("night", "none", (rocket,))) == "a red rocket rises under a starry night sky"
    big = Thing("rocket", "red", "big", "rises")
    fish = Thing("fish", "orange", "medium", "stays still")
    expected = "a big red rocket rises and an orange fish stays still in front of an orange wall, the camera pans left"
    assert caption(World("wall", "pan left", (big, fish), "orange")) == expected


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_captions_are_read_back(seed, paraphrase):
    rng = random.Random(seed)
    world = sample_world(rng, two=0.4)
    text = caption(world, rng if paraphrase else None)
    assert parse_caption(text) == attributes(world), text
    assert parse_caption(f"  {text.upper()}!") == attributes(world)


def test_paraphrases_vary_and_the_canonical_words_lead():
    rng = random.Random(0)
    world = World("meadow", "zoom in", (Thing("ball", "blue", "small", "bounces"),))
    texts = [caption(world, rng) for _ in range(300)]
    assert len(set(texts)) > 150
    assert sum("bounces" in t or "bouncing" in t for t in texts) > 150


@pytest.mark.parametrize(
    ("text", "thing", "scene"),
    [
        ("bouncing green ball", ThingAttributes("ball", "green", "medium", "bounces"), None),
        ("A HUGE spaceship takes off!!!", ThingAttributes("rocket", None, "big", "rises"), None),
        ("a fish swims to the left in the sea", ThingAttributes("fish", None, "medium", "drifts left"), "ocean"),
        ("a star, white, under the stars", ThingAttributes("star", "white", "medium", None), "night"),
        ("please show me a dragon and a red boat", ThingAttributes("boat", "red", "medium", None), None),
        ("something red rises at dusk", ThingAttributes(None, "red", "medium", "rises"), "sunset"),
        ("a zig-zagging ring over a green field", ThingAttributes("ring", None, "medium", None), "meadow"),
    ],
)
def test_reading_is_tolerant(text, thing, scene):
    read = parse_caption(text)
    assert read.things == (thing,)
    assert (read.scene, read.camera) == (scene, "none")


def test_attributes_go_to_the_thing_that_they_stand_by():
    read = parse_caption("in the snow a tiny cyan cube spins and a big boat, which is red, sways; zooming out")
    assert read.things == (
        ThingAttributes("cube", "cyan", "small", "spins"),
        ThingAttributes("boat", "red", "big", "sways"),
    )
    assert (read.scene, read.camera) == ("snow", "zoom out")
    assert [o.motion for o in parse_caption("a red ball and a blue ring spin").things] == ["spins", "spins"]
    assert len(parse_caption("a ball, a cube, a star and a heart").things) == 2


@pytest.mark.parametrize("text", ["", "   ", "qwerty", "a dragon eats cheese", "ballad of ringing starlings"])
def test_nothing_recognised_is_none(text):
    assert parse_caption(text) is None


def test_scene_or_camera_alone_is_something():
    assert parse_caption("the desert").scene == "desert"
    assert parse_caption("the camera zooms in").camera == "zoom in"
    wall = parse_caption("a lemon-yellow wall")
    assert (wall.scene, wall.wall_color, wall.things) == ("wall", "yellow", ())


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_can_be_read(text):
    parse_caption(text)


def test_example_prompts_are_within_the_grammar():
    prompts = example_prompts()
    assert 8 <= len(prompts) <= 12
    assert len(set(prompts)) == len(prompts)
    scenes = set()
    for prompt in prompts:
        read = parse_caption(prompt)
        scenes.add(read.scene)
        assert read.scene
        assert all(None not in (o.subject, o.color, o.motion) for o in read.things)
    assert scenes == set(SCENES)


def test_every_phrase_of_the_guide_is_understood():
    words = guide()
    assert set(words["subjects"]) == set(SUBJECTS)
    assert set(words["motions"]) == set(MOTIONS)
    kinds = {"subjects": "subject", "colors": "color", "sizes": "size", "motions": "motion"}
    for group, table in words.items():
        for value, phrases in table.items():
            for phrase in phrases:
                read = parse_caption(phrase)
                said = getattr(read.things[0], kinds[group]) if group in kinds else getattr(read, group[:-1])
                assert said == value, phrase


@pytest.mark.parametrize("text", ["", "a red ro", "gho", "zoom in", "something blue at ni", "two stars in the desert"])
def test_what_is_written_is_completed(text):
    rng = random.Random(5)
    for _ in range(20):
        full = parse_caption(complete(text, rng))
        assert full.scene
        assert all(thing.subject and thing.color and thing.motion for thing in full.things)
    thing = parse_caption(complete("a red ro", rng)).things[0]
    assert (thing.subject, thing.color) == ("rocket", "red")


def test_what_is_not_understood_is_left_alone():
    assert complete("xyzzy") is None
