"""Importers: the forms in which few-step generators are released, made from one tiny random network."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from tests.videoar.tiny import INFO, make_text, make_transformer, make_vae
from videoar.checkpoint import Model, load_model, save_model
from videoar.cli import main
from videoar.generate import Request, generate
from videoar.importers import RECIPES, import_checkpoint
from videoar.sampler import schedule
from videoar.wan_keys import to_diffusers

RANK = 3
ADAPTED = ["self_attn.q", "cross_attn.o", "ffn.0", "ffn.2"]


def original(name: str) -> str:
    """A diffusers name as the original Wan release spells it: written down here independently of wan_keys."""
    for ours, theirs in {
        "condition_embedder.text_embedder.linear_1": "text_embedding.0",
        "condition_embedder.text_embedder.linear_2": "text_embedding.2",
        "condition_embedder.time_embedder.linear_1": "time_embedding.0",
        "condition_embedder.time_embedder.linear_2": "time_embedding.2",
        "condition_embedder.time_proj": "time_projection.1",
        "proj_out": "head.head",
        "attn1.to_out.0": "self_attn.o",
        "attn2.to_out.0": "cross_attn.o",
        "attn1.to_": "self_attn.",
        "attn2.to_": "cross_attn.",
        "attn1.": "self_attn.",
        "attn2.": "cross_attn.",
        "norm2": "norm3",
        "ffn.net.0.proj": "ffn.0",
        "ffn.net.2": "ffn.2",
    }.items():
        name = name.replace(ours, theirs)
    if name == "scale_shift_table":
        return "head.modulation"
    return name.replace("scale_shift_table", "modulation")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model folder whose transformer has other weights than the files that are imported."""
    path = tmp_path_factory.mktemp("models") / "base"
    save_model(Model(make_transformer(seed=1), make_vae(), make_text(), INFO), path, torch.float32)
    return path


@pytest.fixture(scope="module")
def network():
    return make_transformer(seed=2)


@pytest.fixture(scope="module")
def weights(network):
    return {original(name): tensor for name, tensor in network.state_dict().items()}


def fsdp(weights):
    """FSDP wraps the whole network and every block."""
    return {
        "model._fsdp_wrapped_module." + re.sub(r"^(blocks\.\d+)\.", r"\1._fsdp_wrapped_module.", name): tensor
        for name, tensor in weights.items()
    }


def prefixed(prefix, weights):
    return {prefix + name: tensor for name, tensor in weights.items()}


def zeros(weights):
    return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}


FORMS = {
    "self-forcing.pt": lambda w: {
        "generator": prefixed("model.", zeros(w)),
        "generator_ema": prefixed("model.", w),
        "critic": prefixed("model.", zeros(w)),
        "step": 600,
    },
    "causvid.pt": lambda w: {"generator": fsdp(w), "critic": fsdp(zeros(w)), "critic_optimizer": {"state": {}}},
    "longlive.pt": lambda w: {"generator": prefixed("model.", w)},
    "state_dict.pth": lambda w: {"state_dict": prefixed("module.", w)},
    "plain.pt": lambda w: w,
    "original.safetensors": lambda w: w,
    "generator.safetensors": lambda w: {**prefixed("generator.model.", w), **prefixed("critic.model.", zeros(w))},
    "diffusers.safetensors": lambda w: {to_diffusers(name): tensor for name, tensor in w.items()},
}


def write(path, content):
    if path.suffix == ".safetensors":
        save_file({name: tensor.clone() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path)
    return path


@torch.no_grad()
def velocity(transformer):
    generator = torch.Generator().manual_seed(4)
    tokens, text = torch.randn(1, 6, 64, generator=generator), torch.randn(1, 5, 32, generator=generator)
    return transformer(tokens, torch.tensor([[625.0]]), text, torch.arange(18.0).view(6, 3))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_network(form, base, network, weights, tmp_path):
    file = write(tmp_path / form, FORMS[form](weights))
    model = load_model(import_checkpoint(file, base, tmp_path / "out"), device="cpu")
    assert torch.equal(velocity(model.transformer), velocity(network))
    assert model.info.name == file.stem
    assert model.info.provenance["file"] == form
    assert str(tmp_path) not in json.dumps(model.info.provenance)
    assert (model.info.height, model.info.frames, model.info.text_length) == (64, 17, 12)  # the base's
    events = list(generate(model, Request("a red ball", model.info.plans[0], seed=1)))
    assert events[-1].video.shape == (17, 64, 64, 3)


def test_recipes():
    warped = {name: [1000 * s for s in schedule(i.steps, i.shift, i.timesteps)] for name, i in RECIPES.items()}
    assert warped["self-forcing"] == pytest.approx([1000, 937.5, 833.33, 625], abs=0.01)
    assert warped["causvid"] == pytest.approx([1000, 757, 522])
    assert (RECIPES["longlive"].window, RECIPES["longlive"].sink, RECIPES["longlive"].relative) == (12, 3, False)
    assert all(info.guidance_scale == 1 and info.sampler == "few_step" for info in RECIPES.values())


def test_the_other_parts_are_shared_with_the_base_and_kept_apart_from_it(base, weights, tmp_path):
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    out = import_checkpoint(write(tmp_path / "a.pt", weights), base, tmp_path / "out")
    assert (out / "vae" / "config.json").read_bytes() == (base / "vae" / "config.json").read_bytes()
    save_model(load_model(out, device="cpu"), out)  # writing into the new folder leaves the base as it was
    assert before == {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}


def lora(network, form, alpha=None):
    """Random factors for some layers, and what they add to each weight (scaled by alpha / rank)."""
    generator, factors, deltas = torch.Generator().manual_seed(5), {}, {}
    shapes = {original(name): tensor.shape for name, tensor in network.state_dict().items()}
    names = {"peft": ("lora_A", "lora_B"), "adapter": ("lora_A.default", "lora_B.default")}
    a, b = names.get(form, ("lora_down", "lora_up"))
    for layer in (f"blocks.{i}.{part}" for i in range(2) for part in ADAPTED):
        out, into = shapes[f"{layer}.weight"]
        down, up = torch.randn(RANK, into, generator=generator), torch.randn(out, RANK, generator=generator)
        prefix = "diffusion_model." if form == "kohya" else "base_model.model."
        factors |= {f"{prefix}{layer}.{a}.weight": down, f"{prefix}{layer}.{b}.weight": up}
        if form == "kohya":
            factors[f"{prefix}{layer}.alpha"] = torch.tensor(float(alpha))
        deltas[to_diffusers(f"{layer}.weight")] = (1 if alpha is None else alpha / RANK) * up @ down
    return factors, deltas


def adapted(network, deltas):
    copy = make_transformer()
    state = network.state_dict()
    copy.load_state_dict({name: tensor + deltas.get(name, 0) for name, tensor in state.items()})
    return copy


@pytest.mark.parametrize(
    ("form", "alpha", "config"),
    [("peft", None, None), ("adapter", None, None), ("kohya", 6, None), ("peft", 12, {"lora_alpha": 12, "r": RANK})],
)
def test_lora_files_are_merged(form, alpha, config, base, network, weights, tmp_path):
    factors, deltas = lora(network, form, alpha)
    content = factors if form == "kohya" else {"generator_lora": factors, "critic_lora": zeros(factors)}
    (tmp_path / "lora").mkdir()
    file = write(tmp_path / "lora" / ("a.safetensors" if form == "kohya" else "a.pt"), content)
    if config:
        (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    full = write(tmp_path / "full.pt", {"generator": weights})
    model = load_model(import_checkpoint(full, base, tmp_path / "out", loras=[file]), device="cpu")
    expected = velocity(adapted(network, deltas))
    torch.testing.assert_close(velocity(model.transformer), expected)
    assert (expected - velocity(network)).abs().max() > 0.1
    # Alone, it adapts the base's transformer.
    model = load_model(import_checkpoint(file, base, tmp_path / "alone", "longlive"), device="cpu")
    torch.testing.assert_close(velocity(model.transformer), velocity(adapted(make_transformer(seed=1), deltas)))


def test_a_network_that_peft_has_wrapped(base, network, weights, tmp_path):
    factors, deltas = lora(network, "adapter")
    adapted_layers = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in factors}
    wrapped = {}
    for name, tensor in weights.items():
        layer, _, leaf = name.rpartition(".")
        wrapped[f"base_model.model.{layer}.base_layer.{leaf}" if layer in adapted_layers else name] = tensor
    file = write(tmp_path / "a.pt", {"generator": prefixed("model.", wrapped | factors)})
    model = load_model(import_checkpoint(file, base, tmp_path / "out"), device="cpu")
    torch.testing.assert_close(velocity(model.transformer), velocity(adapted(network, deltas)))


class Code:
    """What a pickle could do."""

    def __reduce__(self):
        return print, ("this must never be printed",)


def edited(weights, **changes):
    return {name: tensor for name, tensor in {**weights, **changes}.items() if tensor is not None}


BROKEN = {
    "missing": (
        lambda w: edited(w, **{"head.head.bias": None, "head.modulation": None}),
        r"2 of \d+ tensors are missing \(scale_shift_table, proj_out.bias\)",
    ),
    "unexpected": (lambda w: edited(w, critic_head=torch.ones(1)), r"1 are unexpected \(critic_head\)"),
    "a dozen unexpected": (
        lambda w: edited(w, **{f"x{i}": torch.ones(1) for i in range(12)}),
        r"12 are unexpected \(x0, x1, x2 \.\.\.\)",
    ),
    "another shape": (
        lambda w: edited(w, **{"head.head.bias": torch.ones(7)}),
        r"1 have another shape \(proj_out.bias is \[7\] instead of \[64\]\)",
    ),
    "not finite": (lambda w: edited(w, **{"head.head.bias": torch.full((64,), torch.nan)}), "not finite"),
    "flattened": (lambda w: {"generator": {"model._flat_param": torch.ones(9)}}, "full state dict"),
    "half a lora": (lambda w: {"blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 48)}, "only half"),
    "a lora of another layer": (
        lambda w: {f"blocks.9.ffn.0.lora_{x}.weight": torch.ones(2, 2) for x in "AB"},
        r"adapts 1 layers that the transformer lacks \(blocks.9.ffn.net.0.proj.weight\)",
    ),
    "a lora of another width": (
        lambda w: {f"blocks.0.ffn.0.lora_{x}.weight": torch.ones(2, 2) for x in "AB"},
        "LoRA factors of blocks.0.ffn.net.0.proj.weight in .* wrong shape",
    ),
    "no tensors": (lambda w: {"step": 1}, "holds no tensors"),
    "code": (lambda w: {"generator": w, "args": Code()}, "refused: it is a pickle that holds more than tensors"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_do_not_fit_say_why(name, base, weights, tmp_path, capsys):
    content, message = BROKEN[name]
    file = write(tmp_path / "a.pt", content(weights))
    with pytest.raises(ValueError, match=message):
        import_checkpoint(file, base, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt"]  # nothing half done is left
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("length", [0, 3, 1000, -1])
def test_files_cut_short(suffix, length, base, weights, tmp_path):
    file = write(tmp_path / f"a{suffix}", weights)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=rf"a\{suffix} is damaged"):
        import_checkpoint(file, base, tmp_path / "out")


def test_what_is_no_checkpoint_at_all(base, tmp_path):
    pointer = tmp_path / "a.pt"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    for file, message in ((pointer, "git lfs pull"), (tmp_path / "b.pt", "no file")):
        with pytest.raises(ValueError, match=message):
            import_checkpoint(file, base, tmp_path / "out")


def test_the_command(base, weights, tmp_path, capsys):
    file, out = write(tmp_path / "a.pt", {"generator_ema": weights}), tmp_path / "out"
    command = ["import", str(file), "--base", str(base), "--out", str(out)]
    assert main([*command, "--timesteps", "1000,500", "--plan", "cube:2x1x1", "--window", "3", "--sink", "1"]) == 0
    assert str(out) in capsys.readouterr().out
    info = load_model(out, device="cpu").info
    assert (info.timesteps, info.steps, info.plans) == ((1000, 500), 2, ("cube:2x1x1",))
    assert (info.window, info.sink, info.shift) == (3, 1, 5.0)
    for arguments, message in (
        (command, "exists already"),
        ([*command[:-1], str(tmp_path / "b"), "--recipe", "unknown"], "recipe"),
        ([*command[:-1], str(tmp_path / "b"), "--timesteps", "1000,x"], "timesteps"),
        ([*command[:-1], str(tmp_path / "b"), "--timesteps", "500,1000"], "large to small"),
        ([*command[:-1], str(tmp_path / "b"), "--plan", "spiral"], "plan"),
        (["import", str(file), "--base", str(tmp_path), "--out", str(tmp_path / "b")], "not a complete model folder"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr().err
        assert message in captured
        assert captured.count("\n") == 1
    assert not (tmp_path / "b").exists()
