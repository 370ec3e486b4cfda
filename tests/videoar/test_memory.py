"""Memory: estimates from shapes, refusals that say what to do, and parts that are kept away from the device."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

import videoar.memory
import videoar.text
from tests.videoar.tiny import INFO, make_text, make_transformer
from videoar.checkpoint import Model, load_model, save_model
from videoar.generate import Request, generate
from videoar.memory import call_elsewhere, check_room, free_bytes, gigabytes, module_bytes, send

REQUEST = Request("a red ball", "frame", seed=1)


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model, path)
    return path


def film(model):
    return list(generate(model, REQUEST))[-1].video


def test_sizes_come_from_shapes(folder):
    model = load_model(folder, device="cpu")
    expected = sum(t.nbytes for t in (*model.transformer.parameters(), *model.transformer.buffers()))
    assert module_bytes(model.transformer) == expected
    with torch.device("meta"):
        empty = type(model.transformer).from_config(model.transformer.config)
    assert module_bytes(empty, lambda name: torch.float32) == expected
    assert free_bytes(torch.device("cpu")) > 2**20
    assert (gigabytes(11_361_000_000), gigabytes(3_000_000)) == ("11.4 GB", "3.0 MB")


def test_what_does_not_fit_is_said_before_weights_are_read(folder, monkeypatch, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    model = load_model(folder, device="cpu")
    weights = sum(module_bytes(part) for part in (model.transformer, model.vae, model.text.encoder))
    # Two-step model, 5 latent frames of 4x4 tokens, 2 blocks of 48 in float32.
    cache = 5 * 16 * 2 * 2 * 48 * 4
    monkeypatch.setattr(videoar.memory, "free_bytes", lambda device: weights + cache)
    load_model(copy, device="cpu")
    monkeypatch.setattr(videoar.memory, "free_bytes", lambda device: weights + cache - 1)
    with pytest.raises(ValueError, match=r"cpu needs .* \(transformer .* and has .* free: try --dtype bfloat16"):
        load_model(copy, device="cpu")
    load_model(copy, device="cpu", dtype=torch.bfloat16)


def test_the_advice_is_followed_up(monkeypatch):
    check_room({"a": 5, "b": 5}, torch.device("cuda:1"), "", free=10)
    with pytest.raises(
        ValueError, match=r"cuda:1 needs 16.0 GB \(a 5.0 GB, b 11.0 GB\) and has 15.0 GB free: buy more"
    ):
        check_room({"a": 5_000_000_000, "b": 11_000_000_000}, torch.device("cuda:1"), "buy more", free=15_000_000_000)


def test_a_module_can_be_called_elsewhere_and_stays_at_home():
    layer = torch.nn.Linear(3, 2)
    home = {name: tensor.data_ptr() for name, tensor in layer.state_dict().items()}
    assert call_elsewhere(layer, torch.device("meta"), torch.ones(1, 3)).device.type == "meta"
    assert {name: tensor.data_ptr() for name, tensor in layer.state_dict().items()} == home
    encoder, ids = make_text().encoder, torch.ones(1, 4, dtype=torch.long)
    here = call_elsewhere(encoder, torch.device("cpu"), ids, ids).last_hidden_state
    assert torch.equal(here, encoder(ids, ids).last_hidden_state)


@pytest.mark.parametrize("room", [True, False])
def test_the_text_encoder_works_on_the_device_where_there_is_room(room, monkeypatch):
    text, used = make_text(), []
    expected, size = text("a red ball"), module_bytes(text.encoder)

    def elsewhere(module, device, *inputs):
        used.append(device.type)
        return call_elsewhere(module, torch.device("cpu"), *(torch.ones_like(i, device="cpu") for i in inputs))

    text.visits = torch.device("meta")
    monkeypatch.setattr(videoar.text, "free_bytes", lambda device: 2 * size if room else size)
    monkeypatch.setattr(videoar.text, "call_elsewhere", elsewhere)
    if room:
        with pytest.raises(RuntimeError, match="device"):  # the mask is on the other device already
            text("a red ball")
    else:
        assert torch.equal(text("a red ball"), expected)
    assert used == ["meta"] * room


@pytest.mark.parametrize("offload", ["text", "blocks"])
def test_offloading_changes_no_pixel(offload, folder):
    assert (film(load_model(folder, device="cpu", offload=offload)) == film(load_model(folder, device="cpu"))).all()


def test_every_weight_is_fetched_before_it_is_used(tiny_model, tmp_path):
    """With the weights on disk, a layer whose hook did not fire would compute with nothing."""
    transformer = make_transformer()
    cpu = torch.device("cpu")
    transformer.enable_group_offload(cpu, cpu, offload_type="leaf_level", offload_to_disk_path=str(tmp_path))
    away = Model(transformer, tiny_model.vae, tiny_model.text, INFO)
    # A layer with a hook takes torch's own normalisation: the same but for rounding.
    assert np.abs(film(away).astype(int) - film(tiny_model)).max() <= 1
    assert len(list(tmp_path.glob("*.safetensors"))) > 20


def test_tiny_decoders_and_senseless_options(folder, tmp_path):
    from safetensors.torch import save_file

    from tests.videoar.test_tiny_decoder import SMALL, random_state

    save_file(random_state(**SMALL), tmp_path / "taew2_1.safetensors")
    plain = load_model(folder, device="cpu")
    model = load_model(folder, device="cpu", decoder=tmp_path / "taew2_1.safetensors")
    assert film(model).shape == film(plain).shape
    assert (film(model) != film(plain)).any()
    only_previews = load_model(folder, device="cpu", previewer=tmp_path / "taew2_1.safetensors")
    assert (film(only_previews) == film(plain)).all()
    with pytest.raises(ValueError, match="offload is one of none, text, blocks"):
        load_model(folder, device="cpu", offload="moon")
    with pytest.raises(ValueError, match="no file"):
        load_model(folder, device="cpu", decoder=tmp_path / "nothing.pth")


def test_one_unit_needs_no_cache(tiny_model):
    from videoar.checkpoint import _cache_bytes

    full = dataclasses.replace(tiny_model, info=dataclasses.replace(INFO, plans=("full",)))
    assert _cache_bytes(full, torch.float32) == 0
    guided = dataclasses.replace(tiny_model, info=dataclasses.replace(INFO, guidance_scale=2.0, window=3))
    assert _cache_bytes(guided, torch.bfloat16) == 2 * 3 * 16 * 3 * 2 * 48 * 2


def test_only_memory_of_the_cpu_is_pinned_to_be_sent():
    """Tensors of a GPU cannot be."""

    class Pretended:
        def __init__(self, device):
            self.device, self.calls = torch.device(device), []

        def pin_memory(self):
            assert self.device.type == "cpu"
            self.calls.append("pinned")
            return self

        def to(self, device, non_blocking):
            self.calls.append(device.type)
            return self

    assert send(Pretended("cpu"), torch.device("cuda")).calls == ["pinned", "cuda"]
    assert send(Pretended("cuda"), torch.device("cuda")).calls == ["cuda"]
    assert send(Pretended("cpu"), torch.device("cpu")).calls == ["cpu"]
