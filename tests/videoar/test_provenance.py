"""Results are written as a whole, with what they were measured on."""

from __future__ import annotations

import json
import subprocess

import pytest

from videoar import provenance


def test_a_result_replaces_the_old_one_only_as_a_whole(tmp_path):
    path = tmp_path / "new" / "result.json"
    assert provenance.write_result(path, {"a": 1}) == path
    with pytest.raises(TypeError):
        provenance.write_result(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_what_a_figure_was_measured_on(monkeypatch):
    measured = provenance.machine()
    assert measured["hardware"]
    assert measured["commit"]
    assert measured["cores"] >= 1

    def no_git(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert provenance.commit() == "unknown"
