"""A shape for the GPU benchmark at which a film takes milliseconds."""

from bench.wan import Shape

TINY = Shape("tiny", 2, 24, 2, 96, 32, 12, 4, (16, 8, 8, 8), 32, 48, 9)
