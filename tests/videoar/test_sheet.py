"""Contact sheets hold every clip's frames, and are written as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from videoar.sheet import contact_sheet


def test_every_clip_has_its_strip(tmp_path):
    clips = [np.stack([np.full((16, 16, 3), 40 * clip + 2 * t, np.uint8) for t in range(9)]) for clip in range(1, 4)]
    path = tmp_path / "sheet.png"
    contact_sheet(clips, ["one", "two\nlines", "three"], path, columns=2, shown=3)
    picture = np.asarray(Image.open(path))
    strip = 3 * 16
    assert picture.shape == (2 * (28 + 16), 2 * strip + 8, 3)
    for i in range(3):
        left, top = (i % 2) * (strip + 8), (i // 2) * 44 + 28
        assert [int(picture[top + 8, left + 8 + 16 * k, 0]) for k in range(3)] == [40 * (i + 1) + t for t in (0, 8, 16)]
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]


def test_a_folder_that_is_not_there_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        contact_sheet([np.zeros((1, 8, 8, 3), np.uint8)], ["a"], tmp_path / "no" / "sheet.png")
