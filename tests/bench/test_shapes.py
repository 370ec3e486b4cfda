"""Single pictures are judged the same for every network, and what is drawn right is read right."""

import json

import pytest
import torch

from bench import shapes
from train.presets import SMOKE
from train.stages import STAGES
from train.workshop import Workshop
from videoar.codec import BLOCK, TinyCodec
from videoar.playworld import render
from videoar.transformer import unpatchify


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    workshop = Workshop(SMOKE, tmp_path_factory.mktemp("shapes"), threads=1)
    for stage in ("text", "linear", "data", "vae", "base"):
        STAGES[stage](workshop, lambda row: None)
    return workshop


def test_networks_are_measured_on_the_same_pictures(workshop, tmp_path):
    base, out = workshop.folder("base") / "transformer", tmp_path / "shapes.json"
    given = [f"one={base}", f"same={base}", "--preset", "smoke", "--runs", str(workshop.runs), "--pictures", "4"]
    assert shapes.main([*given, "--steps", "2", "--out", str(out), "--sheets", str(tmp_path / "sheets")]) == 0
    result = json.loads(out.read_text())
    assert result["networks"]["one"] == result["networks"]["same"]
    assert [*result["networks"]["one"]["error_inside"]] == [str(sigma) for sigma in shapes.SIGMAS]
    assert (tmp_path / "sheets" / "same.png").stat().st_size > 1000


def test_a_perfect_network_has_no_error(workshop):
    studio = shapes.Studio(workshop, 4)

    def oracle(noisy, timestep, text, positions, hidden):
        hidden.append(torch.zeros(*noisy.shape[:2], 32))
        return (noisy - studio.x_BND) / (timestep[..., None] / 1000)

    errors = studio.errors(oracle)
    assert errors["places_untold_by_block"]["0.8"] == [1.0]  # zeros tell nothing
    assert max(errors["error_inside"].values()) < 1e-6
    assert max(errors["error_outside"].values()) < 1e-6
    assert max(errors["colour_error_outside"].values()) < 1e-6


def test_the_error_of_colour_is_what_it_makes_of_the_pixels(workshop):
    studio = shapes.Studio(workshop, 4)
    wrong = torch.randn(studio.x_BND.shape, generator=torch.Generator().manual_seed(0))
    wrong[..., 3 * 4 :] = 0  # a token is 2x2 cells, channel after channel
    x, other = (unpatchify(tokens, studio.grid, (1, 2, 2)) for tokens in (studio.x_BND, studio.x_BND + wrong))
    pixels = (studio.codec.linear_decode(other) - studio.codec.linear_decode(x)).square()
    a_token = torch.nn.functional.avg_pool3d(pixels.mean(1, keepdim=True), (4, 16, 16)).flatten(1)
    torch.testing.assert_close(studio.colour_error(wrong), 100 * a_token, rtol=1e-3, atol=1e-5)
    assert not studio.colour_error(torch.ones_like(wrong) * (wrong == 0)).any()  # the finer channels do not count


def test_with_overlap_the_error_of_colour_is_that_of_the_pixels_of_all_tokens(workshop):
    """It reaches into the neighbours' pixels: to tokens alone it is not what their own pixels show."""
    studio, plain = shapes.Studio(workshop, 4), workshop.codec(finished=True)
    codec = TinyCodec.from_config(plain.config, lapped=True)
    codec.load_state_dict(plain.state_dict())
    wrong = torch.randn(studio.x_BND.shape, generator=torch.Generator().manual_seed(0))
    wrong[..., 3 * 4 :] = 0
    x, other = (unpatchify(tokens, studio.grid, (1, 2, 2)) for tokens in (studio.x_BND, studio.x_BND + wrong))
    pixels = (codec.linear_decode(other) - codec.linear_decode(x)).square()
    torch.testing.assert_close(studio.colour_error(wrong).mean(), 100 * pixels.mean(), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(codec.linear_decode(x), plain.linear_decode(x), atol=1e-2)


def test_errors_inside_and_outside_of_things_are_kept_apart(workshop):
    studio = shapes.Studio(workshop, 4)

    def spoils_outside(noisy, timestep, text, positions, hidden):
        hidden.append(torch.zeros(*noisy.shape[:2], 32))
        wrong = (~studio.inside_BN)[..., None].float().expand_as(noisy)
        return (noisy - studio.x_BND - wrong) / (timestep[..., None] / 1000)

    errors = studio.errors(spoils_outside)
    expected = 100 * studio.codec.scale[:3].square().sum().item() / BLOCK
    assert list(errors["colour_error_outside"].values()) == pytest.approx([expected] * len(shapes.SIGMAS), rel=1e-2)
    assert max(errors["colour_error_inside"].values()) < 1e-6


def test_real_pictures_are_read_right(workshop):
    studio = shapes.Studio(workshop, 12)
    real = [render([case.world], frames=29, size=128, fps=8)[0, 14].numpy() for case in studio.cases]
    assert studio.read(real)["color"] >= 0.9
    assert studio.read(real)["subject"] >= 0.75
    assert studio.read(real[1:] + real[:1])["subject"] <= 0.4


def test_a_network_needs_a_name():
    with pytest.raises(ValueError, match="is not NAME=FOLDER"):
        shapes.main(["somewhere"])
