"""Symmetric DMD where the truth is known: Gaussians with an exact score, and tiny networks with exact gradients."""

import dataclasses

import pytest
import torch
from torch import nn

from train.dmd import (
    SCORERS,
    FakeScorers,
    Rollout,
    SymmetricDMD,
    dmd_gradient,
    dmd_loss,
    finest_latents,
    place_of,
    scorer_mask,
)
from train.flow import Draw, Noise, level_tokens, plan_tokens
from train.presets import DMDPreset, Share
from videoar.plan import Grid, PlanSpec
from videoar.sampler import few_step, schedule
from videoar.transformer import VideoARTransformer3DModel

PLANS = ["frame", "key_detail:2", "cube:2x2x2", "cube:2x2x2@7,6,5,4,3,2,1,0", "scale:2", "full"]


def make(seed: int = 0, **config) -> VideoARTransformer3DModel:
    torch.manual_seed(seed)
    small = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4,
        "out_channels": 4, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 64,
        "prediction_type": "sample", "spatial_embedding": True,
    }  # fmt: skip
    network = VideoARTransformer3DModel(**(small | config)).train()
    if network.config.conv_width:  # as if trained: new ones change nothing
        for layer in (network.conv_stem.proj, network.conv_head.conv_out):
            nn.init.normal_(layer.weight, std=0.3)
    return network


class Gaussian(nn.Module):
    """The exact velocity of independent Gaussians N(mean, std^2), in the transformer's call."""

    def __init__(self, mean: float, std: float):
        super().__init__()
        self.mean, self.std, self.calls = mean, std, 0

    def x0(self, x, sigma):
        """E[x0 | x_t], the posterior mean."""
        gain = (1 - sigma) * self.std**2 / ((1 - sigma) ** 2 * self.std**2 + sigma**2)
        return self.mean + gain * (x - (1 - sigma) * self.mean)

    def forward(self, x, timestep, text, places, mask=None, unit_shapes=None):
        self.calls += 1
        sigma = timestep[:, :, None] / 1000
        return (x - self.x0(x, sigma)) / sigma


class FrozenCache:
    """A cache of given keys and values, one pair per layer."""

    def __init__(self, pairs):
        self.pairs, self.length = pairs, pairs[0][0].shape[1]

    def open(self, positions):
        return positions

    def prefix(self, layer):
        return self.pairs[layer]


def a_draw(plan, clips=2, step=0, seed=0, text=16) -> Draw:
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randn(clips, 3, text, generator=generator)
    return Draw(step, plan, 5.0, texts, torch.zeros(1, 3, text), Noise(seed), None)


def test_crops_are_refused():
    preset = DMDPreset(plans=(Share("full", 1.0, crop=1),))
    with pytest.raises(ValueError, match=r"give its plans no Share.crop"):
        SymmetricDMD(make(), make(), {"forward": make()}, preset)


class TestGradient:
    def test_points_from_what_is_generated_to_what_is_real(self):
        """Samples of N(2, 1) scored against N(-1, 1): every expected step goes down, by about the same amount."""
        torch.manual_seed(0)
        sample = 2 + torch.randn(4000, 1, 1)
        sigma = torch.full((4000, 1, 1), 0.6)
        noisy = (1 - sigma) * sample + sigma * torch.randn_like(sample)
        gradient = dmd_gradient(sample, Gaussian(-1, 1).x0(noisy, sigma), Gaussian(2, 1).x0(noisy, sigma))
        assert (gradient > 0).all()  # descending it lowers the sample, towards the data

    def test_vanishes_where_the_distributions_agree(self):
        sample = torch.randn(8, 5, 3)
        same = Gaussian(0, 1).x0(sample, 0.5)
        assert torch.equal(dmd_gradient(sample, same, same), torch.zeros(8, 5, 3))

    def test_is_the_gradient_of_the_loss_for_each_clip_at_its_own_scale(self):
        sample = torch.randn(4, 6, 2, requires_grad=True)
        real, fake = torch.randn(4, 6, 2), torch.randn(4, 6, 2)
        real[1] = sample[1].detach() + 100 * (real[1] - sample[1].detach())
        dmd_loss(sample, real, fake).backward()
        expected = dmd_gradient(sample.detach(), real, fake) / sample.numel()
        assert torch.allclose(sample.grad, expected, atol=1e-7)
        clip = (fake[2] - real[2]) / (sample[2] - real[2]).abs().mean()
        assert torch.allclose(expected[2] * sample.numel(), clip, atol=1e-5)

    def test_of_a_sample_that_is_real_to_the_last_bit_is_zero_not_nan(self):
        sample = torch.ones(2, 3, 4)
        assert torch.equal(dmd_gradient(sample, sample, sample + 1), torch.zeros(2, 3, 4))

    def test_descent_carries_a_generator_to_the_data(self):
        """A generator mean + std * z with the exact fake score ends at the data's mean and deviation."""
        torch.manual_seed(0)
        mean, log_std = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.5))
        optimizer = torch.optim.Adam([mean, log_std], lr=0.03)
        for _ in range(400):
            sample = mean + log_std.exp() * torch.randn(512, 4)
            sigma = 0.02 + 0.96 * torch.rand(512, 1)
            noisy = ((1 - sigma) * sample + sigma * torch.randn_like(sample)).detach()
            real = Gaussian(-1.0, 0.5).x0(noisy, sigma)
            fake = Gaussian(mean.item(), log_std.exp().item()).x0(noisy, sigma)
            dmd_loss(sample, real, fake).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert mean.item() == pytest.approx(-1.0, abs=0.1)
        assert log_std.exp().item() == pytest.approx(0.5, abs=0.1)


class TestFakeScorers:
    @pytest.mark.parametrize("name", PLANS)
    def test_the_backward_mask_is_the_forward_mask_of_the_reversed_plan(self, name):
        plan = PlanSpec.parse(name).build(Grid(2, 4, 4))
        backward = scorer_mask(plan, "backward")
        # Tokens of the reversed plan, put back in the plan's own order.
        sizes = [unit.size() for unit in plan.units]
        order = torch.cat(list(torch.arange(sum(sizes)).split(sizes))[::-1])
        assert torch.equal(backward[order][:, order], plan.reverse().mask())
        assert torch.equal(scorer_mask(plan, "forward") | backward, torch.ones_like(backward))
        assert plan.reverse().reverse() == plan

    @pytest.mark.parametrize("conv_width", [0, 8])
    def test_the_backward_scorer_is_the_forward_one_of_the_reversed_plan(self, conv_width):
        """The same weights, clip and noise, with the units told in the other order."""
        plan = PlanSpec.parse("cube:2x2x2").build(Grid(2, 4, 4))
        network, text, sigma = make(conv_width=conv_width), torch.randn(2, 3, 16), torch.tensor([0.3, 0.9])
        noisy = torch.randn(2, 32, 16)
        backward = FakeScorers({"backward": network})(noisy, sigma, text, plan)[0]
        flipped = torch.cat(noisy.split(4, dim=1)[::-1], dim=1)
        forward = FakeScorers({"forward": network})(flipped, sigma, text, plan.reverse())[0]
        assert torch.allclose(torch.cat(forward.split(4, dim=1)[::-1], dim=1), backward, atol=1e-5)

    @pytest.mark.parametrize("conv_width", [0, 8])
    @pytest.mark.parametrize("direction", ["forward", "backward"])
    def test_a_causal_scorer_ignores_what_it_must_not_see(self, direction, conv_width):
        plan = PlanSpec.parse("frame").build(Grid(3, 2, 2))
        scorer, text = FakeScorers({direction: make(conv_width=conv_width)}), torch.randn(1, 3, 16)
        noisy = torch.randn(1, 12, 16)
        changed = noisy.clone()
        changed[:, 4:8] += 1
        with torch.no_grad():
            before, after = (scorer(x, torch.tensor([0.5]), text, plan)[0] for x in (noisy, changed))
        same = [torch.equal(before[:, i : i + 4], after[:, i : i + 4]) for i in (0, 4, 8)]
        assert same == ([True, False, False] if direction == "forward" else [False, False, True])

    def test_the_minimiser_of_their_loss_is_the_score_of_what_is_generated(self, monkeypatch):
        """The generator makes N(1.5, 0.7^2); a linear scorer of each sigma that minimises the fakes' loss is the
        posterior mean of that distribution."""
        sigma = 0.7

        class Linear(nn.Module):
            def __init__(self):
                super().__init__()
                self.gain, self.bias = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

            def forward(self, x, timestep, text, places, mask=None, unit_shapes=None):
                return self.gain * x + self.bias

        class Generator(nn.Module):
            config = make().config

            def forward(self, noise, text, plan):
                return 1.5 + 0.7 * noise[0]

        plan = PlanSpec.parse("frame").build(Grid(2, 4, 4))
        fake = Linear()
        method = SymmetricDMD(make(), Gaussian(0, 1), {"forward": fake}, DMDPreset(scorers="forward", fakes_first=10))
        method.parts["model"] = Generator()
        monkeypatch.setattr("train.dmd.LOWEST", sigma)
        monkeypatch.setattr("train.dmd.HIGHEST", sigma)
        optimizer = torch.optim.LBFGS(fake.parameters(), lr=0.5, max_iter=50)

        def closure():
            optimizer.zero_grad()
            ((_, loss, _),) = method.losses(a_draw(plan, clips=256, seed=1))
            loss.backward()
            return loss

        optimizer.step(closure)
        x = torch.linspace(-2, 3, 11)
        x0 = x - sigma * (fake.gain * x + fake.bias)
        assert torch.allclose(x0, Gaussian(1.5, 0.7).x0(x, sigma), atol=0.05)


class TestRollout:
    @pytest.mark.parametrize("name", PLANS)
    def test_samples_as_the_served_model_does(self, name):
        """Step by step, unit by unit, against a cache: the loop of videoar.generate, without gradients."""
        plan = PlanSpec.parse(name).build(Grid(2, 4, 4))
        network, text = make().eval(), torch.randn(2, 3, 16)
        sigmas = schedule(3, 5.0)
        noise = torch.randn(3, 2, len(plan.unit_ids()), 16)
        with torch.no_grad():
            sample = Rollout(network, sigmas)(noise, text, plan)
            cache, start, expected = network.new_cache(2), 0, []
            for unit in plan.units:
                own, place = noise[:, :, start : start + unit.size()], plan.positions(unit)
                start += unit.size()

                def velocity(x, sigma, place=place, cache=cache):
                    return network(x, torch.full((2, 1), 1000 * sigma), text, place, cache=cache)

                *_, x0 = few_step(velocity, own[0], sigmas, lambda step, own=own: own[step + 1])
                network(x0, torch.zeros(2, 1), text, place, cache=cache)
                cache.commit()
                expected.append(x0)
        assert torch.allclose(sample, torch.cat(expected, dim=1), atol=1e-5)

    @pytest.mark.parametrize("steps", [1, 3])
    def test_the_gradient_comes_through_the_exit_step_alone(self, steps):
        """It equals that of the exit step recomputed alone, with everything before it held constant."""
        plan = PlanSpec.parse("cube:2x1x2").build(Grid(2, 2, 2))
        network, text = make(), torch.randn(2, 3, 16)
        sigmas, noise, seen = schedule(4, 5.0), torch.randn(steps, 2, 8, 16), []
        weight = torch.randn(2, 8, 16)
        original = network.forward

        def spy(x, timestep, text_kv, place, cache):
            if torch.is_grad_enabled():
                layers = range(network.config.num_layers)
                prefix = [tuple(t.clone() for t in cache.prefix(i)) for i in layers]
                seen.append((x.clone(), timestep.clone(), place, prefix))
            return original(x, timestep, text_kv, place, cache=cache)

        network.forward = spy
        (Rollout(network, sigmas)(noise, text, plan) * weight).sum().backward()
        network.forward = original
        gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
        network.zero_grad()
        assert len(seen) == len(plan.units)
        for (x, timestep, place, prefix), part in zip(seen, weight.split(2, dim=1), strict=True):
            assert not x.requires_grad
            assert torch.all(timestep == 1000 * sigmas[steps - 1])

            x0 = x - sigmas[steps - 1] * original(x, timestep, text, place, cache=FrozenCache(prefix))
            (x0 * part).sum().backward()
        for name, p in network.named_parameters():
            assert torch.allclose(p.grad, gradients[name], atol=1e-4), name

    def test_autocast_loses_no_gradient(self):
        """The casts that autocast keeps of the steps without gradients must not serve the step with them."""
        plan = PlanSpec.parse("frame").build(Grid(2, 2, 2))
        network, text = make(), torch.randn(1, 3, 16)
        with torch.autocast("cpu", torch.bfloat16):
            sample = Rollout(network, schedule(4, 5.0))(torch.randn(3, 1, 8, 16), text, plan)
        sample.square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())

    def test_latents_are_put_back_where_they_came_from(self):
        for name in PLANS:
            plan = PlanSpec.parse(name).build(Grid(2, 4, 4))
            latents = torch.randn(2, 4, 2, 8, 8)
            tokens = plan_tokens(level_tokens(latents, plan, (1, 2, 2), {}), plan)
            assert torch.equal(finest_latents(tokens, plan, (1, 2, 2)), latents)


class TestMethod:
    @pytest.mark.parametrize("scorers", list(SCORERS))
    @pytest.mark.parametrize("name", ["cube:2x2x2", "scale:2"])
    def test_the_generator_learns_in_its_turn_and_the_fakes_always(self, scorers, name):
        plan = PlanSpec.parse(name).build(Grid(2, 4, 4))
        fakes = {direction: make(i) for i, direction in enumerate(SCORERS[scorers])}
        preset = DMDPreset(scorers=scorers, fakes_first=1, fake_updates=3, fake_repeats=2)
        method = SymmetricDMD(make(), make(9).requires_grad_(False), fakes, preset)
        for step, turn in enumerate([0, 1, 0, 0, 1]):
            names = []
            for part, loss, _ in method.losses(a_draw(plan, step=step, seed=step)):
                names.append(part)
                loss.backward()
                others = [n for n in method.trained if n != part]
                assert all(p.grad is not None for p in method.trained[part].parameters())
                assert all(p.grad is None for n in others for p in method.trained[n].parameters())
                method.trained[part].zero_grad(set_to_none=True)
            assert names == turn * ["model"] + ["fakes", "fakes"]

    def test_the_real_scorer_is_guided_and_sees_each_level_as_a_video(self):
        plan = PlanSpec.parse("scale:2").build(Grid(2, 4, 4))
        preset = DMDPreset(real_guidance=3.0)
        places, shapes = [], []

        class Real(nn.Module):
            def forward(self, x, timestep, text, place, unit_shapes):
                places.append(place)
                shapes.append(unit_shapes)
                return torch.where(text.abs().sum((1, 2), keepdim=True) > 0, 2.0, 1.0).expand_as(x)

        for spatial in (True, False):
            method = SymmetricDMD(make(spatial_embedding=spatial), Real(), {"forward": make()}, preset)
            draw = a_draw(plan)
            velocity = method.real_velocity(torch.randn(2, 40, 16), torch.tensor([0.5, 0.5]), draw)
            assert torch.equal(velocity, torch.full((2, 40, 16), 1 + 3.0))  # uncond + 3 (cond - uncond)
        assert torch.equal(places[0], place_of(plan)[:8])  # where they are in the finest level
        assert places[2][:, 1:].max() == 1  # a video of 2x2 tokens
        assert torch.equal(places[1], places[3])
        assert shapes == [[(2, 2, 2)], [(2, 4, 4)]] * 2
        limited = dataclasses.replace(preset, guidance_interval=(0.6, 0.8))
        method = SymmetricDMD(make(), Real(), {"forward": make()}, limited)
        velocity = method.real_velocity(torch.randn(2, 40, 16), torch.tensor([0.5, 0.7]), draw)
        assert torch.equal(velocity[0], torch.full((40, 16), 2.0))  # below the interval: cond
        assert torch.allclose(velocity[1], torch.full((40, 16), 1 + 2.0))  # in its middle: uncond + 2 (cond - uncond)

    @pytest.mark.parametrize("name", ["cube:2x2x2", "scale:2"])
    def test_networks_with_convolutions_learn(self, name):
        plan = PlanSpec.parse(name).build(Grid(2, 4, 4))
        fakes = {"forward": make(1, conv_width=8), "backward": make(2, conv_width=4)}
        real = make(9, conv_width=8).requires_grad_(False)
        method = SymmetricDMD(make(conv_width=8), real, fakes, DMDPreset())
        for part, loss, _ in method.losses(a_draw(plan)):
            loss.backward()
            assert all(p.grad.abs().sum() > 0 for n, p in method.trained[part].named_parameters() if "conv_" in n)

    def test_a_generator_that_makes_the_data_is_left_alone(self):
        """With one network as both scorers and no guidance there is nothing to learn."""
        plan = PlanSpec.parse("full").build(Grid(2, 4, 4))
        same = make(3)
        preset = dataclasses.replace(DMDPreset(), scorers="full", real_guidance=1.0)
        method = SymmetricDMD(make(), same, {"full": same}, preset)
        _, loss, columns = next(method.losses(a_draw(plan)))
        assert loss.item() == columns["dmd"] == 0
