"""Draws worlds as video with torch: on a CPU clip by clip, on an accelerator in large batches of one scene.

Shapes: B worlds, n clips of a batch, F frames, H = W = size, S the side of the window in which a subject is drawn.
"""

import math
import random
from collections import defaultdict

import torch
from torch import Tensor

from .motion import Camera, Path, camera_path, thing_path, times
from .scenes import View, background, wall_rgb
from .shapes import EXTENT, layers
from .world import COLORS, SCENES, World

EDGE_PIXELS = 1.3  # an edge is this wide
WIGGLE = 1.2  # seconds of a flame's or a fin's cycle
TURNED = ("spins", "sways")
ACCELERATOR_BATCH = 48


@torch.no_grad()
def render(
    worlds, frames: int = 29, size: int = 128, fps: float = 8, device="cpu", t0: float = 0.0, batch=None
) -> Tensor:
    """Draw worlds as uint8 video_BTHWC of `frames` square pictures of `size` pixels, on `device`.

    t0: seconds after the world's beginning at which the video begins; rendering from t0 continues an earlier video.
    batch: how many clips are drawn at once (a matter of speed). Raises ValueError for sizes that make no video.
    """
    worlds = list(worlds)
    if frames < 1 or size < 8 or not fps > 0 or not math.isfinite(t0):
        raise ValueError(f"cannot render {frames} frames of {size} pixels at {fps} fps from {t0} s")
    device = torch.device(device)
    batch = batch or (1 if device.type == "cpu" else ACCELERATOR_BATCH)
    video_BTHWC = torch.empty(len(worlds), frames, size, size, 3, dtype=torch.uint8, device=device)
    seconds = times(frames, fps, t0)
    of_scene = defaultdict(list)
    for i, world in enumerate(worlds):
        of_scene[world.scene].append(i)
    for scene in SCENES:
        for first in range(0, len(of_scene[scene]), batch):
            chosen = of_scene[scene][first : first + batch]
            image = _draw(scene, [worlds[i] for i in chosen], seconds, size, device)
            image = image.clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8).permute(0, 2, 3, 4, 1)
            for at, i in enumerate(chosen):
                video_BTHWC[i] = image[at]
    return video_BTHWC


def _draw(scene: str, worlds: list[World], seconds: Tensor, size: int, device) -> Tensor:
    """One batch of clips of the same scene: float32 [n, 3, F, H, W]."""
    cameras = [camera_path(w, seconds) for w in worlds]
    pixel = (torch.arange(size, dtype=torch.float32, device=device) + 0.5) * (2 / size) - 1
    image = background(scene, _view(worlds, cameras, seconds, pixel))
    frames = len(seconds)
    if image.shape[2] != frames:
        image = image.expand(-1, -1, frames, -1, -1)
    image = image.contiguous()
    for slot in range(2):
        of_subject = defaultdict(list)
        for i, world in enumerate(worlds):
            if slot < len(world.things):
                of_subject[world.things[slot].subject].append(i)
        for subject, clips in of_subject.items():
            things = [worlds[i].things[slot] for i in clips]
            paths = [thing_path(o, cameras[i], seconds) for o, i in zip(things, clips, strict=True)]
            draw_subject(image, subject, things, paths, clips, seconds, pixel)
    return image


def _view(worlds: list[World], cameras: list[Camera], seconds: Tensor, pixel: Tensor) -> View:
    device = pixel.device
    if all(w.camera == "none" for w in worlds):
        cameras = [c._replace(pan=c.pan[:1], zoom=c.zoom[:1]) for c in cameras]  # one still picture will do
    pan, zoom = (
        torch.stack([getattr(c, k) for c in cameras]).to(torch.float32).to(device)[:, :, None, None]
        for k in ("pan", "zoom")
    )
    numbers = []
    for world in worlds:
        rng = random.Random(world.seed)
        numbers.append([rng.random() for _ in range(64)])
    return View(
        x=pixel[None, None, None, :] / zoom + pan,
        y=-pixel[None, None, :, None] / zoom,
        soft=EDGE_PIXELS * 2 / len(pixel) / zoom,
        seconds=seconds,
        random_nK=torch.tensor(numbers, dtype=torch.float32, device=device),
        wall_n3=torch.tensor([wall_rgb(COLORS[w.wall_color]) for w in worlds], dtype=torch.float32, device=device),
    )


def draw_subject(image: Tensor, subject: str, things, paths: list[Path], clips: list[int], seconds, pixel) -> None:
    """Draw the same subject into some clips of the image, in place, inside a window that follows it."""
    device, size, frames = image.device, len(pixel), len(seconds)
    half = size / 2
    reach = max(p.radius.max().item() for p in paths) * EXTENT
    side = min(size, 2 * math.ceil(reach * half) + 4)
    cx, cy, radius, angle = (torch.stack(v).to(device)[:, :, None] for v in zip(*paths, strict=True))  # [m, F, 1]

    # Corner of the window in pixels, and the indices of its columns and rows.
    offset = torch.arange(side, device=device)
    left = ((1 + cx) * half - side / 2).round().clamp_(0, size - side).long()
    top = ((1 - cy) * half - side / 2).round().clamp_(0, size - side).long()
    columns, rows = left + offset, top + offset  # [m, F, S]
    x = ((pixel[columns] - cx) / radius)[:, :, None, :]
    y = ((-pixel[rows] - cy) / radius)[:, :, :, None]
    light = 1 + 0.07 * y - 0.04 * x  # from above, however the subject is turned
    if any(o.motion in TURNED for o in things):
        cos, sin = torch.cos(angle)[..., None], torch.sin(angle)[..., None]
        x, y = cos * x + sin * y, cos * y - sin * x
    facing = [-1.0 if o.motion.endswith("left") else 1.0 for o in things]
    if subject in ("fish", "boat") and min(facing) < 0:
        x = x * torch.tensor(facing, device=device).view(-1, 1, 1, 1)
    turn = torch.stack([torch.remainder(seconds / WIGGLE + o.phase, 1.0) for o in things])
    turn = turn.to(torch.float32).to(device)[:, :, None, None]

    flat = image.view(-1)
    plane = size * size
    clip = torch.tensor(clips, device=device).view(-1, 1, 1, 1, 1) * (3 * frames * plane)
    channel = torch.arange(3, device=device).view(1, 3, 1, 1, 1) * (frames * plane)
    frame = torch.arange(frames, device=device).view(1, 1, frames, 1, 1) * plane
    index = (clip + channel + frame + (rows * size)[:, None, :, :, None]) + columns[:, None, :, None, :]
    window = flat[index.view(-1)].view(index.shape)

    softness = EDGE_PIXELS / half / radius[..., None]
    paints = {name: _paints(things, name, device) for name in ("body", "dark", "accent")}
    for distance, paint in layers(subject, x, y, turn):
        alpha = (0.5 - distance / softness).clamp_(0, 1)[:, None]
        color = paints[paint] if isinstance(paint, str) else torch.tensor(paint, device=device).view(1, 3, 1, 1, 1)
        if paint == "body":
            rim = (1 + distance / 0.16).clamp_(0, 1)
            color = color * (light - 0.26 * rim * rim)[:, None]
        window.lerp_(color, alpha)
    flat[index.view(-1)] = window.view(-1)


def _paints(things, name: str, device) -> Tensor:
    """[m, 3, 1, 1, 1]: a thing's own colour, a darker one for fins, and an accent that stands out from it."""
    rgb = torch.tensor([COLORS[o.color] for o in things], device=device)
    if name == "dark":
        rgb = rgb * 0.72
    elif name == "accent":
        grey = torch.tensor([0.62, 0.68, 0.80], device=device)
        white = torch.tensor([[o.color == "white"] for o in things], device=device)
        rgb = torch.where(white, grey, 0.35 * rgb + 0.65)
    return rgb.view(-1, 3, 1, 1, 1)
