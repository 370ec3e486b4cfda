"""What is kept of a film that was stopped: patches in their places, holes held or black."""

from __future__ import annotations

import numpy as np

from videoar.events import Patch
from videoar.painting import Painting


def patch(first: int, value: int, shape=(1, 4, 4), at=(0, 0, 4, 4), preview: bool = True) -> Patch:
    return Patch(first, np.full((*shape, 3), value, np.uint8), *at, preview)


def test_nothing_is_no_film():
    assert Painting(4, 4).film() == []
    assert Painting(4, 4).take() == []


def test_missing_pictures_and_regions_hold_what_was_there():
    painting = Painting(4, 4)
    painting.paint(patch(0, 10))
    painting.paint(patch(2, 30, (1, 2, 2), (2, 0, 2, 2)))
    film = painting.film()
    assert len(film) == 3
    assert (film[0] == 10).all()
    assert (film[1] == 10).all()
    assert (film[2][:2, 2:] == 30).all()
    assert (film[2][2:] == 10).all()
    painting.paint(patch(1, 20))  # later, it is there
    assert [picture[3, 0, 0] for picture in painting.film()] == [10, 20, 20]


def test_what_was_never_painted_is_black():
    painting = Painting(4, 4)
    painting.paint(patch(1, 200, (2, 2, 4), (0, 2, 4, 2)))
    assert [picture[0].max() for picture in painting.film()] == [0, 0, 0]
    assert [picture[2:].min() for picture in painting.film()] == [0, 200, 200]


def test_small_patches_are_scaled_up_and_later_ones_cover_them():
    painting = Painting(4, 6)
    painting.paint(patch(0, 50, (1, 2, 3), (0, 0, 6, 4)))
    assert (painting.film()[0] == 50).all()
    painting.paint(patch(0, 90, (1, 4, 6), (0, 0, 6, 4)))
    assert (painting.film()[0] == 90).all()


def test_exact_pictures_are_taken_once_and_still_hold():
    painting = Painting(4, 4)
    painting.paint(patch(0, 10, (3, 4, 4)))
    assert painting.take() == []
    painting.paint(patch(0, 11, (2, 4, 4), preview=False))
    assert [picture[0, 0, 0] for picture in painting.take()] == [11, 11]
    assert painting.take() == []
    painting.paint(patch(3, 40, (1, 2, 4), (0, 0, 4, 2)))
    assert [(picture[0, 0, 0], picture[3, 0, 0]) for picture in painting.film()] == [(10, 10), (40, 10)]
    painting.paint(patch(2, 50, preview=False))
    assert [picture[0, 0, 0] for picture in painting.take()] == [50]
    assert [(picture[0, 0, 0], picture[3, 0, 0]) for picture in painting.film()] == [(40, 50)]
