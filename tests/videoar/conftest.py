"""One tiny random model for all tests of the library."""

from __future__ import annotations

import pytest
import torch

from tests.videoar.tiny import make_model
from videoar.checkpoint import Model, save_model
from videoar.transformer import VideoARTransformer3DModel

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model() -> Model:
    return make_model()


@pytest.fixture(scope="session")
def tiny_transformer(tiny_model) -> VideoARTransformer3DModel:
    return tiny_model.transformer


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> str:
    """The tiny model, saved: what the command line takes as --model."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model, path)
    return str(path)
