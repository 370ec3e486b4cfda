"""A film as a viewer has it so far: every patch is painted where it belongs; what is missing is held or dark.

Shapes: T pictures, H/W height and width of the film; pixels are uint8 RGB.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from .events import Patch


class Painting:
    """The pictures of one film that is being made, to keep what is there when somebody stops it."""

    def __init__(self, height: int, width: int) -> None:
        self._size = height, width
        self._pictures: list[np.ndarray] = []  # [H, W, 3] each, from number `_taken` on
        self._painted: list[np.ndarray] = []  # bool [H, W] each
        self._taken = self._exact = 0
        self._last = np.zeros((height, width, 3), np.uint8)  # what is on the screen before the first of them

    def paint(self, patch: Patch) -> None:
        """Puts a patch into its place, scaled up where it is smaller than that; later patches cover earlier ones."""
        rows, cols = slice(patch.y, patch.y + patch.height), slice(patch.x, patch.x + patch.width)
        for place, picture in enumerate(patch.frames, patch.first_frame - self._taken):
            while len(self._pictures) <= place:
                self._pictures.append(np.zeros((*self._size, 3), np.uint8))
                self._painted.append(np.zeros(self._size, bool))
            if picture.shape[:2] != (patch.height, patch.width):
                image = Image.fromarray(np.ascontiguousarray(picture))
                picture = np.asarray(image.resize((patch.width, patch.height), Image.Resampling.BILINEAR))
            self._pictures[place][rows, cols] = picture
            self._painted[place][rows, cols] = True
        if not patch.preview:  # exact pictures come whole and in order
            self._exact = patch.first_frame + len(patch.frames)

    def take(self) -> list[np.ndarray]:
        """The next pictures that will not change any more, uint8 [H, W, 3] each; they are forgotten here."""
        count = self._exact - self._taken
        taken, self._pictures = self._pictures[:count], self._pictures[count:]
        self._painted, self._taken = self._painted[count:], self._exact
        self._last = taken[-1] if taken else self._last
        return taken

    def film(self) -> list[np.ndarray]:
        """The rest of the film, up to the last picture with anything on it, previews included: uint8 [H, W, 3] each.

        Where a picture is not painted the one before it stays, as on a screen; what was never painted is black.
        """
        film, last = [], self._last
        for picture, painted in zip(self._pictures, self._painted, strict=True):
            last = picture if painted.all() else np.where(painted[..., None], picture, last)
            film.append(last)
        return film
