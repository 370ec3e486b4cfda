"""Pieces that do not fit together, or were written by something else, are a sentence and no traceback."""

import json

import pytest
import torch

from train.pieces import MANIFEST, Pieces
from train.presets import SMOKE
from train.sprint_command import fitted, join_model, network_of
from train.workshop import Workshop
from videoar.checkpoint import load_model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of a sprint, and the network whose weights are in it."""
    parts = load_model(None, device="cpu", dtype=torch.float32)
    folder = tmp_path_factory.mktemp("joined") / "out"
    network = Workshop(fitted(SMOKE, parts), folder).new_transformer()
    pieces = Pieces(folder, {"preset": "smoke", "transformer": dict(network.config)})
    pieces.write("dmd", network.state_dict(), step=3, rows=[{"stage": "dmd", "step": 3, "loss": 1.0}])
    return folder, network


def test_they_join(made, tmp_path):
    model = load_model(join_model(made[0], tmp_path / "model"), device="cpu", dtype=torch.float32)
    assert model.info.provenance["stages"]["dmd"] == {"step": 3, "loss": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        {"preset": None},
        {"preset": []},
        {"transformer": None},
        {"transformer": {}},
        {"transformer": {"num_layers": 1_000_000}},
        {"transformer": {"num_layers": "two"}},
        {"transformer": {"text_dim": 7}},
        {"transformer": {"ffn_dim": 1_000_000_000}},
        {"dmd": {"rows": None}},
        {"dmd": {"rows": [1]}},
        {"dmd": {"step": None}},
        {"newest": "elsewhere"},
    ],
)
def test_a_manifest_that_does_not_fit_its_weights_is_named(made, change, tmp_path):
    """None takes an entry away."""
    folder, _ = made
    text = (folder / MANIFEST).read_text()
    manifest = json.loads(text)
    for name, value in change.items():
        if name == "dmd":
            entries = manifest["networks"]["dmd"]
            entries |= value
            for entry in [entry for entry, kept in value.items() if kept is None]:
                del entries[entry]
        elif name == "newest":
            manifest["networks"][value] = manifest["networks"]["dmd"]
            manifest[name] = value
        elif value:
            manifest[name] |= value
        elif value is None:
            del manifest[name]
        else:
            manifest[name] = value
    try:
        (folder / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match=r"sprint\.json does not describe its weights \(.+another version"):
            join_model(folder, tmp_path / "model")
    finally:
        (folder / MANIFEST).write_text(text)
    assert not (tmp_path / "model").exists()


def test_weights_of_another_shape_are_found_before_a_network_is_made(made):
    _, network = made
    with pytest.raises(RuntimeError, match=r"the weights have no .*ffn"):
        network_of(dict(network.config) | {"ffn_dim": 10**9}, network.state_dict())
