"""Model folders: round trip, diffusers' layout, and every way in which one can be broken."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.videoar.tiny import INFO, make_text, make_transformer, make_vae
from videoar.checkpoint import Model, ModelInfo, load_model, save_model
from videoar.generate import generate
from videoar.request import Request
from videoar.transformer import VideoARTransformer3DModel

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model, path)
    return path


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_round_trip(folder, tiny_model):
    model = load_model(folder, device="cpu")
    assert model.info == tiny_model.info
    assert model.transformer.dtype == model.vae.dtype == torch.float32
    for name, tensor in model.transformer.state_dict().items():
        assert torch.equal(tensor, tiny_model.transformer.state_dict()[name].half().float())
    assert not any(p.requires_grad for p in model.transformer.parameters())
    request = Request("a red ball", "frame", seed=1)
    first = list(generate(model, request))[-1].video
    assert (list(generate(load_model(folder, device="cpu"), request))[-1].video == first).all()


def test_saving_what_was_loaded_changes_nothing(folder, tmp_path):
    save_model(load_model(folder, device="cpu"), tmp_path / "again")
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file()}
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_names_reveal_nothing_and_fit_diffusers(folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["transformer"] == ["diffusers", "WanTransformer3DModel"]
    config = json.loads((folder / "transformer" / "config.json").read_text())
    assert config["_class_name"] == "WanTransformer3DModel"
    own = {"prediction_type", "spatial_embedding", "conv_width"}  # defaults the stock class does not know
    assert not own & set(config)
    for path in folder.rglob("*.json"):
        assert not {"_name_or_path", "is_local", "local_files_only"} & set(json.loads(path.read_text())), path


def test_the_folder_loads_in_diffusers_and_text_is_encoded_alike(folder, tiny_model):
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    assert type(pipeline.transformer).__name__ == "WanTransformer3DModel"
    prompts = ["a red ball &amp; two  fish", ""]
    expected = pipeline._get_t5_prompt_embeds(prompts, max_sequence_length=12)
    got = load_model(folder, device="cpu").text(prompts)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert (got[1, 1:] == 0).all()  # one end token, the rest is padding


def test_the_light_codec_travels_too(tiny_model, tmp_path):
    from videoar.codec import TinyCodec

    torch.manual_seed(0)
    codec = TinyCodec(widths=(16, 16, 8, 8), depths=(1, 1, 1, 1)).eval()
    codec.basis.normal_()
    save_model(Model(tiny_model.transformer, codec, tiny_model.text, INFO), tmp_path)
    model = load_model(tmp_path, device="cpu")
    assert type(model.vae) is TinyCodec
    assert torch.equal(model.vae.basis, codec.basis.half().float())
    events = list(generate(model, Request("a red ball", "cube", seed=1)))
    assert events[-1].video.shape == (17, 64, 64, 3)


@pytest.mark.parametrize("computes", [True, False])
def test_a_processor_with_bfloat16_makes_the_pixels_in_it(monkeypatch, computes):
    monkeypatch.setattr("videoar.checkpoint.cpu_computes_in_bfloat16", lambda: computes)
    request = Request("a red ball", "frame", seed=1, frames=9)
    precise = load_model(device="cpu", dtype="float32")
    assert precise.decoder is None
    model = load_model(device="cpu")
    assert (model.decoder is not None) == computes
    assert model.vae.dtype == model.transformer.dtype == torch.float32, "what is saved and encoded with stays precise"
    films = [list(generate(one, request))[-1].video.astype(int) for one in (model, precise)]
    assert 0 < abs(films[0] - films[1]).max() <= 4 if computes else (films[0] == films[1]).all()


def test_large_weights_are_sharded(tmp_path):
    transformer = make_transformer(num_attention_heads=8, attention_head_dim=64, ffn_dim=2048, num_layers=3)
    save_model(Model(transformer, make_vae(), make_text(), INFO), tmp_path)
    shards = sorted((tmp_path / "transformer").glob("*.safetensors"))
    assert len(shards) > 1
    assert all(shard.stat().st_size < 16 * 2**20 for shard in shards)
    state = load_model(tmp_path, device="cpu").transformer.state_dict()
    assert all(torch.equal(state[name], tensor.half().float()) for name, tensor in transformer.state_dict().items())
    stock = VideoARTransformer3DModel.from_pretrained(tmp_path, subfolder="transformer")
    assert torch.equal(stock.proj_out.weight.float(), state["proj_out.weight"])
    shards[1].unlink()
    with pytest.raises(ValueError, match="lacks the weight file"):
        load_model(tmp_path, device="cpu")


def test_a_bare_wan_folder_loads_with_wans_defaults(copy):
    (copy / "videoar.json").unlink()
    assert load_model(copy, device="cpu").info == ModelInfo(name="copy", shift=INFO.shift)


def test_bfloat16_keeps_what_must_stay_precise(copy):
    model = load_model(copy, device="cpu", dtype=torch.bfloat16)
    assert model.transformer.dtype == torch.bfloat16
    assert model.transformer.scale_shift_table.dtype == torch.float32
    assert model.transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert list(generate(model, Request("a red ball", "frame", seed=1)))[-1].video.std() > 0


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edit(path: Path, change) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path)


def pickled(path: Path) -> None:
    path.unlink()
    torch.save({"a": torch.zeros(1)}, path.with_suffix(".bin"))


BROKEN = {
    "truncated weights": (f"transformer/{WEIGHTS}", truncate, "damaged"),
    "truncated codec": (f"vae/{WEIGHTS}", truncate, "damaged"),
    "empty file": (f"vae/{WEIGHTS}", lambda path: path.write_bytes(b""), "damaged"),
    "not safetensors": ("text_encoder/model.safetensors", lambda path: path.write_bytes(b"\x80\x04" * 99), "damaged"),
    "wrong shape": (
        f"transformer/{WEIGHTS}",
        lambda path: edit(path, lambda state: state.update({"proj_out.bias": torch.zeros(3)})),
        "wrong shape",
    ),
    "missing tensor": (f"vae/{WEIGHTS}", lambda path: edit(path, lambda state: state.popitem()), "lacks 1 of"),
    "extra tensor": (
        f"transformer/{WEIGHTS}",
        lambda path: edit(path, lambda state: state.update({"surplus": torch.zeros(3)})),
        "surplus",
    ),
    "not a number": (
        f"transformer/{WEIGHTS}",
        lambda path: edit(path, lambda state: state["proj_out.bias"].fill_(float("nan"))),
        "not finite",
    ),
    "no vocabulary": ("tokenizer/tokenizer.json", Path.unlink, "tokenizer.json is missing"),
    "pickled transformer": (f"transformer/{WEIGHTS}", pickled, "pickle"),
    "pickled text encoder": ("text_encoder/model.safetensors", pickled, "pickle"),
    "no weights": (f"transformer/{WEIGHTS}", Path.unlink, "no weights"),
    "no transformer": ("transformer", shutil.rmtree, "transformer"),
    "no vae": ("vae", shutil.rmtree, "vae"),
    "no text encoder": ("text_encoder", shutil.rmtree, "text_encoder"),
    "no tokenizer": ("tokenizer", shutil.rmtree, "tokenizer"),
    "broken tokenizer": ("tokenizer/tokenizer.json", lambda path: path.write_text("{"), "tokenizer"),
    "broken config": ("transformer/config.json", lambda path: path.write_text("{"), "JSON"),
    "config is a list": ("vae/config.json", lambda path: path.write_text("[]"), "JSON object"),
    "config of something else": ("vae/config.json", lambda path: path.write_text('{"_class_name": "VQ"}'), "VQ"),
    "senseless config": (
        "transformer/config.json",
        lambda path: path.write_text('{"num_layers": "many"}'),
        "does not describe",
    ),
    "broken info": ("videoar.json", lambda path: path.write_text('{"steps": "four"}'), "steps"),
    "bool in info": ("videoar.json", lambda path: path.write_text('{"shift": true}'), "shift"),
    "unknown sampler": ("videoar.json", lambda path: path.write_text('{"sampler": "magic"}'), "sampler"),
    "no plan": ("videoar.json", lambda path: path.write_text('{"plans": []}'), "plan"),
    "unknown plan": ("videoar.json", lambda path: path.write_text('{"plans": ["spiral"]}'), "plan"),
}


# Every field of videoar.json with values that it cannot have.
SENSELESS = {
    "name": [None, 3, "", "x" * 9999],
    "plans": ["cube", [], [3], [None], {"cube": 1}, ["spiral"], ["frame"] * 101],
    "sampler": ["magic", None, 1],
    "steps": [0, -1, 1.5, "4", None, True, 10**400],
    "timesteps": [["a"], "1000", 1000, [-1], [1001], [float("nan")], [250, 500], [500, 500], [True]],
    "shift": [0, -1, "3", None, True, float("inf"), float("nan")],
    "guidance_scale": [-1, 31, "5", None, float("nan")],
    "guidance_interval": [0.6, [0.6], [0.8, 0.6], [0.6, 0.7, 0.8], [0, 2], [-0.1, 0.5], ["0", "1"], None],
    "window": ["x", 0, 1.5, False, [4]],
    "sink": [-1, None, 0.5, "1"],
    "relative": ["no", 0, None],
    "height": [0, -64, 64.0, 10**9, 100],
    "width": [0, "64", None, 100],
    "frames": [0, 29.0, 30, 10**9, -3],
    "fps": [0, -8, "8", None, float("inf")],
    "scale_std": [["a"], 1.0, [0], [-1.0], [1.0] * 9, [float("nan")]],
    "text_length": [0, 1.5, 10**9],
    "provenance": ["mine", None, []],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in SENSELESS for value in SENSELESS[field]])
def test_every_field_of_videoar_json_is_checked(copy, field, value):
    told = json.loads((copy / "videoar.json").read_text())
    (copy / "videoar.json").write_text(json.dumps(told | {field: value}))
    with pytest.raises(ValueError, match=rf"videoar\.json.*{field.removesuffix('s')}") as caught:
        load_model(copy, device="cpu")
    assert len(str(caught.value)) < 250


def test_no_field_of_videoar_json_is_forgotten():
    assert set(SENSELESS) == {item.name for item in dataclasses.fields(ModelInfo)}


def test_the_sink_is_a_part_of_the_window(copy):
    told = json.loads((copy / "videoar.json").read_text())
    (copy / "videoar.json").write_text(json.dumps(told | {"window": 2, "sink": 2}))
    with pytest.raises(ValueError, match="sink is smaller than window"):
        load_model(copy, device="cpu")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("transformer", {"num_layers": 1_000_000}),
        ("transformer", {"num_layers": 1e9}),
        ("transformer", {"rope_max_seq_len": 10**9}),
        ("transformer", {"attention_head_dim": 10**9}),
        ("transformer", {"num_attention_heads": 0}),
        ("transformer", {"patch_size": [1] * 10**6}),
        ("text_encoder", {"num_layers": 10**9}),
        ("vae", {"num_res_blocks": 10**9}),
    ],
)
def test_an_absurd_config_is_refused_at_once(copy, part, change):
    config = json.loads((copy / part / "config.json").read_text())
    (copy / part / "config.json").write_text(json.dumps(config | change))
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"{part}/config.json"):
        load_model(copy, device="cpu")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"transformer": {"in_channels": 24, "out_channels": 24}}, "16 latent channels"),
        ({"transformer": {"text_dim": 48}}, "text_dim is the text encoder's 32"),
        ({"transformer": {"patch_size": (2, 2, 2)}}, "patch_size begins with 1"),
    ],
)
def test_parts_that_do_not_fit_one_another(tmp_path, parts, message):
    save_model(Model(make_transformer(**parts["transformer"]), make_vae(), make_text(), INFO), tmp_path)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_say_what_is_wrong(copy, name):
    file, breaking, message = BROKEN[name]
    breaking(copy / file)
    with pytest.raises(ValueError, match=message):
        load_model(copy, device="cpu")


def test_an_index_cannot_point_outside_its_folder(copy):
    index = {"weight_map": {"a": "../../secrets.safetensors"}}
    (copy / "vae" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="does not name its files"):
        load_model(copy, device="cpu")


@pytest.mark.parametrize("path", ["/no/such/folder", "no such model", "../nowhere", "a/b/c", "", " ", "x" * 5000])
def test_folders_that_are_not_there(path):
    with pytest.raises(ValueError, match=r"no model folder|is empty"):
        load_model(path)


@pytest.mark.parametrize("device", ["meta", "toaster", "cuda:99", "", "xla", "cpu:x"])
def test_devices_that_cannot_be_used(folder, device):
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used") as caught:
        load_model(folder, device)
    assert len(str(caught.value)) < 300


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(ValueError, match="not a complete model folder"):
        load_model(tmp_path)


def test_a_light_codec_without_videoar_json_is_not_taken_for_wan(copy):
    (copy / "videoar.json").unlink()
    config = json.loads((copy / "vae" / "config.json").read_text())
    (copy / "vae" / "config.json").write_text(json.dumps(config | {"_class_name": "TinyCodec"}))
    with pytest.raises(ValueError, match=r"videoar\.json is missing"):
        load_model(copy)


def test_weights_that_overflow_are_not_saved(tmp_path):
    transformer = make_transformer()
    transformer.proj_out.bias.fill_(1e6)
    with pytest.raises(ValueError, match="not finite"):
        save_model(Model(transformer, make_vae(), make_text(), INFO), tmp_path)


def test_deviation_of_levels():
    info = ModelInfo(scale_std=(0.5, 0.7, 1.0))
    assert info.level_std(3) == (0.5, 0.7, 1.0)
    assert info.level_std(2) == (0.7, 1.0)
    assert info.level_std(4) == (1.0, 0.5, 0.7, 1.0)
    assert ModelInfo().level_std(1) == (1.0,)
