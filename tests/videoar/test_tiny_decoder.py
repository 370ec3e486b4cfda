"""Tiny decoders: the published layout, streaming, and what does not belong to a model."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.videoar.tiny import make_vae
from videoar.decoder import StreamDecoder
from videoar.tiny_decoder import TinyDecoder, load_tiny_decoder

CPU = torch.device("cpu")


def published(channels=16, widths=(256, 128, 64, 64), grows=(1, 2, 2), patch=1) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published decoder, written down here independently of any code."""
    shapes = {"1.weight": (widths[0], channels, 3, 3), "1.bias": (widths[0],)}
    for stage, first in enumerate((3, 9, 15)):
        n, following = widths[stage], widths[stage + 1]
        for block in range(first, first + 3):
            for layer, into in ((0, 2 * n), (2, n), (4, n)):
                shapes |= {f"{block}.conv.{layer}.weight": (n, into, 3, 3), f"{block}.conv.{layer}.bias": (n,)}
        shapes |= {f"{first + 4}.conv.weight": (n * grows[stage], n, 1, 1), f"{first + 5}.weight": (following, n, 3, 3)}
    out = 3 * patch**2
    shapes |= {"22.weight": (out, widths[-1], 3, 3), "22.bias": (out,)}
    return {f"decoder.{name}": shape for name, shape in shapes.items()}


def random_state(**layout):
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in published(**layout).items():
        noise = torch.randn(shape, generator=generator)
        state[name] = noise * (0.3 / noise[0].numel()) ** 0.5 if len(shape) > 1 else 0.1 * noise + 0.2
    state["encoder.0.weight"] = torch.randn(64, 3, 3, 3)  # the files hold an encoder, too
    return state


SMALL = {"widths": (16, 12, 8, 8)}


@pytest.fixture(scope="module", params=["a.safetensors", "a.pth"])
def decoder(request, tmp_path_factory) -> TinyDecoder:
    file = tmp_path_factory.mktemp("tiny") / request.param
    state = random_state(**SMALL)
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    return load_tiny_decoder(file, make_vae(), CPU, torch.float32)


def test_the_published_names_and_shapes():
    with torch.device("meta"):
        state = TinyDecoder().state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == published()


def reference(state, latents_FCHW):
    """The whole clip, layer after layer over all frames at once: another way through the same network."""
    x = 3 * torch.tanh(latents_FCHW / 3)

    def conv(name, x):
        weight = state[f"decoder.{name}.weight"]
        return nn.functional.conv2d(x, weight, state.get(f"decoder.{name}.bias"), padding=weight.shape[-1] // 2)

    x = conv("1", x).relu()
    for first in (3, 9, 15):
        for block in range(first, first + 3):
            h = torch.cat([x, torch.cat([torch.zeros_like(x[:1]), x[:-1]])], 1)
            h = conv(f"{block}.conv.2", conv(f"{block}.conv.0", h).relu()).relu()
            x = (conv(f"{block}.conv.4", h) + x).relu()
        x = conv(f"{first + 4}.conv", x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        width = state[f"decoder.{first + 5}.weight"].shape[1]
        x = conv(f"{first + 5}", x.reshape(-1, width, *x.shape[2:]))
    return conv("22", x.relu())[3:]  # the first latent frame is one picture


@torch.no_grad()
@pytest.mark.parametrize("pieces", [(5,), (1, 4), (2, 1, 2), (1, 1, 1, 1, 1)])
def test_streamed_equals_whole(decoder, pieces):
    latents = torch.randn(1, 16, 5, 4, 6, generator=torch.Generator().manual_seed(1))
    expected = (2 * reference(random_state(**SMALL), latents[0].transpose(0, 1)) - 1).clamp(-1, 1)
    state, videos = None, []
    for piece in latents.split(pieces, dim=2):
        video, state = decoder.decode_chunk(piece, state)
        videos.append(video)
    got = torch.cat(videos, 2)
    assert got.shape == (1, 3, 17, 32, 48)
    torch.testing.assert_close(got[0].transpose(0, 1), expected, rtol=0, atol=1e-5)
    assert (expected.abs() < 1).float().mean() > 0.2  # not all of it is clipped


@torch.no_grad()
def test_a_state_can_be_continued_twice_and_clips_can_be_batched(decoder):
    a, b = torch.randn(2, 1, 16, 3, 4, 4)
    _, state = decoder.decode_chunk(a[:, :, :1], None)
    again = [decoder.decode_chunk(a[:, :, 1:], state)[0] for _ in range(2)]
    assert torch.equal(*again)
    both = decoder.decode_chunk(torch.cat([a, b]), None)[0]
    torch.testing.assert_close(both[1:], decoder.decode_chunk(b, None)[0])


def test_previews_come_from_the_previewer_and_exact_pixels_do_not(decoder):
    vae, latents = make_vae(), torch.randn(1, 16, 3, 4, 4)
    with_previewer, without, tiny = StreamDecoder(vae, decoder), StreamDecoder(vae), StreamDecoder(decoder)
    assert torch.equal(with_previewer.push(latents[:, :, :2]), without.push(latents[:, :, :2]))
    tiny.push(latents[:, :, :2])
    preview = with_previewer.preview(latents[:, :, 2:])
    assert torch.equal(preview, tiny.preview(latents[:, :, 2:]))
    assert not torch.equal(preview, without.preview(latents[:, :, 2:]))
    assert torch.equal(with_previewer.preview_region(latents, (0, 4, 0, 2)), tiny.preview_region(latents, (0, 4, 0, 2)))
    assert torch.equal(with_previewer.push(latents[:, :, 2:]), without.push(latents[:, :, 2:]))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (random_state(channels=48, patch=2, **SMALL), "another autoencoder: it makes 4 pictures, 16 times as large"),
        (random_state(grows=(1, 1, 2), **SMALL), "makes 2 pictures"),
        ({"blocks.0.weight": torch.ones(1)}, "no tiny decoder"),
        ({k: v for k, v in random_state(**SMALL).items() if k != "decoder.22.bias"}, r"no tiny decoder.*22\.bias"),
        (random_state(**SMALL) | {"decoder.4.conv.2.bias": torch.ones(3)}, "no tiny decoder.*size mismatch"),
    ],
)
def test_files_that_do_not_fit(state, message, tmp_path):
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        load_tiny_decoder(tmp_path / "a.safetensors", make_vae(), CPU, torch.float32)
