"""An evaluation for people: its tables in Markdown and its figures with their intervals drawn as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from .playbench import LEFT_OUT, NOT_VBENCH, SUMS
from .quality import QUALITY
from .score import DIMENSIONS

NAMES = {
    "real": "real renders (the detector's ceiling)",
    "codec": "renders through the codec",
    "frozen": "their first picture held (control)",
    "noise": "noise (control)",
    "base": "base",
    "shuffled": "films against other prompts (control)",
}
_COLORS = {"real": "#718096", "codec": "#a0aec0", "frozen": "#cbd5e0", "noise": "#cbd5e0", "base": "#6b46c1"}
_MODEL, _CONTROL = "#2b6cb0", "#cbd5e0"
_LABEL, _PANEL, _ROW, _TOP = 250, 92, 18, 46
_BLOCKS = ((*SUMS, *QUALITY), DIMENSIONS)  # of the tables and of the drawing

Table = dict[str, dict[str, Any]]


def rows_of(result: dict[str, Any]) -> Table:
    """All rows of an evaluation under the names that people read, in order: references, base, plans, control."""
    rows: Table = {
        NAMES[name]: result["rows"][name] for name in ("real", "codec", "frozen", "noise") if name in result["rows"]
    }
    if "base" in result:
        rows[f"{NAMES['base']}: {result['base']['settings']}"] = result["base"]["model"]
    rows |= {f"model, {plan}": tables["model"] for plan, tables in result["plans"].items()}
    return rows | {NAMES["shuffled"]: result["rows"]["shuffled"]}


def markdown(result: dict[str, Any], drawing: str = "", sheet: str = "") -> str:
    """The whole evaluation as a page; drawing and sheet are names of files beside it."""
    s = result["settings"]
    films = f"{result['clips']} held-out prompts, {result['seeds']} film{'s' * (result['seeds'] > 1)} of each and plan"
    parts = [
        f"# PlayBench: {s['model']}",
        f"{films}; {s['steps']} steps, guidance {s['guidance_scale']:g}. In percent, with 95% bootstrap intervals "
        "over prompts; differences inside the intervals are ties.",
        tables(rows_of(result)),
        "Left out: " + "; ".join(f"{name} ({why})" for name, why in LEFT_OUT.items()) + ".",
    ]
    if drawing:
        parts.append(f"![the same, drawn]({drawing})")
    if seams := {plan: t["seams"] for plan, t in result["plans"].items() if t.get("seams")}:
        lines = ["| plan | films | real renders |", "|---|---|---|"]
        lines += [f"| {plan} | {_interval(v['model'])} | {_interval(v['real'])} |" for plan, v in seams.items()]
        parts += ["**Seams**: steps at the borders of units over steps elsewhere.", "\n".join(lines)]
    if pieces := result.get("drift", {}).get("pieces"):
        dims = list(pieces[0]["model"])
        lines = ["| until | " + " | ".join(dims) + " |", "|---" * (len(dims) + 1) + "|"]
        for piece in pieces:
            cells = [f"{100 * piece['model'][d]:.0f} ({100 * piece['real'][d]:.0f})" for d in dims]
            lines.append(f"| {piece['until_s']:g} s | " + " | ".join(cells) + " |")
        parts += [
            f"**Drift**: {result['drift']['films']} long films with {s['plan']}, read piece by piece; in brackets "
            "renders.",
            "\n".join(lines),
        ]
    if sheet:
        parts.append(f"![contact sheet]({sheet})")
    parts.append(f"{result['hardware']}, commit {result['commit']}, {result['date']}.")
    return "\n\n".join(parts) + "\n"


def tables(rows: Table) -> str:
    """Two Markdown tables: PlayBench's sums with the dimensions of Quality, and the shares that are right."""
    sums, attributes = _BLOCKS
    about = f"PlayBench: Total = (4 Quality + Semantic) / 5; {NOT_VBENCH}."
    if any(name not in figures for figures in rows.values() for name in SUMS):
        about += " A dash: no prompt measured one of its dimensions; more prompts (--clips) do."
    return f"{_table('PlayBench', rows, sums, 1)}\n\n{about}\n\n{_table('percent right', rows, attributes, 0)}"


def _table(title: str, rows: Table, names: Sequence[str], digits: int) -> str:
    lines = [f"| {title} | " + " | ".join(map(_title, names)) + " |", "|---" * (len(names) + 1) + "|"]
    for row, figures in rows.items():
        cells = [_percent(figures[name], digits) if name in figures else "-" for name in names]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _title(name: str) -> str:
    return name.title() if name in SUMS else name.replace("_", " ")


def drawing(result: dict[str, Any]) -> str:
    """An SVG: a panel for each figure, in it a dot and an interval for each row. Every axis goes from 0 to 100%."""
    rows = rows_of(result)
    block = _TOP + len(rows) * _ROW + 24
    width, height = _LABEL + max(map(len, _BLOCKS)) * _PANEL + 16, len(_BLOCKS) * block + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, names in enumerate(_BLOCKS):
        parts += _block(rows, names, i * block + _TOP)
    parts.append(f'<text x="{_LABEL}" y="{height - 8}">Total = (4 Quality + Semantic) / 5; {NOT_VBENCH}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _block(rows: Table, names: Sequence[str], top: int) -> list[str]:
    """Panels beside each other, with the names of the rows on the left."""
    parts = []
    bottom = top + len(rows) * _ROW
    for j, name in enumerate(names):
        x = _LABEL + j * _PANEL
        for k, word in enumerate(reversed(_title(name).split())):
            parts.append(f'<text x="{x}" y="{top - 14 - 13 * k}" font-weight="bold">{word}</text>')
        parts.append(f'<path d="M{x} {top - 6}V{bottom}H{x + _PANEL - 18}" fill="none" stroke="#a0aec0"/>')
        parts.append(f'<text x="{x}" y="{bottom + 14}">0</text>')
        parts.append(f'<text x="{x + _PANEL - 18}" y="{bottom + 14}" text-anchor="end">100</text>')
    colors = {NAMES[k]: v for k, v in _COLORS.items()}
    for i, (row, figures) in enumerate(rows.items()):
        y = top + i * _ROW + _ROW / 2
        color = colors.get(
            row, _CONTROL if row == NAMES["shuffled"] else _COLORS["base"] if row.startswith("base") else _MODEL
        )
        parts.append(f'<text x="{_LABEL - 10}" y="{y + 4:.0f}" text-anchor="end">{escape(row[:46])}</text>')
        for j, name in enumerate(names):
            if name in figures:
                at = [_LABEL + j * _PANEL + (_PANEL - 18) * figures[name][k] for k in ("low", "share", "high")]
                parts.append(f'<path d="M{at[0]:.1f} {y}H{at[2]:.1f}" stroke="{color}" stroke-width="2"/>')
                parts.append(f'<circle cx="{at[1]:.1f}" cy="{y}" r="3.5" fill="{color}"/>')
    return parts


def _percent(figure: dict[str, float], digits: int) -> str:
    middle, low, high = (f"{100 * figure[k]:.{digits}f}" for k in ("share", "low", "high"))
    return f"{middle} ({low}-{high})"


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['mean']:.2f} ({figure['low']:.2f}-{figure['high']:.2f})"
