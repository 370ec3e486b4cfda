"""Reads what the camera does from the flow of the background: how fast it slides and how fast it swells.

Least squares on the optical-flow constraint (Lucas and Kanade, 1981) with two unknowns for the whole clip: the speed of
a pan and the strength of a zoom whose course in time is the renderer's. Shapes: T frames, H = W half the picture.
"""

import numpy as np
import torch
from scipy import ndimage

from ..playworld import Thing, World
from ..playworld.motion import PAN_SPEED, camera_path

_SMOOTH = 1.5  # pixels; moves of a pixel must look like slopes
_ROUNDS = 3  # of reweighting, so that snow and bubbles count little
_SHORE = 0.64  # of the picture's height: below is the sea of the sunset
_ENOUGH = 0.4  # of the renderer's speed


def read_camera(light_THW: np.ndarray, background_THW: np.ndarray, seconds: np.ndarray, scene: str) -> str:
    """The camera's motion: one of CAMERAS.

    light: L of Lab, 0..1; background: bool, where no thing is; seconds [T]: times of the frames.
    """
    if scene == "sunset":  # the glitter runs down the sea as if the camera came closer
        background_THW = background_THW.copy()
        background_THW[:, int(_SHORE * background_THW.shape[1]) :] = False
    if len(light_THW) < 2:
        return "none"
    pan, zoom = flow(light_THW, background_THW, seconds)
    if max(abs(pan), abs(zoom)) < _ENOUGH:
        return "none"
    if abs(pan) > abs(zoom):
        return "pan right" if pan > 0 else "pan left"
    return "zoom in" if zoom > 0 else "zoom out"


def flow(light: np.ndarray, background: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Speed of the pan (right is positive) and of the zoom (in is positive), as shares of the renderer's own."""
    size = light.shape[-1]
    light = ndimage.gaussian_filter(light, (0, _SMOOTH, _SMOOTH))
    middle = (light[1:] + light[:-1]) / 2
    down, right = np.gradient(middle, axis=(1, 2))
    later = light[1:] - light[:-1]
    use = (background[1:] & background[:-1])[:, 2:-2, 2:-2]
    at = np.arange(size) - (size - 1) / 2
    zooming = World("night", "zoom in", (Thing("ball", "red"),))
    swelling = np.log(camera_path(zooming, torch.as_tensor(seconds)).zoom.numpy())
    panned = -PAN_SPEED * np.diff(seconds) * size / 2  # pixels a frame
    by_pan = (right * panned[:, None, None])[:, 2:-2, 2:-2][use]
    by_zoom = ((right * at + down * at[:, None]) * np.diff(swelling)[:, None, None])[:, 2:-2, 2:-2][use]
    change = -later[:, 2:-2, 2:-2][use]
    slopes = np.stack([by_pan, by_zoom], 1).astype(np.float64)
    if not len(change):  # nothing of the clip is background
        return 0.0, 0.0
    weight = np.ones(len(change))
    found = np.zeros(2)
    for _ in range(_ROUNDS):
        weighted = slopes * weight[:, None]
        found = np.linalg.solve(weighted.T @ slopes + 1e-9 * len(change) * np.eye(2), weighted.T @ change)
        error = change - slopes @ found
        scale = 1.5 * np.median(np.abs(error[::7])) + 1e-4
        weight = 1 / (1 + (error / scale) ** 2)
    return float(found[0]), float(found[1])
