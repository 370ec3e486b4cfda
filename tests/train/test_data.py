"""Clips from folders and lists of videos, and from the base model: resumable, and honest about what is not usable."""

import dataclasses
import sys
import types

import numpy as np
import pytest
import torch

from train.data import Pool, make_video_shard
from train.presets import SMOKE
from train.stages import APART, STAGES
from train.videos import find_videos, read_clip
from train.workshop import Workshop
from videoar.video import write_mp4


def film(path, value=128, frames=20, fps=16, size=(48, 64), caption="a red ball rises"):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((*size, 3), value, np.uint8)
    write_mp4(path, [picture] * frames, fps)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    workshop = Workshop(SMOKE, tmp_path_factory.mktemp("runs"), threads=1)
    for stage in ("text", "linear"):
        STAGES[stage](workshop, lambda row: None)
    return workshop


@pytest.fixture
def workshop(prepared, tmp_path):
    folder = tmp_path / "runs" / SMOKE.name
    folder.mkdir(parents=True)
    for stage in ("text", "vae"):
        (folder / stage).symlink_to(prepared.folder(stage))
    return Workshop(SMOKE, tmp_path / "runs", threads=1)


class TestFinding:
    def test_a_folder_of_videos_with_text_files(self, tmp_path):
        film(tmp_path / "b.mp4", caption="two\n")
        film(tmp_path / "deep" / "a.mp4", caption="one")
        film(tmp_path / "bare.mp4", caption=None)
        videos, bare = find_videos(tmp_path)
        assert [(v.path.name, v.caption) for v in videos] == [("b.mp4", "two"), ("a.mp4", "one")]
        assert bare == ["bare.mp4: no caption"]

    def test_a_list(self, tmp_path):
        (tmp_path / "list.csv").write_text('file_name,score,text\nx/a.mp4,1,"red, round"\nb.mp4,2,\n')
        videos, bare = find_videos(tmp_path / "list.csv")
        assert [(v.path, v.caption) for v in videos] == [(tmp_path / "x/a.mp4", "red, round")]
        assert bare == ["b.mp4: no caption"]

    def test_a_parquet_list(self, tmp_path, monkeypatch):
        """With a stand-in for pyarrow, which is not among what the tests need."""
        (tmp_path / "list.parquet").write_bytes(b"PAR1")

        class Table:
            column_names = ("path", "caption")

            def to_pylist(self):
                return [{"path": "x/a.mp4", "caption": "red"}, {"path": "b.mp4", "caption": None}]

        arrow, parquet = types.ModuleType("pyarrow"), types.ModuleType("pyarrow.parquet")
        arrow.ArrowException = type("ArrowException", (Exception,), {})
        arrow.parquet, parquet.read_table = parquet, lambda path: Table()
        monkeypatch.setitem(sys.modules, "pyarrow", arrow)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
        videos, bare = find_videos(tmp_path / "list.parquet")
        assert [(v.path, v.caption) for v in videos] == [(tmp_path / "x/a.mp4", "red")]
        assert bare == ["b.mp4: no caption"]

        def damaged(path):
            raise arrow.ArrowException("no magic bytes")

        parquet.read_table = damaged
        with pytest.raises(ValueError, match=r"list.parquet cannot be read as a Parquet file: no magic bytes"):
            find_videos(tmp_path / "list.parquet")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ValueError, match="pip install pyarrow, or name a CSV list"):
            find_videos(tmp_path / "list.parquet")

    def test_nothing_to_train_on_is_said(self, tmp_path):
        with pytest.raises(ValueError, match="does not exist"):
            find_videos(tmp_path / "missing")
        with pytest.raises(ValueError, match="has no videos"):
            find_videos(tmp_path)
        film(tmp_path / "a.mp4", caption=None)
        with pytest.raises(ValueError, match=r"put a text file beside each \(a.txt for a.mp4\)"):
            find_videos(tmp_path)
        (tmp_path / "list.csv").write_text("a.mp4,a ball\n")
        with pytest.raises(ValueError, match="a column path and a column caption"):
            find_videos(tmp_path / "list.csv")


class TestReading:
    def test_time_and_size_are_the_presets(self, tmp_path):
        """A film whose i-th picture at 16 fps is grey 5 i, read at 8 fps: every second one; wide sides are cut."""
        pictures = [np.full((48, 96, 3), 5 * i, np.uint8) for i in range(20)]
        for picture in pictures:
            picture[:, :24] = picture[:, -24:] = 255
        write_mp4(tmp_path / "a.mp4", pictures, 16)
        clip = read_clip(tmp_path / "a.mp4", frames=9, fps=8, height=32, width=32)
        assert clip.shape == (9, 32, 32, 3)
        assert clip.dtype == torch.uint8
        levels = clip[:, 8:24, 8:24].float().mean((1, 2, 3))
        assert torch.allclose(levels, torch.arange(9) * 10.0, atol=3)

    def test_too_short_is_said(self, tmp_path):
        with pytest.raises(ValueError, match=r"a.mp4 is too short: 0.6 s, where 1.1 s are needed"):
            read_clip(film(tmp_path / "a.mp4", frames=10), 9, 8, 32, 32)


def test_a_corrupt_video_in_the_middle_is_skipped_counted_and_named(workshop, tmp_path, capsys):
    for i, name in enumerate(("a", "b", "c", "d")):
        film(tmp_path / "videos" / f"{name}.mp4", value=60 * i, caption=f"caption {name}")
    whole = (tmp_path / "videos" / "b.mp4").read_bytes()
    (tmp_path / "videos" / "b.mp4").write_bytes(whole[:200])
    workshop.data = tmp_path / "videos"
    STAGES["data"](workshop, lambda row: None)
    said = capsys.readouterr().err
    assert "1 videos were skipped" in said
    assert "b.mp4" in said
    assert "b.mp4" in (workshop.folder("data") / "skipped.txt").read_text()
    pool = workshop.source()
    pool.refresh()
    assert len(pool) == 3
    batch = pool.batch(0, 16)
    assert set(batch.prompts) == {"caption a", "caption c", "caption d"}
    embedded = workshop.text()([batch.prompts[0]])[0]
    assert torch.allclose(batch.text[0].float(), embedded[: len(batch.text[0])], atol=0.02)
    assert not embedded[len(batch.text[0]) :].any()
    # The cached embeddings serve training: no text encoder is read for a preset that is not Playworld's.
    workshop.preset = dataclasses.replace(SMOKE, playworld=False)
    for stage in ("base", "causal", "dmd"):
        STAGES[stage](workshop, lambda row: None)
    workshop.data = tmp_path / "other"
    film(tmp_path / "other" / "z.mp4")
    with pytest.raises(ValueError, match="holds clips of another source"):
        STAGES["data"](workshop, lambda row: None)


def test_only_corrupt_videos_are_an_error(workshop, tmp_path):
    film(tmp_path / "videos" / "a.mp4").write_bytes(b"nothing")
    workshop.data = tmp_path / "videos"
    with pytest.raises(ValueError, match=r"none of the 1 videos .* could be used"):
        STAGES["data"](workshop, lambda row: None)


def test_shards_may_be_short_or_empty(tmp_path):
    pool = Pool(tmp_path)
    for index, count in enumerate((2, 0, 3)):
        pool.write(index, torch.full((count, 1, 1, 1, 1), float(index)), [torch.zeros(1, 2) for _ in range(count)],
                   captions=[f"{index}.{i}" for i in range(count)])  # fmt: skip
    pool.refresh()
    assert len(pool) == 5
    batch = pool.batch(0, 64)
    assert set(batch.prompts) == {"0.0", "0.1", "2.0", "2.1", "2.2"}
    assert [prompt[0] for prompt in batch.prompts] == [str(int(z)) for z in batch.latents_BCFHW.flatten()]


def test_a_damaged_shard_is_named(tmp_path):
    (tmp_path / "clips-00000.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(ValueError, match=r"clips-00000.safetensors is damaged .* remove it"):
        Pool(tmp_path).refresh()


def test_samples_of_the_base_resume_and_the_causal_stage_trains_on_them(workshop, monkeypatch):
    monkeypatch.setattr("train.stages.SHARD", 2)
    for stage in ("data", "base"):
        STAGES[stage](workshop, lambda row: None)
    APART["sample_base"](workshop, lambda row: None)
    files = sorted(workshop.folder("samples").glob("clips-*"))
    first = [path.read_bytes() for path in files]
    assert len(files) == 2  # three clips
    files[0].unlink()
    kept = files[1].stat().st_ino
    APART["sample_base"](workshop, lambda row: None)
    assert [path.read_bytes() for path in files] == first
    assert files[1].stat().st_ino == kept
    source = workshop.source("causal")
    source.refresh()
    assert len(source) == 3
    assert source.batch(0, 3).latents_BCFHW.shape == (3, 24, 3, 4, 4)
    assert workshop.source("base").folder == workshop.folder("data")
    STAGES["causal"](workshop, lambda row: None)


def test_every_process_makes_its_own_shards(workshop, monkeypatch):
    from train.stages import own_shards

    class Two:
        process_index, num_processes = 1, 2

        def __init__(self, cpu):
            pass

        def wait_for_everyone(self):
            pass

    monkeypatch.setattr("train.stages.PartialState", Two)
    pool = Pool(workshop.folder("data"))
    assert list(own_shards(pool, 5 * 128, lambda row: None)) == [1, 3]
    assert list(own_shards(pool, 1, lambda row: None)) == []  # more processes than data


def test_what_cannot_be_read_does_not_stop_a_shard(workshop, tmp_path):
    videos, _ = find_videos(film(tmp_path / "v" / "a.mp4").parent)
    pool, codec = Pool(tmp_path / "pool"), workshop.codec()
    missing = dataclasses.replace(videos[0], path=tmp_path / "gone.mp4")
    skipped = make_video_shard(pool, 0, [missing, *videos], SMOKE, codec.encode, workshop.text())
    assert len(skipped) == 1
    assert "gone.mp4" in skipped[0]
    pool.refresh()
    assert len(pool) == 1
