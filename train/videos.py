"""Captioned videos as training data: found in a folder or a list, decoded, cut to the preset's size and rate."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from videoar.video import read_video

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
_PATH, _CAPTION = ("path", "video", "file", "file_name"), ("caption", "text", "prompt")


@dataclass(frozen=True)
class Captioned:
    path: Path
    caption: str


def find_videos(source: Path) -> tuple[list[Captioned], list[str]]:
    """The captioned videos of a folder (a .txt of the same name beside each) or of a CSV or Parquet list, in a fixed
    order, and a sentence about each that has no caption.

    A list has a column path (or video, file, file_name; relative to the list) and a column caption (or
    text, prompt). Raises ValueError where there is nothing to train on.
    """
    if not source.exists():
        raise ValueError(f"{source} does not exist; --data names a folder of videos or a CSV or Parquet list")
    found = _listed(source) if source.is_file() else _in_folder(source)
    if not found:
        raise ValueError(f"{source} has no videos ({', '.join(SUFFIXES)})")
    bare = [f"{path.name}: no caption" for path, caption in found if not caption]
    videos = [Captioned(path, caption) for path, caption in found if caption]
    if not videos:
        raise ValueError(
            f"none of the {len(found)} videos in {source} has a caption: put a text file beside each "
            f"({found[0][0].with_suffix('.txt').name} for {found[0][0].name}), or name a CSV list of path and caption"
        )
    return videos, bare


def _in_folder(folder: Path) -> list[tuple[Path, str]]:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    texts = [path.with_suffix(".txt") for path in paths]
    return [
        (path, text.read_text(encoding="utf-8", errors="replace").strip() if text.exists() else "")
        for path, text in zip(paths, texts, strict=True)
    ]


def _listed(path: Path) -> list[tuple[Path, str]]:
    fields, rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    names = {str(name).strip().lower(): name for name in fields}
    columns = [next((names[n] for n in wanted if n in names), None) for wanted in (_PATH, _CAPTION)]
    if None in columns:
        raise ValueError(f"{path} is no list of videos: it needs a column path and a column caption, named in line 1")
    return [(path.parent / (row[columns[0]] or ""), (row[columns[1]] or "").strip()) for row in rows]


def _csv(path: Path) -> tuple[list[str], list[dict]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or ()), list(reader)


def _parquet(path: Path) -> tuple[list[str], list[dict]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{path} is a Parquet file: pip install pyarrow, or name a CSV list") from error
    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} cannot be read as a Parquet file: {error}") from error
    return table.column_names, table.to_pylist()


def read_clip(path: Path, frames: int, fps: float, height: int, width: int) -> Tensor:
    """The beginning of a video, uint8 [frames, height, width, 3]: the nearest picture of every 1/fps seconds, scaled to
    cover the size and cut at its centre. Raises ValueError for a damaged video and for one that is too short.
    """
    rate = read_video(path, max_frames=1)[1] or fps
    wanted = [round(i * rate / fps) for i in range(frames)]
    pictures_THWC = read_video(path, max_frames=wanted[-1] + 1)[0]
    if len(pictures_THWC) <= wanted[-1]:
        raise ValueError(
            f"{path.name} is too short: {len(pictures_THWC) / rate:.1f} s, where {frames / fps:.1f} s are needed"
        )
    x = torch.from_numpy(pictures_THWC[wanted]).permute(0, 3, 1, 2).float()
    scale = max(height / x.shape[2], width / x.shape[3])
    size = [max(side, math.ceil(have * scale)) for side, have in ((height, x.shape[2]), (width, x.shape[3]))]
    x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    x = x[:, :, top : top + height, left : left + width]
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
