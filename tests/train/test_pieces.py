"""Weights that were cut into files come back whole, or whoever joins them is told which file is at fault."""

import json
import os
from pathlib import Path

import pytest
import torch

from train import pieces
from train.pieces import MANIFEST, Pieces, join, read_manifest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 1000)
    return tmp_path / "out"


def weights(value, size=1500):
    return {"a.weight": torch.full((size,), float(value)), "b": torch.tensor([value + 0.5])}


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def test_the_newest_weights_and_those_that_are_kept_come_back(folder):
    out = Pieces(folder, {"preset": "smoke"})
    out.write("base", weights(1), keep=("causal",), step=10)
    out.write("base", weights(2), keep=("causal",), step=20)
    assert files(folder) == ["base-2.00", "base-2.01", "base-2.02", "base-2.03", MANIFEST]
    assert all((folder / name).stat().st_size <= 1000 for name in files(folder) if name != MANIFEST)
    out.write("causal", weights(3), keep=("causal",), step=5)
    out.write("dmd", weights(4, size=10), keep=("causal",), step=1)
    found, manifest = join(folder)
    assert (manifest["newest"], manifest["preset"]) == ("dmd", "smoke")
    assert found["a.weight"].dtype == torch.bfloat16
    assert found["a.weight"].tolist() == [4.0] * 10
    assert join(folder, "causal")[0]["a.weight"].tolist() == [3.0] * 1500
    assert manifest["networks"]["causal"]["step"] == 5
    with pytest.raises(ValueError, match="no weights of 'base', only of causal, dmd"):
        join(folder, "base")


def test_an_earlier_sprint_stays_until_there_is_something_in_its_place(folder):
    Pieces(folder, {}).write("base", weights(1))
    (folder / "notes.txt").write_text("mine")
    (folder / "report-2024.12").write_text("mine as well")
    again = Pieces(folder, {})
    assert join(folder)[0]["a.weight"][0] == 1
    again.write("base", weights(2, size=10))
    assert files(folder) == ["base-2.00", "notes.txt", "report-2024.12", MANIFEST]
    assert join(folder)[0]["a.weight"][0] == 2


def test_the_folder_may_be_the_one_we_stand_in_or_a_disk_of_its_own(folder, monkeypatch):
    """Nothing is written beside it."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    real = os.replace

    def replace(source, target):
        assert folder in Path(source).resolve().parents
        real(source, target)

    monkeypatch.setattr(pieces.os, "replace", replace)
    Pieces(Path(), {}).write("base", weights(1, size=10))
    assert files(folder) == ["base-1.00", MANIFEST]
    assert files(folder.parent) == [folder.name]


def test_two_sprints_do_not_write_to_one_folder(folder):
    first = Pieces(folder, {})
    with pytest.raises(ValueError, match=r"another sprint writes to .*choose another --out"):
        Pieces(folder, {})
    first.write("base", weights(1))
    del first
    Pieces(folder, {}).write("base", weights(2))
    assert join(folder)[0]["a.weight"][0] == 2


def test_what_a_killed_process_left_is_cleared_away(folder):
    (folder / f"{pieces.STAGING}123").mkdir(parents=True)
    (folder / f"{pieces.STAGING}123" / "base-1.00").write_bytes(b"half")
    Pieces(folder, {})
    assert files(folder) == []


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"could not write .*file"):
        Pieces(tmp_path / "file", {})


def test_old_pieces_that_cannot_be_removed_harm_nothing(folder, monkeypatch):
    out = Pieces(folder, {})
    out.write("base", weights(1))

    def stuck(path, missing_ok=False):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "unlink", stuck)
    out.write("base", weights(2))
    assert join(folder)[0]["a.weight"][0] == 2


@pytest.mark.parametrize("harm", ["missing", "cut", "changed"])
def test_a_piece_at_fault_is_named(folder, harm):
    out = Pieces(folder, {})
    out.write("causal", weights(1), keep=("causal",))
    out.write("dmd", weights(2), keep=("causal",))
    piece = folder / "dmd-2.01"
    content = piece.read_bytes()
    if harm == "missing":
        piece.unlink()
    else:
        piece.write_bytes(content[:500] if harm == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    said = "is missing" if harm == "missing" else "is damaged"
    with pytest.raises(ValueError, match=rf"dmd-2\.01 {said}.*copy it once more, or join .*--network causal"):
        join(folder)
    assert join(folder, "causal")[0]["a.weight"][0] == 1


def manifest_of(*pieces):
    return json.dumps({"newest": "dmd", "networks": {"dmd": {"pieces": pieces}}})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"newest": "dmd", "networks": {}}',
        '{"newest": "dmd", "networks": ["dmd"]}',
        '{"newest": "dmd", "networks": {"dmd": {}}}',
        manifest_of(),
        manifest_of({"name": "dmd-1.00", "sha256": ""}),
        manifest_of({"name": "../dmd-1.00", "sha256": "", "bytes": 1}),
        manifest_of({"name": 5, "sha256": "", "bytes": 1}),
    ],
)
def test_a_damaged_manifest_is_named(folder, content):
    Pieces(folder, {}).write("base", weights(1))
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=r"sprint\.json is damaged"):
        read_manifest(folder)


@pytest.mark.parametrize("when", range(5))
def test_a_kill_at_any_moment_leaves_weights_that_join(folder, monkeypatch, when):
    """The files are moved in one by one; whichever move is the last, the old weights or the new ones are there."""
    out = Pieces(folder, {})
    out.write("base", weights(1))
    real, moved = os.replace, []

    def replace(*where):
        if len(moved) == when:
            raise KeyboardInterrupt
        moved.append(where)
        real(*where)

    monkeypatch.setattr(pieces.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        out.write("base", weights(2))
    assert join(folder)[0]["a.weight"][0] == 1


def test_a_failed_write_leaves_the_weights_before_it(folder, monkeypatch):
    out = Pieces(folder, {})
    out.write("base", weights(1))
    before = files(folder)

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pieces, "_write", full)
    with pytest.raises(OSError, match="the weights before these are untouched"):
        out.write("base", weights(2))
    assert files(folder) == before
    assert join(folder)[0]["a.weight"][0] == 1
    assert not [p for p in folder.parent.iterdir() if p != folder]
