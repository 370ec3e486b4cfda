"""The light codec with overlapping blocks: orthogonal, streamed, right in regions, and without tiles."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from train.data import sample_video
from train.presets import TINY
from train.vae import fit_linear_codec, psnr
from videoar import decoder as decoder_module
from videoar.codec import TinyCodec, from_blocks, lap, lapping_filter, to_blocks, unlap
from videoar.decoder import StreamDecoder
from videoar.weights import load_part, save_part

BUILTIN = Path(__file__).parents[2] / "assets" / "builtin"
Z = 24


def random_like(shape, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(lapped: bool, trained: bool = False) -> TinyCodec:
    """A small codec with a random orthonormal basis; trained: its decoder adds something of its own."""
    torch.manual_seed(0)
    codec = TinyCodec(z_dim=Z, widths=(16, 12, 8, 8), depths=(1, 1, 1, 1), lapped=lapped)
    codec.basis.copy_(torch.linalg.qr(torch.randn(768, Z))[0].T)
    codec.scale.copy_(torch.linspace(4, 1, Z))
    if trained:
        for parameter in codec.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    return codec.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def fitted() -> dict[bool, TinyCodec]:
    """The principal components of the same clips, without and with overlap."""
    presets = {
        lapped: dataclasses.replace(TINY, codec=dataclasses.replace(TINY.codec, fit_clips=32, lapped=lapped))
        for lapped in (False, True)
    }
    return {lapped: fit_linear_codec(preset).eval().requires_grad_(False) for lapped, preset in presets.items()}


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return sample_video(TINY, 6, "never fitted")


class TestLapping:
    def test_the_filter_is_orthogonal_and_leaves_what_is_symmetric_alone(self):
        filter_88 = torch.eye(8) + lapping_filter()
        torch.testing.assert_close(filter_88 @ filter_88.T, torch.eye(8))
        side = torch.tensor([0.3, -1.0, 2.0, 0.7])
        mirrored = torch.cat([side, side.flip(0)])
        torch.testing.assert_close(filter_88 @ mirrored, mirrored)

    @pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 24), (32, 16)])
    def test_it_is_undone_and_keeps_lengths(self, height, width):
        video, filter_88 = random_like((2, 3, 5, height, width)), lapping_filter()
        lapped = lap(video, filter_88)
        assert torch.equal(lapped, video) == ((height, width) == (8, 8))  # without neighbours nothing overlaps
        torch.testing.assert_close(unlap(lapped, filter_88), video)
        torch.testing.assert_close(lapped.square().sum(), video.square().sum())

    def test_pictures_do_not_mix_and_the_outer_border_stays(self):
        video, filter_88 = random_like((1, 3, 5, 16, 24)), lapping_filter()
        alone = torch.cat([lap(picture, filter_88) for picture in video.split(1, dim=2)], dim=2)
        assert torch.equal(lap(video, filter_88), alone)
        corners = [(slice(4), slice(4)), (slice(12, 16), slice(20, 24))]
        assert all(torch.equal(alone[..., y, x], video[..., y, x]) for y, x in corners)

    def test_a_plain_area_stays_plain_in_bfloat16(self):
        grey = torch.full((1, 3, 1, 24, 24), 0.77, dtype=torch.bfloat16)
        assert torch.equal(lap(grey, lapping_filter()), grey)


@pytest.mark.parametrize("lapped", [False, True])
class TestBothKinds:
    def test_encoding_undoes_linear_decoding(self, lapped):
        codec, z = make(lapped), random_like((2, Z, 3, 3, 4))
        video = codec.linear_decode(z)
        # Of the first latent frame only the last picture is seen.
        torch.testing.assert_close(codec.encode(video[:, :, 3:])[:, :, 1:], z[:, :, 1:], rtol=0, atol=1e-5)

    def test_a_stream_equals_the_whole(self, lapped):
        codec, z = make(lapped, trained=True), random_like((1, Z, 5, 2, 3))
        whole = codec.decode_chunk(z)[0]
        first, state = codec.decode_chunk(z[:, :, :2])
        rest = codec.decode_chunk(z[:, :, 2:], state)[0]
        torch.testing.assert_close(torch.cat([first, rest], dim=2), whole, rtol=0, atol=1e-5)
        assert torch.equal(codec.decode_chunk(z[:, :, 2:], state)[0], rest)

    def test_sizes_that_do_not_fit_are_refused(self, lapped):
        for shape in ((1, 3, 8, 16, 16), (1, 3, 9, 12, 16), (1, 3, 9, 16, 4)):
            with pytest.raises(ValueError, match="1 \\+ 4n frames"):
                make(lapped).encode(torch.zeros(shape))

    def test_a_region_with_its_halo_is_that_part_of_the_whole(self, lapped, monkeypatch):
        codec, z, box = make(lapped), random_like((1, Z, 3, 12, 12), scale=0.3), (4, 6, 5, 8)
        decoder = StreamDecoder(codec)
        whole = decoder.preview(z)[:, :, 32:48, 40:64].int()
        assert (decoder.preview_region(z, box).int() - whole).abs().max() <= 1
        monkeypatch.setattr(decoder_module, "HALO", 0)
        assert ((decoder.preview_region(z, box).int() - whole).abs().max() > 1) == lapped

    def test_a_trained_decoder_sees_hardly_more_than_the_halo(self, lapped, monkeypatch):
        codec = TinyCodec(z_dim=Z, lapped=lapped).eval()
        trained = TinyCodec.from_pretrained(BUILTIN / "vae", torch_dtype=torch.float32, use_safetensors=True)
        codec.load_state_dict(trained.state_dict())
        z, box, decoder = random_like((1, Z, 3, 12, 12), scale=0.3), (4, 6, 5, 8), StreamDecoder(codec)
        whole = decoder.preview(z)[:, :, 32:48, 40:64].int()
        assert (decoder.preview_region(z, box).int() - whole).abs().max() <= 3
        monkeypatch.setattr(decoder_module, "HALO", 0)
        assert (decoder.preview_region(z, box).int() - whole).abs().max() > 10

    def test_its_folder_is_loaded_as_it_was(self, lapped, tmp_path):
        codec, z = make(lapped, trained=True), random_like((1, Z, 2, 3, 3))
        save_part(codec, tmp_path / "ours", None, "TinyCodec")
        codec.save_pretrained(tmp_path / "theirs")
        config = json.loads((tmp_path / "ours" / "config.json").read_text())
        assert config["lapped"] == lapped
        ours = load_part(tmp_path / "ours", TinyCodec, config, torch.float32)
        for again in (ours, TinyCodec.from_pretrained(tmp_path / "theirs", use_safetensors=True)):
            assert torch.equal(again.decode(z), codec.decode(z))
        # The filter has no type of its own: what computes in bfloat16 does so with it.
        small = load_part(tmp_path / "ours", TinyCodec, config, torch.bfloat16)
        assert small.encode(small.decode(z.bfloat16())).dtype == torch.bfloat16
        torch.testing.assert_close(small.decode(z.bfloat16()).float(), codec.decode(z), rtol=0, atol=0.1)


def test_a_codec_from_before_is_not_lapped(tmp_path):
    """Its config does not say so, and its latents and pictures are what they were."""
    make(lapped=False).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("lapped") is False
    (tmp_path / "config.json").write_text(json.dumps(config))
    codec = TinyCodec.from_pretrained(tmp_path, use_safetensors=True)
    assert codec.config.lapped is False
    video = random_like((1, 3, 5, 16, 24))
    expected = (to_blocks(video) - codec.center) @ codec.basis.T
    assert torch.equal(codec.encode(video), ((expected - codec.mean) / codec.scale).permute(0, 4, 1, 2, 3))
    z = random_like((1, Z, 2, 2, 2))
    blocks = (z.permute(0, 2, 3, 4, 1) * codec.scale + codec.mean) @ codec.basis + codec.center
    assert torch.equal(codec.linear_decode(z), from_blocks(blocks))


def test_overlap_keeps_more_of_real_pictures(fitted, clips):
    plain, lapped = (psnr(fitted[kind].linear_decode(fitted[kind].encode(clips))[:, :, 3:], clips) for kind in fitted)
    assert lapped > plain + 0.3


def test_errors_of_latents_draw_no_tiles(fitted, clips):
    def tiles(codec: TinyCodec) -> float:
        """Return how much steeper an error is across the borders of blocks than elsewhere."""
        z = codec.encode(clips)
        wrong = codec.linear_decode(z + random_like(z.shape, scale=0.1)) - codec.linear_decode(z)
        steps = wrong.diff(dim=-1).abs().mean((0, 1, 2, 3))
        across = torch.arange(len(steps)) % 8 == 7
        return (steps[across].mean() / steps[~across].mean()).item()

    assert tiles(fitted[False]) > 4
    assert tiles(fitted[True]) < 1.6
