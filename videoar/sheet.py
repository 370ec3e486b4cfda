"""Contact sheets: clips as strips of frames under their captions, so that a person looks rather than reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_LINE, _GAP, _LETTER = 14, 8, 6  # pixels


def contact_sheet(
    clips: Sequence[np.ndarray], captions: Sequence[str], path: str | Path, columns: int = 2, shown: int = 6
) -> None:
    """Writes a PNG: `shown` evenly spaced frames of each clip (uint8 [T, H, W, 3], all of one size) under its caption.

    A caption may have several lines. The file is there as a whole or not at all.
    """
    strips = []
    for clip in clips:
        picks = np.linspace(0, len(clip) - 1, min(shown, len(clip))).round().astype(int)
        strips.append(np.concatenate([np.asarray(clip[i]) for i in picks], axis=1))
    height, width = strips[0].shape[:2]
    head = _LINE * max(text.count("\n") + 1 for text in captions)
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (head + height)), (24, 24, 28))
    draw = ImageDraw.Draw(sheet)
    for i, (strip, text) in enumerate(zip(strips, captions, strict=True)):
        x, y = (i % columns) * (width + _GAP), (i // columns) * (head + height)
        for line, part in enumerate(text.split("\n")):
            draw.text((x + 2, y + line * _LINE), part[: width // _LETTER], fill=(235, 235, 235))
        sheet.paste(Image.fromarray(strip), (x, y + head))
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    sheet.save(partial, "PNG")
    partial.replace(path)
