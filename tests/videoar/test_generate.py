"""The loop: same request, same bytes; interleaving, stopping, plans, guidance."""

from __future__ import annotations

import dataclasses
import gc
import threading

import numpy as np
import pytest
import torch

from tests.videoar.tiny import INFO
from videoar.checkpoint import Model
from videoar.decoder import to_uint8
from videoar.events import ClipFinished, ClipStarted, PromptSwitched, StepDone, UnitDecoded, UnitStarted
from videoar.generate import _Denoiser, _part, generate
from videoar.noise import NoiseField
from videoar.plan import Grid, PlanSpec
from videoar.request import Request, resolve

PLANS = ("frame", "frame:3", "key_detail:4", "cube:2x2x2", "cube:1x2x2@3,1,0,2", "scale:2", "full")


def film(model, request, **options):
    return list(generate(model, request, **options))[-1].video


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_makes_a_whole_film(tiny_model, plan):
    events = list(generate(tiny_model, Request("a red ball", plan, seed=1)))
    started, finished = events[0], events[-1]
    assert isinstance(started, ClipStarted)
    assert isinstance(finished, ClipFinished)
    assert finished.video.shape == (17, 64, 64, 3)
    assert finished.video.dtype == np.uint8
    units = [e for e in events if isinstance(e, UnitStarted)]
    decoded = [e for e in events if isinstance(e, UnitDecoded)]
    assert [e.index for e in units] == [e.index for e in decoded] == list(range(started.unit_total))
    assert sum(isinstance(e, StepDone) for e in events) == started.unit_total * started.steps
    # Exact patches follow each other without gaps and are the film.
    exact = [patch for event in decoded for patch in event.patches if not patch.preview]
    assert np.array_equal(np.concatenate([patch.frames for patch in exact]), finished.video)
    assert [patch.first_frame for patch in exact] == list(np.cumsum([0] + [len(p.frames) for p in exact])[:-1])
    for patch in (patch for event in decoded for patch in event.patches):
        assert patch.x + patch.width <= 64
        assert patch.y + patch.height <= 64
        assert patch.first_frame + len(patch.frames) <= 17
    # Something is to be seen after the very first unit.
    assert decoded[0].patches
    assert 0 < finished.first_frame_s <= finished.seconds


def test_previews_show_the_units_region(tiny_model):
    events = generate(tiny_model, Request("a red ball", seed=1))
    started = {e.index: e for e in events if isinstance(e, UnitStarted)}
    events = generate(tiny_model, Request("a red ball", seed=1))
    for event in (e for e in events if isinstance(e, UnitDecoded)):
        for patch in event.patches:
            if patch.preview:
                assert (patch.x, patch.y, patch.width, patch.height) == started[event.index].region
                assert patch.first_frame == started[event.index].frame_range[0]
    without = generate(tiny_model, Request("a red ball", seed=1), previews=False)
    assert not any(p.preview for e in without if isinstance(e, UnitDecoded) for p in e.patches)


@pytest.mark.parametrize("plan", ["cube", "scale:2"])
def test_same_request_same_bytes(tiny_model, plan):
    request = Request("a red ball", plan, seed=3)
    expected = film(tiny_model, request)
    torch.manual_seed(99)  # the global generator plays no part
    assert np.array_equal(film(tiny_model, request), expected)
    assert np.array_equal(film(tiny_model, request, previews=False, overlap=False), expected)
    assert not np.array_equal(film(tiny_model, dataclasses.replace(request, seed=3 + 2**32)), expected)
    assert not np.array_equal(film(tiny_model, dataclasses.replace(request, prompt="two fish")), expected)


def test_two_interleaved_clips_equal_two_sequential_ones(tiny_model):
    requests = Request("a red ball", "cube", seed=1), Request("two fish", "key_detail:4", seed=2, guidance_scale=2.0)
    alone = [film(tiny_model, request) for request in requests]
    together = [generate(tiny_model, request) for request in requests]
    videos = [None, None]
    while not all(v is not None for v in videos):
        for i, events in enumerate(together):
            event = next(events, None)
            if isinstance(event, ClipFinished):
                videos[i] = event.video
    assert all(np.array_equal(a, b) for a, b in zip(alone, videos, strict=True))


def test_frame_plan_equals_plain_code(tiny_model):
    """The loop against a few lines that do the same without cache, canvas or stream."""
    plan = PlanSpec.parse("frame").build(Grid(5, 4, 4))
    noise = NoiseField(4, plan, 16, (1, 2, 2))
    model, done, sigmas = tiny_model.transformer, [], [1.0, 5 / 6]
    with torch.no_grad():
        text = tiny_model.text("a red ball")
        for i, unit in enumerate(plan.units):
            units = plan.units[: i + 1]
            where = torch.cat([plan.positions(u) for u in units])
            ids = torch.arange(i + 1).repeat_interleave(16)
            mask = ids[:, None] >= ids[None, :]
            x = noise.tokens(unit, 0)
            for step, sigma in enumerate(sigmas):
                t = torch.tensor([[0.0] * i + [1000 * sigma]])
                x0 = x - sigma * model(torch.cat([*done, x], 1), t, text, where, ids, mask)[:, -16:]
                x = x0 if step else (1 - sigmas[1]) * x0 + sigmas[1] * noise.tokens(unit, 1)
            done.append(x0)
        from videoar.decoder import StreamDecoder
        from videoar.transformer import unpatchify

        expected = StreamDecoder(tiny_model.vae).push(unpatchify(torch.cat(done, 1), (5, 4, 4), (1, 2, 2)))[0].numpy()
    got = film(tiny_model, Request("a red ball", "frame", seed=4))
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_guidance_of_one_needs_no_second_branch_and_two_changes_the_film(tiny_model):
    request = Request("a red ball", "frame", seed=1)
    plain = film(tiny_model, request)
    assert np.array_equal(film(tiny_model, dataclasses.replace(request, guidance_scale=1.0)), plain)
    guided = film(tiny_model, dataclasses.replace(request, guidance_scale=4.0))
    assert not np.array_equal(guided, plain)
    other = film(tiny_model, dataclasses.replace(request, guidance_scale=4.0, negative_prompt="two fish"))
    assert not np.array_equal(other, guided)


def test_euler_models(tiny_model):
    info = dataclasses.replace(INFO, sampler="euler", steps=3, guidance_scale=3.0)
    model = Model(tiny_model.transformer, tiny_model.vae, tiny_model.text, info)
    events = list(generate(model, Request("a red ball", "full", seed=1)))
    assert events[0].steps == 3
    assert events[-1].video.shape == (17, 64, 64, 3)


@pytest.mark.parametrize("plan", PLANS)
def test_a_longer_film_begins_like_a_shorter_one(tiny_model, plan):
    request = Request("a red ball", plan, seed=1, window=5, sink=1 if plan != "frame:3" else 0)
    if plan == "key_detail:4":
        request = dataclasses.replace(request, window=6)
    shorter, longer = (film(tiny_model, dataclasses.replace(request, frames=n)) for n in (33, 53))
    assert (len(shorter), len(longer)) == (33, 53)
    assert np.array_equal(longer[:29], shorter[:29])  # up to the slab that is left over
    endless = generate(tiny_model, dataclasses.replace(request, endless=True), previews=False)
    pictures, exact = [], 0
    for event in endless:
        if isinstance(event, UnitDecoded):
            assert event.total is None
            pictures += [patch.frames for patch in event.patches]
            exact = sum(map(len, pictures))
        if exact >= 45:
            break
    endless.close()
    assert np.array_equal(np.concatenate(pictures)[:45], longer[:45])


def test_previews_of_later_slabs_lie_where_their_units_do(tiny_model):
    started, exact = {}, 0
    for event in generate(tiny_model, Request("a red ball", "cube", seed=1, frames=49), keep=False):
        if isinstance(event, UnitStarted):
            started[event.index] = event
        elif isinstance(event, UnitDecoded):
            for patch in event.patches:
                first, end = started[event.index].frame_range
                assert first <= patch.first_frame < patch.first_frame + len(patch.frames) <= end or not patch.preview
                if not patch.preview:
                    assert patch.first_frame == exact
                    exact += len(patch.frames)
        elif isinstance(event, ClipFinished):
            assert event.video.shape == (0, 64, 64, 3)
            assert (event.units, exact) == (len(started), 49)


@pytest.mark.parametrize("plan", ["cube", "frame", "key_detail:2", "scale:2", "full"])
def test_nothing_grows_with_the_film(tiny_model, plan):
    def held() -> int:
        gc.collect()
        return sum(o.nbytes for o in gc.get_objects() if type(o) in (torch.Tensor, np.ndarray))

    gc.collect()
    gc.freeze()  # what the rest of the session holds is not of interest
    sizes, marks = [], [8, 20, 44]
    events = generate(tiny_model, Request("a", plan, seed=1, steps=1, endless=True, window=4, sink=1), overlap=False)
    try:
        for event in events:
            if isinstance(event, UnitStarted) and event.unit.frames[0] >= marks[len(sizes)]:
                sizes.append(held())
                if len(sizes) == len(marks):
                    break
    finally:
        events.close()
        gc.unfreeze()
    assert max(sizes) <= sizes[0] * 1.001


def test_closing_midway_stops_the_decoder_and_leaves_the_model_usable(tiny_model):
    request = Request("a red ball", seed=1)
    expected = film(tiny_model, request)
    events = generate(tiny_model, request)
    while not isinstance(next(events), StepDone):
        pass
    events.close()
    assert not torch.is_inference_mode_enabled()
    assert np.array_equal(film(tiny_model, request), expected)
    workers = [t for t in threading.enumerate() if t.name.startswith("videoar-decode")]
    for worker in workers:
        worker.join(timeout=10)
        assert not worker.is_alive()


@pytest.mark.parametrize("overlap", [True, False])
def test_errors_of_the_decoder_reach_the_caller(tiny_model, overlap):
    class Broken(torch.nn.Module):
        dtype, config = torch.float32, tiny_model.vae.config

        def decode_chunk(self, latents, state):
            raise RuntimeError("no pixels today")

    model = Model(tiny_model.transformer, Broken(), tiny_model.text, INFO)
    with pytest.raises(RuntimeError, match="no pixels"):
        list(generate(model, Request("a red ball", seed=1), overlap=overlap))


def test_unusable_requests_fail_at_the_call(tiny_model):
    with pytest.raises(ValueError, match="multiple"):
        generate(tiny_model, Request("a", height=72))


def test_settings_make_the_film_again(tiny_model):
    events = list(generate(tiny_model, Request("a red ball", "frame")))
    settings = events[0].settings()
    assert settings["model"] == "tiny"
    again = Request(**{k: v for k, v in settings.items() if k not in ("fps", "model")})
    assert np.array_equal(film(tiny_model, again), events[-1].video)


def test_noise_belongs_to_the_place_not_to_the_plan():
    grid = Grid(5, 4, 6)
    fields = {}
    for text in ("full", "cube:2x2x2", "frame", "scale:2"):
        plan = PlanSpec.parse(text).build(grid)
        noise = NoiseField(7, plan, 16, (1, 2, 2))
        field = torch.zeros(1, 5 * 4 * 6, 64)
        for unit in plan.units:
            if plan.scales[unit.level] == 1:
                field[:, plan.sites(unit)] = noise.tokens(unit, 2)
        fields[text] = field
    assert all(torch.equal(field, fields["full"]) for field in fields.values())
    assert fields["full"].std().item() == pytest.approx(1, abs=0.05)
    noise.forget(5)
    assert not noise._drawn


def test_coarse_levels_are_shown_as_small_pictures_of_the_whole_frame(tiny_model):
    events = list(generate(tiny_model, Request("a red ball", "scale:3", seed=1)))
    patches = [event.patches[0] for event in events if isinstance(event, UnitDecoded)]
    assert [(p.frames.shape, p.preview) for p in patches] == [
        ((17, 4, 4, 3), True),
        ((17, 8, 8, 3), True),
        ((17, 64, 64, 3), False),
    ]
    assert {(p.x, p.y, p.width, p.height, p.first_frame) for p in patches} == {(0, 0, 64, 64, 0)}


def test_lone_key_frames_are_shown_at_their_place(tiny_model):
    info = dataclasses.replace(INFO, frames=37)
    model = Model(tiny_model.transformer, tiny_model.vae, tiny_model.text, info)
    events = list(generate(model, Request("a red ball", "key_detail:4", seed=1)))
    decoded = [event for event in events if isinstance(event, UnitDecoded)]
    assert [[(p.first_frame, len(p.frames), p.preview) for p in event.patches] for event in decoded] == [
        [(0, 1, False), (13, 4, True), (29, 4, True)],
        [(1, 4, False), (17, 4, True), (33, 4, True)],
        [(5, 4, False), (21, 4, True)],
        [(9, 28, False)],
    ]


def pictures_of(events):
    """All exact pictures, and the events that switched prompts."""
    events = list(events)
    exact = [p.frames for e in events if isinstance(e, UnitDecoded) for p in e.patches if not p.preview]
    return np.concatenate(exact), [e for e in events if isinstance(e, PromptSwitched)]


def test_a_switch_before_the_first_unit_is_a_film_of_that_prompt(tiny_model):
    request = Request("a red ball", "cube", seed=1, guidance_scale=2.0, negative_prompt="a")
    generation = generate(tiny_model, request)
    generation.switch("a ball")
    generation.switch(" two   fish ")
    video, switched = pictures_of(generation)
    assert [(e.index, e.first_frame, e.prompt) for e in switched] == [(0, 0, "two fish")]
    assert np.array_equal(video, film(tiny_model, dataclasses.replace(request, prompt="two fish")))
    with pytest.raises(ValueError, match="empty"):
        generation.switch("  ")


@pytest.mark.parametrize("plan", ["frame:2", "cube:2x1x2", "key_detail:2", "scale:2"])
def test_a_switched_film_is_the_old_one_before_and_another_one_after(tiny_model, plan):
    request = Request("a red ball", plan, seed=1, steps=1, frames=33, window=5, sink=1)
    before = film(tiny_model, request)
    same = dataclasses.replace(request, storyboard=((2.0, "a red ball"),))
    assert np.array_equal(pictures_of(generate(tiny_model, same))[0], before)
    video, switched = pictures_of(generate(tiny_model, dataclasses.replace(request, storyboard=((2.0, "two fish"),))))
    at = switched[0].first_frame
    assert len(video) == len(before) == 33
    assert np.array_equal(video[:at], before[:at])
    assert not np.array_equal(video[at : at + 4], before[at : at + 4])


@pytest.mark.parametrize("plan", ["frame", "cube:2x1x2", "key_detail:2", "scale:2"])
def test_a_switch_encodes_the_window_anew_under_the_new_prompt(tiny_model, plan):
    """After a switch the cache holds what one under the new prompt would, had it been given the same film."""
    settings = resolve(tiny_model, Request("a red ball", plan, seed=1, frames=81, window=6, sink=1, guidance_scale=2.0))
    switched, fresh = _Denoiser(tiny_model, settings), _Denoiser(tiny_model, settings)
    plans = list(settings.slabs())[:4]
    size = tiny_model.transformer.config.in_channels * 4
    with torch.inference_mode():
        for unit in (unit for part in plans for unit in part.units):
            switched._commit(unit, torch.randn(1, unit.size(), size))
        held = switched.cache.frames
        assert (len(held), held[0]) == (6, 0)
        assert held[1] > 1  # some frames are gone
        kept = [_part(unit, tokens, set(held)) for unit, tokens in switched.clean]
        assert sum(unit.size() for unit, _ in kept) == switched.cache.length
        switched.switch("two fish")
        fresh.text_kv = fresh._read("two fish")
        fresh.cache._evicted = switched.cache._evicted
        for unit, tokens in kept:
            fresh._commit(unit, tokens)
    assert switched.cache.frames == held
    for layer in range(2):
        for mine, theirs in zip(switched.cache.prefix(layer), fresh.cache.prefix(layer), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("plan", "given"),
    [("cube:2x1x2", 1), ("cube:2x1x2@3,1,0,2", 60), ("frame:2", 3), ("key_detail:4", 1), ("scale:2", 17), ("full", 9)],
)
def test_films_continue_pictures_and_clips(tiny_model, plan, given):
    rng = np.random.default_rng(0)
    start = rng.integers(0, 256, (given, 64, 64, 3), np.uint8)
    request = Request("a red ball", plan, seed=1, steps=1, frames=25, window=7, start=start)
    events = list(generate(tiny_model, request))
    video = events[-1].video
    assert video.shape == (24, 64, 64, 3)  # the last given picture counts as the first
    assert (events[0].frames, "start" in events[0].settings()) == (24, False)
    first = min(e.frame_range[0] for e in events if isinstance(e, UnitStarted))
    assert first == 0
    exact = [patch for e in events if isinstance(e, UnitDecoded) for patch in e.patches if not patch.preview]
    assert [patch.first_frame for patch in exact] == list(np.cumsum([0] + [len(p.frames) for p in exact])[:-1])
    # What came before matters: the cache and the decoder have seen it.
    other = dataclasses.replace(request, start=255 - start)
    assert not np.array_equal(film(tiny_model, other), video)


def test_a_film_that_continues_its_own_beginning_is_the_same_film(tiny_model):
    """With a codec that loses nothing, going on from the first half of a film makes the second half."""

    class Lossless(torch.nn.Module):
        """Pictures of 8x8 blocks, each the mean of its latent channels; remembers what it has decoded."""

        dtype, config = torch.float32, tiny_model.vae.config
        seen: dict[bytes, torch.Tensor] = {}  # noqa: RUF012

        def decode_chunk(self, latents, state):
            shades = latents.mean(1, keepdim=True).repeat_interleave(8, 3).repeat_interleave(8, 4).tanh()
            video = shades.repeat_interleave(4, 2).expand(-1, 3, -1, -1, -1)
            for i in range(latents.shape[2]):
                self.seen[to_uint8(video[:, :, 4 * i : 4 * i + 1]).numpy().tobytes()] = latents[:, :, i]
            return (video[:, :, 3:] if state is None else video), True

        def encode(self, video):
            return torch.stack([self.seen[to_uint8(video[:, :, i : i + 1]).numpy().tobytes()]
                                for i in range(0, video.shape[2], 4)], 2)  # fmt: skip

    model = Model(tiny_model.transformer, Lossless(), tiny_model.text, INFO)
    request = Request("a red ball", "frame", seed=1, frames=33, window=9)
    whole = film(model, request)
    half = dataclasses.replace(request, frames=17, start=whole[:17])
    assert np.array_equal(film(model, half), whole[17:])


def test_what_cannot_be_continued(tiny_model):
    pictures = np.zeros((5, 64, 64, 3), np.uint8)
    for start in (pictures[0], pictures.astype(float), pictures[..., :2], pictures[:0], [[0]], pictures[:, :0]):
        with pytest.raises(ValueError, match="picture"):
            Request("a", start=start)
    with pytest.raises(ValueError, match="multiple"):
        generate(tiny_model, Request("a", start=np.zeros((1, 60, 64, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"videoar\.video\.fit"):
        generate(tiny_model, Request("a", start=pictures, height=96))
    with pytest.raises(ValueError, match="at least 5"):
        generate(tiny_model, Request("a", "frame", start=pictures, frames=1))
