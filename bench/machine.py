"""How the results of benchmarks are kept; what they were measured on is videoar.provenance's to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from videoar import provenance
from videoar.provenance import RESULTS, machine

__all__ = ["RESULTS", "machine", "read_result", "write_result"]


def write_result(name: str, result: dict[str, Any], path: Path | None = None) -> Path:
    return provenance.write_result(path or RESULTS / f"{name}.json", result)


def read_result(name: str, path: Path | None = None) -> dict[str, Any] | None:
    """What was written before, or None; a damaged file is nothing."""
    try:
        result = json.loads((path or RESULTS / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) else None
