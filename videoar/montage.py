"""A recorded comparison as one film: panes side by side with labels, clocks and progress, as MP4, GIF or WebP.

Shapes: H/W height and width in pixels; pictures are uint8 RGB [H, W, 3].
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .events import Patch
from .painting import Painting
from .takes import Begun, Done, Ended, Moment, Take
from .video import write_mp4

SUFFIXES = (".mp4", ".gif", ".webp")
SYNCS = ("device", "real", "film")
_SAID = {
    "device": "One device, shared fairly. Each clock counts the device time of its own pane.",
    "real": "One device, shared fairly. All panes run by one clock, as their viewers waited.",
    "film": "All panes show the same moment of the finished films.",
}
_FPS, _ANIMATION_FPS = 24, 12.5  # GIF counts in hundredths of a second
_ANIMATION_WIDTH = 960
_HOLD_S = 0.7  # between the end of the race and the finished films
_LEAST_SIDE = 240  # small films are enlarged to at least this width
_GAP = 12
_BACKGROUND, _SCREEN, _TEXT, _SOFT, _BAR = (17, 18, 24), (30, 32, 39), (240, 241, 245), (160, 165, 176), (52, 56, 66)
_ASPECT = 16 / 9
_EXIF_DESCRIPTION = 0x010E


class Montage:
    """The film of a comparison, drawn when it is asked for.

    sync: how the panes run beside each other until all are done, after which the finished films play once, together.
        "device": by device time, so that each pane shows what its settings reach with the same compute. "real": as it
        was seen live. "film": no race, the finished films alone.
    speed: how many times faster than it was the race is shown; the films play at their own speed.

    Raises ValueError for an unknown sync, a speed that is not above 0, and a recording without contenders.
    """

    def __init__(self, takes: Sequence[Take], sync: str = "device", speed: float = 1.0) -> None:
        if sync not in SYNCS:
            raise ValueError(f"panes are synchronised by {', '.join(SYNCS)}, not {str(sync)[:40]!r}")
        if not 0 < speed < math.inf:
            raise ValueError(f"the speed of a comparison is a number above 0, not {speed}")
        if not takes:
            raise ValueError("there is nothing to compare: no contender has begun")
        self.takes, self.sync, self.speed = list(takes), sync, speed
        ends = [max((_time(moment, sync) for moment in take.moments), default=0.0) for take in takes]
        self.race_s = 0.0 if sync == "film" else max(ends) / speed + _HOLD_S
        self.duration = self.race_s + max(take.frames / take.fps for take in takes)
        scale = max(1, math.ceil(_LEAST_SIDE / max(take.width for take in takes)))
        self._cell = max(take.width for take in takes) * scale, max(take.height for take in takes) * scale
        self._font = max(14, min(40, self._cell[0] // 17))
        self._panes = [_Pane(take, self) for take in takes]

    def settings(self) -> dict[str, Any]:
        """What is kept in the file: enough to make the comparison again."""
        contenders = [{"label": take.label, **take.settings} for take in self.takes]
        return {"comparison": contenders, "sync": self.sync, "speed": self.speed}

    def clip(self) -> Any:
        """The moviepy clip, of even width and height."""
        from moviepy import CompositeVideoClip, ImageClip, VideoClip

        pane_w, pane_h = self._cell[0], self._cell[1] + 4 * self._font
        columns = _columns(len(self._panes), pane_w, pane_h)
        rows = math.ceil(len(self._panes) / columns)
        width = columns * (pane_w + _GAP) + _GAP
        head, foot = self._words(self._title(), width, _TEXT), self._words(self._footnote(), width, _SOFT)
        height = len(head) + rows * (pane_h + _GAP) + len(foot)
        parts = [ImageClip(head), ImageClip(foot).with_position((0, height - len(foot)))]
        for i, pane in enumerate(self._panes):
            place = _GAP + i % columns * (pane_w + _GAP), len(head) + i // columns * (pane_h + _GAP)
            parts.append(VideoClip(pane.picture).with_position(place))
        size = width + width % 2, height + height % 2
        return CompositeVideoClip(parts, size=size, bg_color=_BACKGROUND).with_duration(self.duration)

    def write(self, path: str | Path) -> None:
        """Writes an MP4, GIF or animated WebP, by the file's suffix, with the settings inside.

        Raises ValueError for another suffix, OSError if nothing can be written there.
        """
        path = Path(path)
        if path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"a comparison is written as {', '.join(SUFFIXES)}, not {path.suffix[:20]!r}")
        clip = self.clip()
        if path.suffix.lower() == ".mp4":
            write_mp4(path, clip.iter_frames(fps=_FPS, dtype="uint8"), _FPS, self.settings())
        else:
            pictures = [_reduced(picture) for picture in clip.iter_frames(fps=_ANIMATION_FPS, dtype="uint8")]
            _write_animation(path, pictures, self.settings())

    def _title(self) -> str:
        prompts = {take.settings.get("prompt", "") for take in self.takes}
        return prompts.pop() if len(prompts) == 1 else "Several prompts"

    def _footnote(self) -> str:
        faster = f" {self.speed:g} times as fast as it was." if self.sync != "film" and self.speed != 1 else ""
        return _SAID[self.sync] + faster

    def _words(self, text: str, width: int, colour: tuple[int, int, int]) -> np.ndarray:
        size = self._font
        lines = textwrap.wrap(text, max(10, int(width / (0.55 * size)))) or [""]
        picture = Image.new("RGB", (width, len(lines) * (size + 6) + 2 * _GAP), _BACKGROUND)
        draw = ImageDraw.Draw(picture)
        for i, line in enumerate(lines):
            draw.text((_GAP, _GAP + i * (size + 6)), line, fill=colour, font_size=size)
        return np.asarray(picture)


class _Pane:
    """One contender at any time of the montage: label above, the film so far, clock and progress below."""

    def __init__(self, take: Take, montage: Montage) -> None:
        self.take, self._montage = take, montage
        self._rewind()

    def picture(self, t: float) -> np.ndarray:
        """The pane at `t` seconds of the montage. Cheap if times ascend; earlier ones start anew."""
        montage, take = self._montage, self.take
        playing = t >= montage.race_s
        now = math.inf if playing else t * montage.speed
        if now < self._now:
            self._rewind()
        self._advance(now)
        film_s = t - montage.race_s if playing else t % (take.frames / take.fps)
        # A hair more, since 3 / 12 * 12 may come out below 3.
        return self._draw(min(int(film_s * take.fps + 1e-6), take.frames - 1), now)

    def _rewind(self) -> None:
        self._coming = iter(self.take.moments)
        self._next: Moment | None = None
        self._painting, self._film = Painting(self.take.height, self.take.width), list[np.ndarray]()
        self._begun: Begun | None = None
        self._first: float | None = None
        self._ended: Ended | None = None
        self._done, self._now, self._last = set[int](), 0.0, 0.0

    def _advance(self, now: float) -> None:
        """Applies what had happened until then."""
        self._now, painted, sync = now, False, self._montage.sync
        while True:
            self._next = self._next or next(self._coming, None)
            if self._next is None or _time(self._next, sync) > now:
                break
            moment, self._next = self._next, None
            what, self._last = moment.what, _time(moment, sync)
            if isinstance(what, Patch):
                self._painting.paint(what)
                painted, self._first = True, self._last if self._first is None else self._first
            elif isinstance(what, Begun):
                self._begun = what
            elif isinstance(what, Done):
                self._begun = None
                self._done.add(what.unit)
            else:
                self._begun, self._ended = None, what
        if painted:
            self._film = self._painting.film()

    def _draw(self, frame: int, now: float) -> np.ndarray:
        (width, height), size, take = self._montage._cell, self._montage._font, self.take
        page = Image.new("RGB", (width, height + 4 * size), _BACKGROUND)
        draw = ImageDraw.Draw(page)
        draw.text((0, 0), _shortened(draw, take.label, width, size), fill=_TEXT, font_size=size)
        scale = min(width / take.width, height / take.height)
        shown_w, shown_h = round(take.width * scale), round(take.height * scale)
        left, top = (width - shown_w) // 2, round(1.5 * size)
        draw.rectangle((left, top, left + shown_w - 1, top + shown_h - 1), fill=_SCREEN)
        if self._film:  # beyond its end the last picture stays, as on a screen
            film = Image.fromarray(self._film[min(frame, len(self._film) - 1)])
            page.paste(film.resize((shown_w, shown_h), Image.Resampling.BICUBIC), (left, top))
        if self._begun and self._begun.frames[0] <= frame < self._begun.frames[1]:
            x, y, w, h = (value * scale for value in self._begun.region)
            box = (left + x, top + y, left + x + w - 1, top + y + h - 1)
            draw.rectangle(box, outline=unit_colour(self._begun.unit, take.units), width=max(2, size // 7))
        self._draw_progress(draw, width, top + height + size // 3)
        text = _shortened(draw, self._status(now), width, size)
        draw.text((0, top + height + size), text, fill=_TEXT if self._ended else _SOFT, font_size=size)
        return np.asarray(page)

    def _draw_progress(self, draw: ImageDraw.ImageDraw, width: int, top: int) -> None:
        """A bar of all units in their colours."""
        total, tall = self.take.units, max(4, self._montage._font // 3)
        gap = 2 if width / total > 8 else 0
        for unit in range(total):
            left, right = unit * width / total, (unit + 1) * width / total - gap - 1
            colour = unit_colour(unit, total) if unit in self._done else _BAR
            draw.rectangle((left, top, max(left, right), top + tall), fill=colour)

    def _status(self, now: float) -> str:
        if self._ended and self._ended.message:
            return f"Failed: {self._ended.message}"
        if self._montage.sync == "film" or self._ended or now == math.inf:
            said = "done in" if self._ended else "stopped at"
            first = "" if self._first is None else f"first picture {_seconds(self._first)}, "
            return f"{first}{said} {_seconds(self._last)}"
        return f"{_seconds(now)}, {len(self._done)} of {self.take.units} units"


def unit_colour(index: int, total: int) -> tuple[int, int, int]:
    """The colour of a unit, uint8 RGB: the ramp from first to last that the page draws (app/static/block.js)."""
    f = index / (total - 1) if total > 1 else 0.1
    lightness, chroma, hue = 0.62 + 0.16 * f, 0.17 - 0.01 * f, math.radians(258 + 170 * f)
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    # OKLab to linear sRGB: the matrices of the CSS Color 4 specification.
    l, m, s = (
        (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3,
        (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3,
        (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3,
    )
    red = 4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s
    green = -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s
    blue = -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s
    return _byte(red), _byte(green), _byte(blue)


def _byte(linear: float) -> int:
    c = min(max(linear, 0.0), 1.0)
    return round(255 * (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055))


def _time(moment: Moment, sync: str) -> float:
    return moment.at if sync == "real" else moment.clock


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{int(value) // 60}:{int(value) % 60:02d}"


def _columns(count: int, width: int, height: int) -> int:
    """How many panes stand in a row, so that all of them come close to the shape of a screen, without many gaps."""

    def badness(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * width / (rows * height) / _ASPECT)) + 0.4 * (columns * rows - count)

    return min(range(1, count + 1), key=badness)


def _shortened(draw: ImageDraw.ImageDraw, text: str, width: int, size: int) -> str:
    if draw.textlength(text, font_size=size) <= width:
        return text
    while text and draw.textlength(text + "...", font_size=size) > width:
        text = text[:-1]
    return text + "..."


def _reduced(picture_HWC: np.ndarray) -> Image.Image:
    """At most so wide that a web page can load a whole animation of it."""
    image = Image.fromarray(picture_HWC)
    if image.width <= _ANIMATION_WIDTH:
        return image
    height = round(image.height * _ANIMATION_WIDTH / image.width)
    return image.resize((_ANIMATION_WIDTH, height), Image.Resampling.LANCZOS)


def _write_animation(path: Path, pictures: list[Image.Image], settings: dict[str, Any]) -> None:
    text = json.dumps(settings, sort_keys=True)  # ASCII, which comments and EXIF are
    options: dict[str, Any] = {"save_all": True, "duration": round(1000 / _ANIMATION_FPS), "loop": 0}
    if path.suffix.lower() == ".gif":
        first, *rest = _paletted(pictures)
        first.save(path, append_images=rest, comment=text.encode(), optimize=False, **options)
    else:
        exif = Image.Exif()
        exif[_EXIF_DESCRIPTION] = text
        pictures[0].save(path, append_images=pictures[1:], exif=exif, quality=80, method=4, **options)


def read_animation_settings(path: str | Path) -> dict[str, Any] | None:
    """The settings inside a GIF or WebP of `Montage.write`, or None. Raises ValueError for what is no such picture."""
    try:
        with Image.open(path, formats=("GIF", "WEBP")) as image:
            text = image.info.get("comment") or image.getexif().get(_EXIF_DESCRIPTION)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{Path(path).name} is no GIF or WebP file, or damaged") from error
    try:
        settings = json.loads(text) if text else None
    except ValueError:
        return None
    return settings if isinstance(settings, dict) else None


def _paletted(pictures: list[Image.Image]) -> Iterator[Image.Image]:
    """With one palette for all, taken from a few of them: palettes of their own would flicker."""
    samples = pictures[:: max(1, len(pictures) // 8)]
    sheet = Image.new("RGB", (samples[0].width, sum(sample.height for sample in samples)))
    for i, sample in enumerate(samples):
        sheet.paste(sample, (0, i * sample.height))
    palette = sheet.quantize(256, Image.Quantize.MEDIANCUT)
    for picture in pictures:
        yield picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
