"""Contact sheets: rows of clips as strips of frames, so that a person looks rather than reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def contact_sheet(
    clips: Sequence[np.ndarray], captions: Sequence[str], path: Path, columns: int = 2, shown: int = 6
) -> None:
    """Write a PNG of clips (uint8 [T, H, W, 3] each), `shown` evenly spaced frames of each under its caption."""
    strips = []
    for clip in clips:
        picks = np.linspace(0, len(clip) - 1, min(shown, len(clip))).round().astype(int)
        strips.append(np.concatenate([np.asarray(clip[i]) for i in picks], axis=1))
    height, width = strips[0].shape[:2]
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (columns * (width + 8), rows * (height + 20)), (24, 24, 28))
    draw = ImageDraw.Draw(sheet)
    for i, (strip, text) in enumerate(zip(strips, captions, strict=True)):
        x, y = (i % columns) * (width + 8), (i // columns) * (height + 20)
        draw.text((x + 2, y + 2), text[: width // 6], fill=(235, 235, 235))
        sheet.paste(Image.fromarray(strip), (x, y + 15))
    partial = Path(path).with_suffix(".partial.png")
    sheet.save(partial)
    partial.rename(path)
