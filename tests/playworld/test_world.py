"""What worlds are made of, and which combinations are kept from training."""

import itertools
import random

import pytest

from videoar.playworld import (
    CAMERAS,
    COLORS,
    MOTIONS,
    SCENES,
    SIZES,
    SUBJECTS,
    Attributes,
    Thing,
    ThingAttributes,
    World,
    attributes,
    is_held_out,
    sample_world,
    world_from_attributes,
)

PINNED = {
    ("rocket", "red", "rises", "night"): True,
    ("fish", "orange", "drifts left", "ocean"): False,
    ("cube", "red", "rises", "night"): True,
    ("star", "blue", "rises", "wall"): True,
    ("ring", "red", "spins", "night"): True,
    ("ring", "red", "rises", "night"): True,
    ("ball", "red", "bounces", "meadow"): False,
}


def held_out_things(world):
    return [is_held_out(o.subject, o.color, o.motion, world.scene) for o in world.things]


def test_vocabulary_has_the_promised_size():
    assert [len(v) for v in (SUBJECTS, COLORS, SIZES, MOTIONS, SCENES, CAMERAS)] == [12, 9, 3, 12, 8, 5]
    assert SIZES["small"] < SIZES["medium"] < SIZES["big"]


def test_the_same_seed_gives_the_same_worlds():
    first, again = ([sample_world(rng) for _ in range(20)] for rng in (random.Random(5), random.Random(5)))
    assert first == again


def test_a_tenth_is_held_out_and_stays_the_same():
    combinations = list(itertools.product(SUBJECTS, COLORS, MOTIONS, SCENES))
    assert sum(itertools.starmap(is_held_out, combinations)) / len(combinations) == pytest.approx(0.1, abs=0.01)
    known = [is_held_out(*c) for c in PINNED]
    assert known == list(PINNED.values())


def test_training_never_sees_a_held_out_combination():
    rng = random.Random(1)
    for _ in range(500):
        assert not any(held_out_things(sample_world(rng, held_out=False, two=0.5)))
        assert held_out_things(sample_world(rng, held_out=True))[0]
    share = sum(held_out_things(sample_world(rng))[0] for _ in range(3000)) / 3000
    assert 0.07 < share < 0.13


def test_two_things_differ_and_are_not_both_big():
    rng = random.Random(2)
    pairs = [w for w in (sample_world(rng, two=1.0) for _ in range(300)) if len(w.things) == 2]
    assert len(pairs) == 300
    for world in pairs:
        a, b = world.things
        assert a.subject != b.subject
        assert a.color != b.color
        assert not a.size == b.size == "big"
        assert a.x < b.x
        assert world.wall_color not in (a.color, b.color)


def test_a_world_can_be_made_to_measure():
    rng = random.Random(3)
    wanted = Attributes((ThingAttributes("rocket", "red", "big", "rises"),), "wall", "pan left", "blue")
    assert attributes(world_from_attributes(wanted, rng)) == wanted
    partly = attributes(world_from_attributes(Attributes((ThingAttributes("fish", None, None, None),), "ocean"), rng))
    assert (partly.things[0].subject, partly.scene, partly.camera) == ("fish", "ocean", "none")
    assert len(world_from_attributes(Attributes(), rng).things) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Thing("dragon", "red"),
        lambda: Thing("ball", "mauve"),
        lambda: Thing("ball", "red", "vast"),
        lambda: World("moon", "none", (Thing("ball", "red"),)),
        lambda: World("night", "none", ()),
    ],
)
def test_unknown_words_are_refused_with_advice(make):
    with pytest.raises(ValueError, match=r"choose one of|one or two"):
        make()
