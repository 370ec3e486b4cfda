"""Teacher forcing sees exactly what sampling with the cache sees, and the codec streams."""

import pytest
import torch

from train.data import Batch
from train.feed import excerpt_shift
from train.flow import FlowMatching, Noise, level_tokens, plan_tokens, teacher_forcing_mask
from train.judge import flow_loss
from train.optim import learning_rate
from train.presets import FlowPreset, OwnContextPreset
from train.run import Average
from videoar.codec import TinyCodec, from_blocks, to_blocks
from videoar.plan import Grid, PlanSpec
from videoar.transformer import VideoARTransformer3DModel, patchify


@pytest.fixture
def transformer():
    return make()


def make(conv_width: int = 0) -> VideoARTransformer3DModel:
    torch.manual_seed(0)
    network = VideoARTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=64, prediction_type="sample",
        spatial_embedding=True, conv_width=conv_width,
    ).eval()  # fmt: skip
    if conv_width:  # as if trained: new ones change nothing
        for layer in (network.conv_stem.proj, network.conv_head.conv_out):
            torch.nn.init.normal_(layer.weight, std=0.3)
    return network


@pytest.mark.parametrize("conv_width", [0, 8])
@pytest.mark.parametrize("name", ["frame", "key_detail:2", "cube:2x2x2", "scale:2"])
def test_teacher_forcing_equals_sampling_with_the_cache(name, conv_width):
    transformer = make(conv_width)
    plan = PlanSpec.parse(name).build(Grid(3, 4, 4))
    latents = torch.randn(2, 4, 3, 8, 8)
    tokens = plan_tokens(level_tokens(latents, plan, (1, 2, 2), {2: 0.8}), plan)
    noisy = torch.randn_like(tokens)
    ids, units = plan.unit_ids(), len(plan.units)
    positions = torch.cat([plan.positions(u) for u in plan.units])
    text = torch.randn(2, 5, 16)
    timesteps = torch.rand(2, units) * 1000
    with torch.no_grad():
        kv = transformer.encode_text(text)
        together = transformer(
            torch.cat([tokens, noisy], 1),
            torch.cat([torch.zeros_like(timesteps), timesteps], 1),
            kv,
            torch.cat([positions, positions]),
            token_unit_N=torch.cat([ids, ids + units]),
            mask=teacher_forcing_mask(ids),
        )[:, tokens.shape[1] :]
        cache = transformer.new_cache(2)
        for i, unit in enumerate(plan.units):
            mine = ids == i
            place = plan.positions(unit)
            alone = transformer(noisy[:, mine], timesteps[:, i : i + 1], kv, place, cache=cache)
            assert torch.allclose(alone, together[:, mine], atol=1e-4), (name, i)
            transformer(tokens[:, mine], torch.zeros(2, 1), kv, place, cache=cache)
            cache.commit()


@pytest.mark.parametrize("name", ["full", "cube:2x2x2", "scale:2"])
def test_training_tells_convolutions_the_units_that_coordinates_tell(name, monkeypatch):
    plan, network = PlanSpec.parse(name).build(Grid(3, 4, 4)), make(conv_width=8)
    latents, text, told, forward = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 5, 16), [], network.forward

    def spy(*args, unit_shapes, **kwargs):
        told.append(unit_shapes)
        return forward(*args, **kwargs)

    method = FlowMatching(network, FlowPreset(), {2: 0.8})
    loss, _ = method(latents, text, plan, 5.0, Noise(1))
    monkeypatch.setattr(network, "forward", spy)
    assert torch.equal(method(latents, text, plan, 5.0, Noise(1))[0], loss)
    assert told == [[unit.shape() for unit in plan.units] * (1 if name == "full" else 2)]


def test_a_perfect_prediction_has_no_loss():
    """The target of flow matching is e - x, whatever the plan."""

    class Oracle(torch.nn.Module):
        config = type("C", (), {"patch_size": (1, 2, 2)})

        def encode_text(self, text):
            return None

        def __call__(
            self, x, timestep, kv, positions, token_unit_N=None, mask=None, cache=None, hidden=None, unit_shapes=None
        ):
            sigma = timestep / 1000 if token_unit_N is None else (timestep / 1000)[:, token_unit_N]
            n = self.clean.shape[1]
            sigma = sigma[..., None] if sigma.shape[1] > 1 else sigma[:, :, None]
            noisy = x[:, -n:]
            sigma = sigma[:, -n:] if sigma.shape[1] > 1 else sigma
            v = (noisy - self.clean) / sigma  # x_t - x = s (e - x)
            return torch.cat([torch.zeros_like(x[:, :-n]), v], 1)

    for name in ("full", "cube:2x2x2", "scale:2"):
        plan = PlanSpec.parse(name).build(Grid(2, 4, 4))
        latents = torch.randn(3, 4, 2, 8, 8)
        oracle = Oracle()
        oracle.clean = plan_tokens(level_tokens(latents, plan, (1, 2, 2), {}), plan)
        loss, _ = FlowMatching(oracle, FlowPreset(), {})(latents, torch.zeros(3, 1, 1), plan, 5.0, Noise(1))
        assert loss.item() < 1e-6


@pytest.mark.parametrize("name", ["cube:2x2x2", "full"])
def test_guidance_is_distilled_from_the_guided_teacher(transformer, name):
    """Guidance 1 is the teacher itself; otherwise the error is (g - 1) times what the prompt changes."""
    plan = PlanSpec.parse(name).build(Grid(3, 4, 4))
    latents, text, nothing = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 5, 16), torch.randn(1, 5, 16)
    preset = FlowPreset(teacher_guidance=1.0)
    with torch.no_grad():
        loss, _ = FlowMatching(transformer, preset, {}, transformer)(latents, text, plan, 5.0, Noise(3), nothing)
        assert loss < 1e-9
        losses = [
            FlowMatching(transformer, FlowPreset(teacher_guidance=g), {}, transformer)(
                latents, text, plan, 5.0, Noise(3), nothing
            )[0]
            for g in (2.0, 4.0)
        ]
        inside, everywhere = (
            FlowMatching(transformer, FlowPreset(teacher_guidance=2.0, guidance_interval=interval), {}, transformer)(
                latents, text, plan, 5.0, Noise(3), nothing
            )[0]
            for interval in ((0.999, 1.0), (0.0, 1e-9))
        )
    assert losses[0] > 1e-6
    assert torch.allclose(losses[1], 9 * losses[0], rtol=1e-3)
    assert inside < 1e-3 * losses[0]  # no sigma is as high, so that the target is the teacher itself
    assert torch.allclose(everywhere, losses[0])


class Spy(torch.nn.Module):
    """A network that notes what it is called with, whether with gradients, and what it says."""

    def __init__(self, network):
        super().__init__()
        self.network, self.config, self.calls = network, network.config, []

    def forward(self, x, timestep, text, positions, **kwargs):
        out = self.network(x, timestep, text, positions, **kwargs)
        self.calls.append((x, timestep, torch.is_grad_enabled(), out))
        return out


OWN = OwnContextPreset(share=1.0, sigmas=(0.4, 0.85))


def loss_under(plan, network, preset, clips=2, noise=None):
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(clips, 4, 3, 8, 8, generator=generator), torch.randn(clips, 5, 16, generator=generator)
    built = PlanSpec.parse(plan).build(Grid(3, 4, 4))
    x = plan_tokens(level_tokens(latents, built, (1, 2, 2), {2: 0.8}), built)
    part = slice(None) if noise is None else slice(noise.part, None, noise.parts)
    module = FlowMatching(network, preset, {2: 0.8})
    loss, _ = module(latents[part], text[part], built, 5.0, noise or Noise(1))
    return loss, x, built


@pytest.mark.parametrize("name", ["frame", "cube:2x2x2", "scale:2"])
def test_the_context_is_the_networks_own_estimate(transformer, name):
    """It sees the clips through noise between the sigmas, beside the clean ones; what it makes of them is told as clean
    to the pass that learns.
    """
    spy = Spy(transformer)
    _, x, plan = loss_under(name, spy, FlowPreset(own_context=OWN, context_noise=0.2))
    (first, noise, grads, said), (second, noise_2, learns, _) = spy.calls
    n, units, ids = x.shape[1], len(plan.units), plan.unit_ids()
    assert [grads, learns] == [False, True]
    assert torch.equal(first[:, :n], x)
    assert not noise[:, :units].any()
    sigma = noise[:, units:] / 1000
    assert ((sigma > 0.4) & (sigma < 0.85)).all()
    assert len(sigma.unique()) == sigma.numel()
    torch.testing.assert_close(second[:, :n], first[:, n:] - sigma[:, ids, None] * said[:, n:])
    assert not second[:, :n].requires_grad
    assert not torch.allclose(second[:, :n], x, atol=0.1)
    assert not noise_2[:, :units].any()


def test_a_plan_of_one_unit_has_no_context_to_estimate(transformer):
    spy = Spy(transformer)
    loss, *_ = loss_under("full", spy, FlowPreset(own_context=OWN))
    assert len(spy.calls) == 1
    assert loss == loss_under("full", transformer, FlowPreset())[0]


def test_all_processes_take_their_own_context_in_the_same_steps(transformer):
    """Two processes train as one does on both their clips, whichever way the step is drawn."""
    preset, passes = FlowPreset(own_context=OwnContextPreset(share=0.4)), []
    for seed in range(40):
        spy = Spy(transformer)
        with torch.no_grad():
            whole, *_ = loss_under("frame", spy, preset, noise=Noise(seed))
            halves = [loss_under("frame", transformer, preset, noise=Noise(seed, part, 2))[0] for part in (0, 1)]
        assert (sum(halves) / 2).item() == pytest.approx(whole.item(), rel=1e-4)
        passes.append(len(spy.calls))
    assert set(passes) == {1, 2}
    assert 8 <= passes.count(2) <= 24


@pytest.mark.parametrize("name", ["frame", "cube:2x2x2"])
def test_under_autocast_the_gradients_reach_the_weights_after_the_pass_without(transformer, name, monkeypatch):
    """Autocast keeps the casts of weights, and those of the first pass have no gradients. Newer torch tells the two
    kinds apart; what holds with older ones too is that nothing is kept.
    """
    passes_before_clearing = []
    clear = torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: (passes_before_clearing.append(len(spy.calls)), clear()))
    spy = Spy(transformer)

    def gradients(**kwargs):
        transformer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, **kwargs):
            loss, *_ = loss_under(name, spy, FlowPreset(own_context=OWN))
            assert passes_before_clearing.pop() == 1
        loss.backward()
        assert len(spy.calls) == 2
        spy.calls.clear()
        return {name: p.grad for name, p in transformer.named_parameters()}

    kept, anew = gradients(), gradients(cache_enabled=False)
    assert all(grad is not None and grad.any() for grad in anew.values())
    for name in anew:
        torch.testing.assert_close(kept[name], anew[name], rtol=0.1, atol=1e-3 * anew[name].abs().max().item())


def test_networks_are_judged_with_a_clean_past(transformer):
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(2, 4, 3, 8, 8, generator=generator), ["", ""])
    text = torch.randn(2, 5, 16, generator=generator)
    presets = (FlowPreset(), FlowPreset(own_context=OWN, context_noise=0.2))
    clean, other = (flow_loss(transformer, preset, {}, batch, text, "frame") for preset in presets)
    assert clean == other


def test_coarse_levels_are_area_averages_of_unit_spread():
    latents = torch.randn(2, 4, 2, 8, 8)
    plan = PlanSpec.parse("scale:2").build(Grid(2, 4, 4))
    coarse, fine = level_tokens(latents, plan, (1, 2, 2), {2: 0.5})
    pooled = torch.nn.functional.avg_pool3d(latents, (1, 2, 2)) / 0.5
    assert torch.equal(coarse, patchify(pooled, (1, 2, 2)))
    assert torch.equal(fine, patchify(latents, (1, 2, 2)))


def test_mask_of_teacher_forcing():
    mask = teacher_forcing_mask(torch.tensor([0, 0, 1]))
    expected = torch.tensor(
        [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0],
         [0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0], [1, 1, 0, 0, 0, 1]]
    ).bool()  # fmt: skip
    assert torch.equal(mask, expected)


def test_learning_rate_warms_up_holds_and_falls():
    rates = [learning_rate(s, 100, 1.0, 10, 0.5) for s in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[30] == 1.0
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == 0.0


def test_average_follows_the_module():
    module = torch.nn.Linear(2, 2)
    average = Average(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(1.0)
    for step in range(200):
        average.update(module, step)
    assert torch.allclose(average.tensors["weight"], torch.ones(2, 2), atol=1e-4)


class TestTinyCodec:
    @pytest.fixture
    def codec(self):
        torch.manual_seed(0)
        codec = TinyCodec(z_dim=6, widths=(16, 12, 8, 8), depths=(1, 1, 1, 1))
        codec.fit_linear(torch.randn(4000, 768) @ torch.diag(torch.linspace(2, 0.1, 768)))
        for p in codec.parameters():
            torch.nn.init.normal_(p, std=0.05)
        return codec.eval()

    def test_blocks_invert(self):
        video = torch.randn(2, 3, 9, 16, 24)
        assert torch.equal(from_blocks(to_blocks(video))[:, :, 3:], video)

    @torch.no_grad()
    def test_streamed_decode_equals_whole_decode(self, codec):
        z = torch.randn(1, 6, 5, 2, 3)
        whole = codec.decode_chunk(z)[0]
        state, parts = None, []
        for a, b in ((0, 1), (1, 3), (3, 5)):
            part, state = codec.decode_chunk(z[:, :, a:b], state)
            parts.append(part)
        assert torch.cat(parts, 2).shape == (1, 3, 17, 16, 24)
        assert torch.allclose(torch.cat(parts, 2), whole, atol=1e-5)

    @torch.no_grad()
    def test_state_is_a_value(self, codec):
        z = torch.randn(1, 6, 3, 2, 2)
        _, state = codec.decode_chunk(z[:, :, :1])
        first = codec.decode_chunk(z[:, :, 1:2], state)[0]
        codec.decode_chunk(z[:, :, 2:3], state)
        assert torch.equal(codec.decode_chunk(z[:, :, 1:2], state)[0], first)

    def test_linear_part_is_the_best_of_its_rank(self):
        """With all components kept the transpose inverts the encoder."""
        basis = torch.linalg.qr(torch.randn(768, 6))[0].T
        blocks = torch.randn(2000, 6) @ basis
        codec = TinyCodec(z_dim=6, widths=(8, 8, 8, 8), depths=(1, 1, 1, 1))
        codec.fit_linear(blocks)
        video = from_blocks(torch.randn(1, 3, 2, 2, 6) @ basis)[:, :, :]
        held = video[:, :, :1].expand(-1, -1, 4, -1, -1)
        clip = torch.cat([held, video[:, :, 4:]], 2)[:, :, 3:]
        again = codec.linear_decode(codec.encode(clip))[:, :, 4:]
        assert torch.allclose(again, video[:, :, 4:], atol=1e-3)

    def test_sizes_that_do_not_fit_are_refused(self, codec):
        with pytest.raises(ValueError, match="1 \\+ 4n frames"):
            codec.encode(torch.zeros(1, 3, 8, 16, 16))


def test_shorter_excerpts_are_shifted_less():
    assert excerpt_shift(5.0, 1.0) == 5.0
    assert excerpt_shift(5.0, 0.25) == 2.5
    assert excerpt_shift(2.0, 0.125) == 1.0
