"""Draws the samples of `python -m bench long` as an SVG: one small chart for each figure, one line for each film."""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

PANELS = {
    "unit_s": "seconds per unit, as a viewer waits",
    "rss_mb": "resident memory, MB",
    "saturation": "saturation",
    "sharpness": "sharpness",
    "motion": "motion",
    "scene_right": "scene is right",
}
COLORS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568")
_WIDTH, _HEIGHT, _LEFT, _GAP, _COLUMNS = 340, 130, 56, 46, 2
_NAME_WIDTH, _NAME_HEIGHT, _NAMES = 195, 16, 4  # of the films, so many in a row


def plot(films: list[dict[str, Any]]) -> str:
    """films: as in the result, with `window`, `sink` and `samples`. Every axis begins at 0, so that flat looks flat."""
    rows = -(-len(PANELS) // _COLUMNS)
    top = 36 + _NAME_HEIGHT * -(-len(films) // _NAMES)
    width, height = _COLUMNS * (_WIDTH + _LEFT + 10) + 10, rows * (_HEIGHT + _GAP) + top - 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, film in enumerate(films):
        label = escape(f"{film['plan']}, window {film['window']}, sink {film['sink']}")
        x, y = _LEFT + i % _NAMES * _NAME_WIDTH, 20 + i // _NAMES * _NAME_HEIGHT
        parts.append(f'<text x="{x}" y="{y}" fill="{COLORS[i % len(COLORS)]}">{label}</text>')
    end = max(sample["film_s"] for film in films for sample in film["samples"])
    for i, (name, title) in enumerate(PANELS.items()):
        x = _LEFT + (i % _COLUMNS) * (_WIDTH + _LEFT + 10)
        parts += _panel(films, name, title, x, top + (i // _COLUMNS) * (_HEIGHT + _GAP), end)
    return "\n".join([*parts, "</svg>", ""])


def _panel(films: list[dict[str, Any]], name: str, title: str, x: float, y: float, end: float) -> list[str]:
    values = [float(s[name]) for film in films for s in film["samples"] if s[name] is not None]
    top = 1.1 * max(values, default=0.0) or 1.0
    bottom = y + _HEIGHT
    parts = [
        f'<text x="{x}" y="{y - 6}" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{x} {y}V{bottom}H{x + _WIDTH}" fill="none" stroke="#a0aec0"/>',
        f'<text x="{x - 4}" y="{y + 8}" text-anchor="end">{top:.3g}</text>',
        f'<text x="{x - 4}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{x + _WIDTH}" y="{bottom + 14}" text-anchor="end">{end:.0f} s of film</text>',
    ]
    for i, film in enumerate(films):
        points = [(s["film_s"], float(s[name])) for s in film["samples"] if s[name] is not None]
        line = " ".join(f"{x + _WIDTH * t / end:.1f},{bottom - _HEIGHT * v / top:.1f}" for t, v in points)
        color = COLORS[i % len(COLORS)]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.2" opacity="0.8"/>')
    return parts
