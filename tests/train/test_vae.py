"""A codec that is fitted like another one takes over what was trained for that one."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from train.data import sample_video
from train.export import STARTED, commands, known_provenance, note_start
from train.presets import SMOKE
from train.run import Run
from train.stages import STAGES
from train.vae import LINEAR, fit_linear_codec
from train.workshop import Workshop
from videoar.codec import TinyCodec
from videoar.folders import find_folder

PLAIN = dataclasses.replace(SMOKE, codec=dataclasses.replace(SMOKE.codec, z_dim=6, fit_clips=48))
LAPPED = dataclasses.replace(PLAIN, codec=dataclasses.replace(PLAIN.codec, lapped=True))


@pytest.fixture(scope="module")
def plain():
    codec = fit_linear_codec(PLAIN, seed=1)
    torch.nn.init.normal_(codec.head.weight)  # as if it had been trained
    return codec


@pytest.fixture(scope="module")
def video():
    return sample_video(PLAIN, 8, "unseen")


def test_it_describes_the_same_as_the_best_components_do(plain, video):
    alone, like = (fit_linear_codec(LAPPED, 2, other) for other in (None, plain))
    pictures = [codec.linear_decode(codec.encode(video)) for codec in (alone, like)]
    assert torch.allclose(*pictures, atol=1e-4)
    assert torch.allclose(like.basis @ like.basis.T, torch.eye(6), atol=1e-5)


def test_its_latents_resemble_the_other_codecs(plain, video):
    wanted = plain.encode(video)
    alone, like = (fit_linear_codec(LAPPED, 2, other).encode(video) for other in (None, plain))
    assert F.mse_loss(like, wanted) < 0.15 * wanted.var()
    assert F.mse_loss(like, wanted) < 0.5 * F.mse_loss(alone, wanted)


def test_of_one_kind_and_seed_they_are_the_same(plain, video):
    again = fit_linear_codec(PLAIN, seed=1, like=plain)
    assert torch.allclose(again.encode(video), plain.encode(video), atol=1e-3)
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in again.state_dict().items() if k not in LINEAR)


def test_a_codec_of_another_shape_is_refused(plain):
    with pytest.raises(ValueError, match="the codec to begin with has other sizes"):
        fit_linear_codec(dataclasses.replace(LAPPED, codec=dataclasses.replace(LAPPED.codec, z_dim=4)), 0, plain)


def test_the_stage_takes_a_model_folder(tmp_path):
    preset = dataclasses.replace(LAPPED, codec=dataclasses.replace(LAPPED.codec, z_dim=24))
    workshop = Workshop(preset, tmp_path, threads=1)
    STAGES["linear"](dataclasses.replace(workshop, init=find_folder(None)), lambda row: None)
    codec = TinyCodec.from_pretrained(workshop.folder("vae") / "linear")
    assert codec.config.lapped
    assert codec.head.weight.abs().sum() > 0
    told = known_provenance(find_folder(None))
    assert json.loads((workshop.folder("vae") / STARTED).read_text()) == told
    record = {"steps": 1, "started_from": told}
    first, second = commands("smoke", {"vae": record}).split(" && ")
    assert first == f"python -m train linear --preset smoke --init {find_folder(None)}"
    assert second == "python -m train vae --preset smoke"


def test_a_stage_that_began_with_another_ones_result_tells_its_history(tmp_path):
    earlier = Run(tmp_path / "causal")
    earlier.log(step=1, loss=0.5)
    earlier.save(1, {"x": torch.zeros(1)}, {})
    note_start(earlier.folder, find_folder(None))
    known = known_provenance(earlier.folder)
    assert (known["stage"], known["steps"], known["loss"]) == ("causal", 1, 0.5)
    assert known["started_from"]["folder"] == str(find_folder(None))
    assert known["started_from"]["stage"] == "dmd"
