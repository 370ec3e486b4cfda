"""Playworld: a small procedural world of captioned clips, on which the built-in model is trained and measured."""

from .grammar import caption, complete, example_prompts, guide, parse_caption
from .render import render
from .world import (
    CAMERAS,
    COLORS,
    MOTIONS,
    SCENES,
    SIZES,
    SUBJECTS,
    Attributes,
    Thing,
    ThingAttributes,
    World,
    attributes,
    is_held_out,
    sample_world,
    world_from_attributes,
)

__all__ = [
    "CAMERAS",
    "COLORS",
    "MOTIONS",
    "SCENES",
    "SIZES",
    "SUBJECTS",
    "Attributes",
    "Thing",
    "ThingAttributes",
    "World",
    "attributes",
    "caption",
    "complete",
    "example_prompts",
    "guide",
    "is_held_out",
    "parse_caption",
    "render",
    "sample_world",
    "world_from_attributes",
]
