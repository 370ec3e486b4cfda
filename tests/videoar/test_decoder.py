"""Streamed decoding, previews and what a clip's canvas guesses."""

from __future__ import annotations

import pytest
import torch

from tests.videoar.tiny import PATCH, make_vae
from videoar.canvas import Canvas
from videoar.decoder import StreamDecoder, WanCodec, to_uint8
from videoar.plan import Grid, PlanSpec, latent_count, picture_range
from videoar.pyramid import coarsen, enlarge
from videoar.transformer import patchify


@pytest.fixture(scope="module")
def vae():
    return make_vae()


@pytest.fixture(scope="module")
def latents():
    return torch.randn(1, 16, 5, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def whole(vae, latents):
    codec = WanCodec(vae)
    with torch.no_grad():
        return to_uint8(vae.decode(latents * codec.std + codec.mean).sample)


@pytest.mark.parametrize("pieces", [(5,), (1, 4), (2, 1, 2), (1, 1, 1, 1, 1)])
def test_streamed_decode_equals_whole_decode(vae, latents, whole, pieces):
    decoder = StreamDecoder(vae)
    pictures = [decoder.push(piece) for piece in latents.split(pieces, dim=2)]
    assert torch.equal(torch.cat(pictures, 1), whole)
    assert decoder.position == 5
    assert [p.shape[1] for p in pictures] == [1 + 4 * (pieces[0] - 1), *(4 * n for n in pieces[1:])]


def test_two_streams_share_a_vae(vae, latents, whole):
    other = latents.flip(2)
    alone = StreamDecoder(vae).push(other)
    a, b, got_a, got_b = StreamDecoder(vae), StreamDecoder(vae), [], []
    for frame_a, frame_b in zip(latents.split(1, 2), other.split(1, 2), strict=True):
        got_a.append(a.push(frame_a))
        got_b.append(b.push(frame_b))
    assert torch.equal(torch.cat(got_a, 1), whole)
    assert torch.equal(torch.cat(got_b, 1), alone)


def test_previews_do_not_disturb_the_stream(vae, latents, whole):
    decoder = StreamDecoder(vae)
    first = decoder.push(latents[:, :, :2])
    preview = decoder.preview(latents[:, :, 2:])
    decoder.preview_region(torch.randn(1, 16, 3, 8, 8), (0, 4, 0, 4), warm_up=1)
    rest = decoder.push(latents[:, :, 2:])
    assert torch.equal(preview, rest)
    assert torch.equal(torch.cat([first, rest], 1), whole)


def test_region_previews_have_the_regions_place_and_length(vae, latents, whole):
    decoder = StreamDecoder(vae)
    region = decoder.preview_region(latents, (0, 4, 4, 8))
    assert region.shape == (1, 17, 32, 32, 3)
    # With the halo this crop is the whole picture, so it is exact.
    assert torch.equal(decoder.preview_region(latents, (0, 5, 3, 8)), whole[:, :, :40, 24:])
    later = decoder.preview_region(latents[:, :, 1:], (2, 4, 0, 8), warm_up=2)
    assert later.shape == (1, 8, 16, 64, 3)


def test_encode_matches_the_autoencoder(vae, whole):
    codec = WanCodec(vae)
    with torch.no_grad():
        expected = vae.encode(whole.permute(0, 4, 1, 2, 3).float() / 127.5 - 1).latent_dist.mode()
    torch.testing.assert_close(StreamDecoder(vae).encode(whole), (expected - codec.mean) / codec.std)
    with pytest.raises(ValueError, match="4n"):
        StreamDecoder(vae).encode(whole[:, :4])


def test_any_codec_with_decode_chunk_will_do():
    class Repeat(torch.nn.Module):
        dtype = torch.float32

        def decode_chunk(self, latents, state):
            count = 4 * latents.shape[2] - (3 if state is None else 0)
            return torch.zeros(1, 3, count, 8 * latents.shape[3], 8 * latents.shape[4]), (state or 0) + 1

    decoder = StreamDecoder(Repeat())
    assert decoder.push(torch.zeros(1, 16, 2, 2, 2)).shape == (1, 5, 16, 16, 3)
    assert decoder.push(torch.zeros(1, 16, 1, 2, 2)).shape == (1, 4, 16, 16, 3)


def test_picture_counts():
    assert [picture_range(a, b) for a, b in ((0, 1), (0, 3), (1, 2), (3, 6))] == [(0, 1), (0, 9), (1, 5), (9, 21)]
    assert [latent_count(n) for n in (1, 5, 29, 81)] == [1, 2, 8, 21]


@pytest.mark.parametrize("text", ["cube:2x3x2", "cube:2x1x2@3,0,1,2", "key_detail:4", "scale:2", "frame:2", "full"])
def test_the_canvas_ends_exact_and_never_has_holes(text):
    plan = PlanSpec.parse(text).build(Grid(9, 7, 5))
    canvas = Canvas(plan, 16, PATCH, (1.0,) * len(plan.scales), torch.device("cpu"))
    latents = torch.randn(1, 16, 9, 14, 10) + 10
    tokens = patchify(latents, PATCH)
    for unit in plan.units:
        coarse = plan.scales[unit.level] > 1
        values = patchify(coarsen(latents, plan.level_grid(0), PATCH), PATCH) if coarse else tokens[:, plan.sites(unit)]
        canvas.put(unit, values)
        filled = canvas.filled(0, 9)
        assert filled.abs().min() > 0.1  # nothing is left at zero
    assert torch.equal(filled, latents)
    assert torch.equal(canvas.latents, latents)


def test_missing_sites_take_the_latest_known_frame():
    plan = PlanSpec.parse("key_detail:2").build(Grid(5, 2, 2))
    canvas = Canvas(plan, 1, PATCH, (1.0,), torch.device("cpu"))
    latents = torch.arange(5.0).view(1, 1, 5, 1, 1).expand(1, 1, 5, 4, 4)
    canvas.put(plan.units[0], patchify(latents[:, :, ::2], PATCH))
    assert canvas.filled(0, 5)[0, 0, :, 0, 0].tolist() == [0, 0, 2, 2, 4]


def test_missing_sites_of_the_first_frames_take_the_nearest_known_one():
    plan = PlanSpec.parse("cube:1x1x2").build(Grid(1, 1, 4))
    canvas = Canvas(plan, 1, PATCH, (1.0,), torch.device("cpu"))
    canvas.put(plan.units[0], patchify(torch.arange(4.0).expand(1, 1, 1, 2, 4), PATCH))
    assert canvas.filled(0, 1)[0, 0, 0, 0].tolist() == [0, 1, 2, 3, 3, 3, 3, 3]


def test_pyramid_levels_are_averages_with_unit_variance():
    latents = torch.randn(1, 4, 3, 8, 8)
    level = coarsen(latents, Grid(3, 2, 2), PATCH, std=0.5)
    assert torch.allclose(level[0, 0, 0, 0, 0] * 0.5, latents[0, 0, 0, :2, :2].mean())
    assert level.std().item() == pytest.approx(1, abs=0.2)
    flat = torch.full((1, 4, 3, 4, 4), 2.0)
    assert torch.allclose(enlarge(flat, 8, 8, std=0.5), torch.ones(1, 4, 3, 8, 8))
