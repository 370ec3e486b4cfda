"""The frame unit against an independent implementation's tensors (chunks of three latent frames)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.videoar.tiny import PATCH, make_transformer
from videoar.plan import Grid, PlanSpec
from videoar.sampler import few_step, warp
from videoar.transformer import patchify, unpatchify
from videoar.wan_keys import rename_state_dict, to_diffusers

FILE = Path(__file__).parent.parent / "golden" / "frame_unit.safetensors"
SIGMAS = warp([1, 0.75, 0.5, 0.25], shift=5)


@pytest.fixture(scope="module")
def golden():
    return load_file(FILE)


@pytest.fixture(scope="module")
def model(golden):
    transformer = make_transformer()
    weights = {name[2:]: tensor for name, tensor in golden.items() if name.startswith("w.")}
    transformer.load_state_dict(rename_state_dict(weights), strict=True)
    return transformer


def to_tokens(latents_BFCHW):
    return patchify(latents_BFCHW.transpose(1, 2), PATCH)


def to_latents(tokens_BND):
    return unpatchify(tokens_BND, (tokens_BND.shape[1] // 24, 4, 6), PATCH).transpose(1, 2)


def frame_plan(frames):
    return PlanSpec.parse("frame:3").build(Grid(frames, 4, 6))


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def all_positions(plan):
    return torch.cat([plan.positions(unit) for unit in plan.units])


@torch.no_grad()
def test_full_attention(model, golden):
    positions = all_positions(frame_plan(9))
    got = model(to_tokens(golden["noise"]), torch.tensor([[500.0]]), golden["prompt_embeds"], positions)
    close(to_latents(got), golden["bidirectional.t500.flow"])


@torch.no_grad()
def test_block_causal_attention(model, golden):
    plan = frame_plan(9)
    ids, mask = plan.unit_ids(), plan.mask()
    args = (torch.zeros(1, 3), golden["prompt_embeds"], all_positions(plan), ids, mask)
    close(to_latents(model(to_tokens(golden["noise"]), *args)), golden["blockcausal.t0.flow"])


@torch.no_grad()
def test_one_step_with_an_empty_cache(model, golden):
    plan, noise = frame_plan(9), golden["noise"][:, :3]
    where = plan.positions(plan.units[0])
    got = model(to_tokens(noise), torch.tensor([[937.5]]), golden["prompt_embeds"], where, cache=model.new_cache())
    close(to_latents(got), golden["step.flow"])
    close(noise - SIGMAS[1] * to_latents(got), golden["step.x0"])


@torch.no_grad()
def test_teacher_forcing(model, golden):
    plan = frame_plan(9)
    ids, positions = plan.unit_ids(), all_positions(plan)
    earlier, same = ids[:, None] > ids[None, :], ids[:, None] == ids[None, :]
    clean_rows = torch.cat([plan.mask(), torch.zeros_like(same)], 1)
    mask = torch.cat([clean_rows, torch.cat([earlier, same], 1)])
    x = torch.cat([to_tokens(golden["tf.clean"]), to_tokens(golden["noise"])], 1)
    timesteps = torch.tensor([[0.0] * 3 + [625.0] * 3])
    got = model(x, timesteps, golden["prompt_embeds"], positions.repeat(2, 1), torch.cat([ids, ids + 3]), mask)
    close(to_latents(got[:, 216:]), golden["tf.flow_t625"])


@torch.no_grad()
def rollout(model, golden, noise, cache):
    """The few-step rollout with the reference's sequential fresh noise (seed 123)."""
    text_kv = model.encode_text(golden["prompt_embeds"])
    generator = torch.Generator().manual_seed(123)
    done = []
    plan = frame_plan(noise.shape[1])
    for unit in plan.units:
        where = plan.positions(unit)

        def velocity(x, sigma, where=where):
            return model(x, torch.tensor([[1000 * sigma]]), text_kv, where, cache=cache)

        def fresh(step):
            return to_tokens(torch.randn(3, 16, 8, 12, generator=generator)[None])

        start = to_tokens(noise[:, unit.frames[0] : unit.frames[-1] + 1])
        *_, x0 = few_step(velocity, start, SIGMAS, fresh)
        velocity(x0, 0.0)
        cache.commit()
        done.append(to_latents(x0))
    return torch.cat(done, 1)


@pytest.mark.parametrize("relative", [True, False])
def test_rollout(model, golden, relative):
    got = rollout(model, golden, golden["noise"], model.new_cache(relative=relative))
    close(got, golden["rollout.latents_seed123"])


def test_rolling_window_with_a_sink_in_absolute_time(model, golden):
    expected = golden["roll.w6s3.latents_seed123"]
    close(rollout(model, golden, golden["roll.noise"], model.new_cache(window=6, sink=3, relative=False)), expected)
    # Relative time agrees until the first eviction, then closes the gap behind the sink.
    relative = rollout(model, golden, golden["roll.noise"], model.new_cache(window=6, sink=3))
    close(relative[:, :6], expected[:, :6])
    assert (relative - expected)[:, 6:].abs().max() > 1e-3


def test_released_files_wrap_their_keys():
    assert to_diffusers("generator_ema.model._fsdp_wrapped_module.blocks.3.norm3.weight") == "blocks.3.norm2.weight"
    assert to_diffusers("model.blocks.0.cross_attn.o.bias") == "blocks.0.attn2.to_out.0.bias"
    assert to_diffusers("proj_out.weight") == "proj_out.weight"
    with pytest.raises(ValueError, match="more than one"):
        rename_state_dict({"generator.head.head.bias": 0, "generator_ema.head.head.bias": 0})
