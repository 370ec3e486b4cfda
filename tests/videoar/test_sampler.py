"""Samplers against diffusers' schedulers."""

from __future__ import annotations

import pytest
import torch

from videoar.sampler import ALWAYS, euler, few_step, guidance_at, guided, schedule, unipc, unwarp, warp

STEPS = [1.0, 0.75, 0.5, 0.25]


def network(x, sigma):
    return torch.tanh(x @ torch.eye(6).flip(0) * 0.7) + sigma * x


@pytest.mark.parametrize("shift", [1.0, 5.0, 8.0])
def test_few_step_equals_the_lcm_scheduler(shift):
    from diffusers import FlowMatchLCMScheduler

    noise = torch.randn(2, 3, 6)
    scheduler = FlowMatchLCMScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=STEPS)
    x, generator = noise, torch.Generator().manual_seed(7)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t / 1000), t, x, generator=generator).prev_sample
    generator = torch.Generator().manual_seed(7)
    fresh = lambda step: torch.randn(noise.shape, generator=generator)  # noqa: E731
    *_, got = few_step(network, noise, warp(STEPS, shift), fresh)
    torch.testing.assert_close(got, x, rtol=0, atol=2e-6)


def test_euler_equals_the_euler_scheduler():
    from diffusers import FlowMatchEulerDiscreteScheduler

    noise = torch.randn(2, 3, 6)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=STEPS)
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t / 1000), t, x).prev_sample
    *_, got = euler(network, noise, warp(STEPS, 3.0))
    torch.testing.assert_close(got, x, rtol=0, atol=2e-6)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_unipc_equals_the_unipc_scheduler(steps):
    from diffusers import UniPCMultistepScheduler

    noise = torch.randn(2, 3, 6)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t / 1000), t, x).prev_sample
    *_, got = unipc(network, noise, schedule(steps, 3.0, sampler="unipc"))
    torch.testing.assert_close(got, x, rtol=0, atol=2e-6)


def test_a_straight_flow_is_solved_by_any_number_of_steps():
    data, noise = torch.randn(1, 4, 6), torch.randn(1, 4, 6)
    for steps in (1, 3, 10):
        *_, got = euler(lambda x, sigma: noise - data, noise, schedule(steps, 5.0))
        torch.testing.assert_close(got, data)


def test_schedules():
    assert unwarp(warp(STEPS, 5.0), 5.0) == pytest.approx(STEPS)
    assert schedule(4, 1.0) == STEPS
    assert schedule(4, 5.0, [1000, 750, 500, 250]) == pytest.approx([1, 0.9375, 5 / 6, 0.625])
    assert schedule(2, 1.0, [1000, 300]) == [1.0, 0.3]  # the checkpoint's own list
    assert schedule(3, 1.0, [1000, 300]) == pytest.approx([1, 2 / 3, 1 / 3])


def test_guidance_extrapolates_from_the_unconditional():
    velocity = guided(lambda x, sigma: torch.cat([x[:1] + 1, x[1:] - 1]), scale=3.0)
    x = torch.zeros(1, 2, 6)
    assert torch.equal(velocity(x, 0.5), torch.full_like(x, -1 + 3 * 2))


@pytest.mark.parametrize(
    ("interval", "sigmas", "expected"),
    [
        (ALWAYS, [0.0, 0.3, 1.0], [4.0, 4.0, 4.0]),
        ((0.6, 0.8), [0.0, 0.6, 0.7, 0.8, 1.0], [1.0, 1.0, 2.5, 4.0, 4.0]),
        ((0.7, 0.7), [0.69, 0.71], [1.0, 4.0]),
    ],
)
def test_guidance_rules_above_its_interval_only(interval, sigmas, expected):
    assert [guidance_at(s, 4.0, interval) for s in sigmas] == pytest.approx(expected)
    assert guidance_at(torch.tensor(sigmas), 4.0, interval).tolist() == pytest.approx(expected)
    assert guidance_at(torch.tensor(sigmas), 1.0, interval).tolist() == pytest.approx([1.0] * len(sigmas))


def test_below_the_interval_a_guided_velocity_is_the_conditional_one():
    def network(x, sigma):
        return torch.cat([x[:1] + 1, x[1:] - 1])

    velocity = guided(network, 3.0, (0.6, 0.8))
    assert velocity(torch.zeros(1, 2), 0.5).tolist() == [[1.0, 1.0]]
    assert velocity(torch.zeros(1, 2), 0.9).tolist() == [[5.0, 5.0]]
