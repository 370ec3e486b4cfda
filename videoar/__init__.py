"""VideoAR: autoregressive text-to-video over any prediction unit, streamed unit by unit."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# Where each public name lives. Imported on first use: `import videoar` must stay instant, torch is not.
_HOMES = {
    "Grid": "plan",
    "Unit": "plan",
    "PlanSpec": "plan",
    "Plan": "plan",
    "VideoARTransformer3DModel": "transformer",
    "KVCache": "cache",
    "StreamDecoder": "decoder",
    "TextEncoder": "text",
    "Model": "checkpoint",
    "ModelInfo": "checkpoint",
    "load_model": "checkpoint",
    "save_model": "checkpoint",
    "Request": "request",
    "generate": "generate",
    "Engine": "engine",
    "write_mp4": "video",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'videoar' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"videoar.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
