"""Contact sheets: a few frames of several worlds with their captions, as one picture."""

from PIL import Image, ImageDraw

from .grammar import caption
from .render import render
from .world import World

LINE, GAP = 14, 8  # pixels


def sheet(worlds: list[World], captions: list[str] | None = None, size: int = 128, columns: int = 2) -> Image.Image:
    """A row of five frames for each world, under its caption (the canonical one if none is given)."""
    captions = captions or [caption(w) for w in worlds]
    moments = (0, 7, 14, 21, 28)
    video_BTHWC = render(worlds, frames=moments[-1] + 1, size=size)
    strip = len(moments) * size
    picture = Image.new(
        "RGB", (columns * (strip + GAP) - GAP, -(-len(worlds) // columns) * (size + LINE)), (24, 24, 28)
    )
    draw = ImageDraw.Draw(picture)
    for i, text in enumerate(captions):
        left, top = (i % columns) * (strip + GAP), (i // columns) * (size + LINE)
        draw.text((left + 2, top), text[: strip // 6], fill=(240, 240, 240))
        for j, moment in enumerate(moments):
            picture.paste(Image.fromarray(video_BTHWC[i, moment].numpy()), (left + j * size, top + LINE))
    return picture
