"""Where a world's things are, token by token: known exactly because Playworld is drawn, and told to the training.

Two uses, both off unless a preset asks for them, neither of which changes what is served:

- `weights`: the loss counts more where there is a thing. Scenes are most of every picture and learnt long before.
- `targets`: some channels of a middle block's output are asked to say where each token lies in each thing's own
  coordinates, in the way of representation alignment (Yu et al., REPA, 2024), with the renderer instead of a
  pretrained encoder. Drawing a thing is easy for a layer that knows where in it it is. Asked to look ahead, they also
  say how far the thing gets until the next latent frame.

Shapes: B clips, F latent frames, N tokens, C channels; 2 things, in the order of the caption.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from videoar.plan import Grid, picture_range
from videoar.playworld import World
from videoar.playworld.motion import camera_path, thing_path

THINGS = 2
CHANNELS = 3 * THINGS
REACH = 1.6  # radii within which a token has to do with a thing
_SIZE = (2.5, 4.0, 4.0)  # brings the channels to about unit spread over pictures with one thing
_STEP = 5.0  # the same for steps, in radii
_WRAP = 1.5  # halves of the picture: no thing moves so far in a latent frame, and those that come back move further


def paths(worlds: list[World], latent_frames: int, fps: float) -> Tensor:
    """[B, F, 2, 4]: each thing's x, y, radius (halves of the picture, up is positive) and turn (radians) in the middle
    of each latent frame; a radius of 0 where there is no second thing.
    """
    return torch.stack([_path(world, latent_frames, fps) for world in worlds])


@functools.lru_cache(maxsize=100_000)  # clips come again and again; for a fast GPU this would be a good part of a step
def _path(world: World, latent_frames: int, fps: float) -> Tensor:
    ranges = [picture_range(f, f + 1) for f in range(latent_frames)]
    seconds = torch.tensor([(first + end - 1) / 2 / fps for first, end in ranges], dtype=torch.float64)
    camera, path = camera_path(world, seconds), torch.zeros(latent_frames, THINGS, 4)
    for i, thing in enumerate(world.things):
        path[:, i] = torch.stack(thing_path(thing, camera, seconds), dim=1)
    return path


def targets(paths_BF24: Tensor, positions_N3: Tensor, grid: Grid, ahead: bool = False) -> Tensor:
    """[B, N, 6]: for each thing how near the token is to it, and that times its place in the thing's own coordinates.

    ahead: four more channels, for each thing how near the token is times the thing's step (x, y) to the next latent
    frame; none of them where there is only one frame.
    positions_N3: (t, y, x) in tokens of the finest level, as plans give them, with t counted from the paths' beginning.
    grid: of whole frames, also for positions in a crop.
    """
    t, y, x = positions_N3.unbind(1)
    cx, cy, radius, angle = paths_BF24[:, t.long()].unbind(-1)  # [B, N, 2] each
    side = radius.clamp(min=1e-3)
    dx = ((x + 0.5) * (2 / grid.W) - 1).view(1, -1, 1).sub(cx) / side
    dy = (1 - (y + 0.5) * (2 / grid.H)).view(1, -1, 1).sub(cy) / side
    cos, sin = angle.cos(), angle.sin()
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    near = (REACH - (u * u + v * v).sqrt()).clamp(0, 1) * (radius > 0)
    scaled = [part * size for part, size in zip((near, near * u, near * v), _SIZE, strict=True)]
    channels = torch.stack(scaled, dim=-1).flatten(2)
    if not ahead or paths_BF24.shape[1] == 1:
        return channels
    step = steps(paths_BF24)[:, t.long()] * (_STEP * near / side)[..., None]
    return torch.cat([channels, step.flatten(2)], dim=-1)


def steps(paths_BF24: Tensor) -> Tensor:
    """[B, F, 2, 2]: how far each thing gets (x, y) until the next latent frame; in the last one, since the one before.

    A thing that comes back at the other edge of the picture has not moved at all.
    """
    step = paths_BF24[..., :2].diff(dim=1)
    step = torch.cat([step, step[:, -1:]], dim=1)
    return step * (step.abs() < _WRAP)


def told(features_BNE: Tensor, channels: int = CHANNELS) -> Tensor:
    """[B, N, channels]: what a block's output says of places, in its first channels; as many as `targets` has.

    They are taken as the next block sees them, normalised, so that they are no fainter for it than the rest.
    """
    features = features_BNE.float()
    return F.layer_norm(features, features.shape[-1:])[..., :channels]


def weights(targets_BNC: Tensor, amount: float) -> Tensor:
    """[B, N, 1] with a mean of 1 in every clip: one plus `amount` where a thing is."""
    near = targets_BNC[..., :CHANNELS:3].amax(-1, keepdim=True) / _SIZE[0]
    weight = 1 + amount * near
    return weight / weight.mean(1, keepdim=True)
