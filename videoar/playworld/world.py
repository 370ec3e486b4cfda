"""The vocabulary of Playworld, what one world is made of, and how worlds are drawn at random."""

import hashlib
import random
from dataclasses import dataclass, replace

# Palette in 0..1 display RGB. A subject keeps its body within 15 % of these values so that it can be read back.
COLORS = {
    "red": (0.88, 0.14, 0.16),
    "orange": (0.98, 0.50, 0.08),
    "yellow": (0.98, 0.84, 0.14),
    "green": (0.16, 0.72, 0.28),
    "blue": (0.16, 0.36, 0.92),
    "purple": (0.56, 0.24, 0.82),
    "pink": (0.98, 0.48, 0.70),
    "white": (0.94, 0.94, 0.96),
    "cyan": (0.14, 0.80, 0.88),
}
SUBJECTS = (
    "ball",
    "cube",
    "star",
    "heart",
    "ring",
    "fish",
    "jellyfish",
    "balloon",
    "rocket",
    "flower",
    "ghost",
    "boat",
)
SIZES = {"small": 0.30, "medium": 0.40, "big": 0.55}  # radius in halves of the picture
MOTIONS = (
    "stays still",
    "drifts left",
    "drifts right",
    "rises",
    "falls",
    "bounces",
    "orbits",
    "spins",
    "pulses",
    "sways",
    "zigzags left",
    "zigzags right",
)
SCENES = ("night", "sunset", "ocean", "meadow", "snow", "desert", "city", "wall")
CAMERAS = ("none", "pan left", "pan right", "zoom in", "zoom out")

SIDEWAYS = ("drifts left", "drifts right", "zigzags left", "zigzags right")
TRAVELLING = (*SIDEWAYS, "rises", "falls")


@dataclass(frozen=True)
class Thing:
    """One subject of a world.

    x, y: resting place in halves of the picture (right and up are positive); phase: where in its cycle the motion
    starts, 0..1; speed: factor on the motion's usual speed, about 0.9..1.1.
    """

    subject: str
    color: str
    size: str = "medium"
    motion: str = "stays still"
    x: float = 0.0
    y: float = 0.0
    phase: float = 0.0
    speed: float = 1.0

    def __post_init__(self):
        _check("subject", self.subject, SUBJECTS)
        _check("colour", self.color, COLORS)
        _check("size", self.size, SIZES)
        _check("motion", self.motion, MOTIONS)


@dataclass(frozen=True)
class World:
    """A scene with one or two things in it; `wall_color` counts in the scene "wall" only, `seed` sets the details."""

    scene: str
    camera: str
    things: tuple[Thing, ...]
    wall_color: str = "white"
    seed: int = 0

    def __post_init__(self):
        _check("scene", self.scene, SCENES)
        _check("camera", self.camera, CAMERAS)
        _check("wall colour", self.wall_color, COLORS)
        if not 1 <= len(self.things) <= 2:
            raise ValueError(f"a world holds one or two things, not {len(self.things)}")


@dataclass(frozen=True)
class ThingAttributes:
    """What a caption says about one thing; None where it says nothing that is known (unsaid size: "medium")."""

    subject: str | None = None
    color: str | None = None
    size: str | None = "medium"
    motion: str | None = None


@dataclass(frozen=True)
class Attributes:
    """What a caption says about a world: `attributes(world)` is what its captions are read back to."""

    things: tuple[ThingAttributes, ...] = ()
    scene: str | None = None
    camera: str | None = "none"
    wall_color: str | None = None


def attributes(world: World) -> Attributes:
    """The part of a world that its caption tells."""
    things = tuple(ThingAttributes(o.subject, o.color, o.size, o.motion) for o in world.things)
    return Attributes(things, world.scene, world.camera, world.wall_color if world.scene == "wall" else None)


def is_held_out(subject: str, color: str, motion: str, scene: str) -> bool:
    """Whether a combination is kept from training: one in ten, by a hash that is the same on every machine."""
    digest = hashlib.sha256(f"{subject}|{color}|{motion}|{scene}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 10 == 0


def sample_world(rng: random.Random, held_out: bool | None = None, two: float = 0.25) -> World:
    """Draw a world.

    held_out: False gives no thing with a held-out combination (for training), True gives worlds whose first thing has
    one (for evaluation), None gives any. two: share of worlds with two things.
    """
    while True:
        count = 2 if rng.random() < two else 1
        subjects = rng.sample(SUBJECTS, count)
        colors = rng.sample(sorted(COLORS), count)
        motions = [rng.choice(MOTIONS) for _ in range(count)]
        scene = rng.choice(SCENES)
        kept_back = [is_held_out(*combination, scene) for combination in zip(subjects, colors, motions, strict=True)]
        if held_out is None or (kept_back[0] if held_out else not any(kept_back)):
            break
    sizes = [rng.choice(sorted(SIZES)) for _ in range(count)]
    if count == 2 and "big" in sizes:
        sizes[1 - sizes.index("big")] = "small"
    things = tuple(map(ThingAttributes, subjects, colors, sizes, motions))
    camera = "none" if rng.random() < 0.4 else rng.choice(CAMERAS[1:])
    return world_from_attributes(Attributes(things, scene, camera), rng)


def world_from_attributes(wanted: Attributes, rng: random.Random) -> World:
    """Make a world that has the given attributes; what is None is drawn at random. At most two things are used."""
    wanted_things = wanted.things[:2] or (ThingAttributes(size=None),)
    taken = [o.color for o in wanted_things]
    complete = []
    for o in wanted_things:
        color = o.color or rng.choice([c for c in sorted(COLORS) if c not in taken])
        taken.append(color)
        complete.append(
            Thing(
                o.subject or rng.choice(SUBJECTS),
                color,
                o.size or rng.choice(sorted(SIZES)),
                o.motion or rng.choice(MOTIONS),
            )
        )
    wall = wanted.wall_color or rng.choice([c for c in sorted(COLORS) if c not in taken])
    scene = wanted.scene or rng.choice(SCENES)
    camera = wanted.camera or rng.choice(CAMERAS)
    return World(scene, camera, _place(complete, rng), wall, rng.randrange(1 << 30))


def _place(things: list[Thing], rng: random.Random) -> tuple[Thing, ...]:
    """Give every thing a resting place, a phase and a speed. The first of two stands on the left."""
    from_edge = rng.random() < 0.5  # half of the clips begin with travellers near the side they come from
    stacked = len(things) == 2 and any(o.motion in SIDEWAYS for o in things)
    upper = rng.choice((-1, 1))
    placed = []
    for i, o in enumerate(things):
        room = 1 - SIZES[o.size]
        if len(things) == 1:
            reach = 0.12 if o.motion == "orbits" else min(0.3, 0.5 * room)
            x, y = rng.uniform(-reach, reach), rng.uniform(-reach, reach)
        else:
            x = (-1, 1)[i] * room * rng.uniform(0.8, 0.95)
            y = rng.uniform(-0.2, 0.2)
            if stacked:  # a sideways traveller crosses both halves, so the two keep to different heights
                y = (upper, -upper)[i] * room * rng.uniform(0.65, 0.75)
        phase = rng.random()
        if from_edge and o.motion in TRAVELLING:
            phase = 0.12 + 0.23 * phase
        placed.append(replace(o, x=x, y=y, phase=phase, speed=rng.uniform(0.9, 1.1)))
    return tuple(placed)


def _check(what: str, value: str, known) -> None:
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; choose one of {', '.join(known)}")
