"""How the results of benchmarks are kept; what they were measured on is videoar.provenance's to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videoar import provenance
from videoar.provenance import RESULTS, machine

__all__ = ["RESULTS", "machine", "write_result"]


def write_result(name: str, result: dict[str, Any], path: Path | None = None) -> Path:
    return provenance.write_result(path or RESULTS / f"{name}.json", result)
