"""Empty scenes of Playworld, drawn once, to know what a background looks like."""

import random
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..playworld import CAMERAS, COLORS, SCENES, Thing, World, render

_CLIPS = {False: 20, True: 10}  # of a scene, of one colour of wall
_OUT_OF_SIGHT = Thing("ball", "red", x=50.0)


class Ground(NamedTuple):
    """A scene, with the colour of the wall where it is one."""

    scene: str
    wall_color: str | None = None


GROUNDS = (*(Ground(s) for s in SCENES if s != "wall"), *(Ground("wall", c) for c in COLORS))


@lru_cache(maxsize=len(GROUNDS))
def samples(ground: Ground) -> np.ndarray:
    """uint8 [clips, 4 frames, 64, 64, 3]: empty scenes under every camera; always the same ones."""
    rng = random.Random(f"{ground}")
    worlds = [
        World(ground.scene, CAMERAS[i % 5], (_OUT_OF_SIGHT,), ground.wall_color or "white", rng.randrange(1 << 30))
        for i in range(_CLIPS[ground.scene == "wall"])
    ]
    return render(worlds, frames=4, size=64, fps=0.9).numpy()
