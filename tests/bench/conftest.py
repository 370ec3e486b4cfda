"""The library's tiny random model."""

from tests.videoar.conftest import tiny_model

__all__ = ["tiny_model"]
