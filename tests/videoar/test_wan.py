"""Wan2.1's released pipeline: the real network's names and shapes, and a folder in its layout against diffusers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

from tests.videoar.tiny import make_text
from videoar.checkpoint import ModelInfo, load_model, read_info
from videoar.decoder import StreamDecoder
from videoar.generate import ClipFinished, Request, generate
from videoar.noise import NoiseField
from videoar.plan import Grid, PlanSpec
from videoar.transformer import VideoARTransformer3DModel, unpatchify
from videoar.wan_keys import rename_state_dict

# transformer/config.json of Wan-AI/Wan2.1-T2V-1.3B-Diffusers.
WAN_1_3B = {
    "_class_name": "WanTransformer3DModel",
    "added_kv_proj_dim": None,
    "attention_head_dim": 128,
    "cross_attn_norm": True,
    "eps": 1e-06,
    "ffn_dim": 8960,
    "freq_dim": 256,
    "image_dim": None,
    "in_channels": 16,
    "num_attention_heads": 12,
    "num_layers": 30,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
    "text_dim": 4096,
}
LATENTS_MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508]
LATENTS_MEAN += [0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]
LATENTS_STD = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743]
LATENTS_STD += [3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]


def original_names(width=1536, ffn=8960, blocks=30, text=4096, channels=16, waves=256) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original Wan2.1 release, written down here independently of any code."""

    def linear(name, out, into):
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    shapes = {"patch_embedding.weight": (width, channels, 1, 2, 2), "patch_embedding.bias": (width,)}
    shapes |= linear("text_embedding.0", width, text) | linear("text_embedding.2", width, width)
    shapes |= linear("time_embedding.0", width, waves) | linear("time_embedding.2", width, width)
    shapes |= linear("time_projection.1", 6 * width, width) | linear("head.head", 4 * channels, width)
    shapes["head.modulation"] = (1, 2, width)
    for i in range(blocks):
        block = {"modulation": (1, 6, width), "norm3.weight": (width,), "norm3.bias": (width,)}
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                block |= linear(f"{attention}.{part}", width, width)
            block |= {f"{attention}.norm_{part}.weight": (width,) for part in "qk"}
        block |= linear("ffn.0", ffn, width) | linear("ffn.2", width, ffn)
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def test_the_real_networks_names_and_shapes():
    with torch.device("meta"):
        ours, stock = VideoARTransformer3DModel.from_config(WAN_1_3B), WanTransformer3DModel.from_config(WAN_1_3B)
    got = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    assert got == {name: tuple(tensor.shape) for name, tensor in stock.state_dict().items()}
    assert got == rename_state_dict(original_names())
    assert len(got) == 825
    assert sum(parameter.numel() for parameter in ours.parameters()) == 1_418_996_800


@pytest.fixture(scope="module")
def pipeline():
    """The hub's pipeline, tiny and random: every part of the class and with the settings it has there."""
    torch.manual_seed(0)
    small = {"num_attention_heads": 2, "attention_head_dim": 24, "text_dim": 32, "ffn_dim": 96, "num_layers": 2}
    transformer = WanTransformer3DModel.from_config(WAN_1_3B | small)
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=16,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[False, True, True],
        latents_mean=LATENTS_MEAN,
        latents_std=LATENTS_STD,
    )
    text = make_text(max_length=512)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return WanPipeline(
        tokenizer=text.tokenizer,
        text_encoder=text.encoder,
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=scheduler,
    )


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "Wan2.1-T2V-tiny"
    pipeline.save_pretrained(path)
    return path


def test_a_hub_folder_says_how_it_wants_to_be_sampled(folder):
    info = load_model(folder, device="cpu").info
    assert info == ModelInfo(name=folder.name, plans=("full",), sampler="unipc", steps=50, shift=3.0)
    assert (info.height, info.width, info.frames, info.fps, info.text_length) == (480, 832, 81, 16.0, 512)
    assert info.guidance_scale == 5.0


def test_the_full_plan_equals_wans_pipeline(pipeline, folder, monkeypatch):
    """Everything in between as well: prompt, embeddings, guidance, solver, latents' mean and deviation, decoder."""
    pushed = []
    push = StreamDecoder.push
    monkeypatch.setattr(StreamDecoder, "push", lambda self, latents: (pushed.append(latents), push(self, latents))[1])
    request = Request(
        "a red ball rolls", "full", steps=4, seed=3, height=64, width=48, frames=9, negative_prompt="two fish"
    )
    *_, last = generate(load_model(folder, device="cpu"), request)
    assert isinstance(last, ClipFinished)

    plan = PlanSpec("full").build(Grid(3, 4, 3))
    noise = NoiseField(3, plan, 16, (1, 2, 2)).tokens(plan.units[0], 0)
    common = {
        "prompt": "a red ball rolls",
        "negative_prompt": "two fish",
        "num_inference_steps": 4,
        "height": 64,
        "width": 48,
        "num_frames": 9,
        "latents": unpatchify(noise, (3, 4, 3), (1, 2, 2)),
    }
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(**common, output_type="latent").frames
    torch.testing.assert_close(torch.cat(pushed, 2), latents, rtol=0, atol=1e-4)
    video = pipeline(**common, output_type="np").frames[0]
    assert video.std() > 0.01  # not a flat picture
    assert np.abs(last.video - 255 * video).max() < 1


@pytest.mark.parametrize("names", ["shared.weight", "encoder.embed_tokens.weight", "both"])
def test_the_text_encoders_shared_table_may_have_either_name(folder, tmp_path, names):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "text_encoder" / "model.safetensors"
    state = load_file(file)
    table = state.pop("shared.weight", state.pop("encoder.embed_tokens.weight", None))
    both = ("shared.weight", "encoder.embed_tokens.weight")
    save_file({**state, **{name: table.clone() for name in both if names in (name, "both")}}, file)
    encoder = load_model(copy, device="cpu").text.encoder
    assert encoder.encoder.embed_tokens.weight is encoder.shared.weight
    assert torch.equal(encoder.shared.weight, table)


def test_bfloat16_does_not_leave_half_of_the_text_encoder_in_float32(folder):
    model = load_model(folder, device="cpu", dtype=torch.bfloat16)
    assert {p.dtype for p in model.text.encoder.parameters()} == {torch.bfloat16}
    half = load_model(folder, device="cpu", dtype=torch.float16).text.encoder
    assert half.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype == torch.float32


def test_other_schedulers_and_senseless_ones(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 7.0}))
    assert (read_info(copy, "a").sampler, read_info(copy, "a").shift) == ("euler", 7.0)
    file.write_text(json.dumps({"_class_name": "UniPCMultistepScheduler", "flow_shift": "much"}))
    with pytest.raises(ValueError, match=r"scheduler_config.json: shift is a number"):
        read_info(copy, "a")


def test_without_a_network_a_hub_id_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --local-dir"):
        load_model("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", device="cpu")
