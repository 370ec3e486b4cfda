"""How visible the borders between units are: the steps between neighbouring pixels there, against those elsewhere."""

from __future__ import annotations

import numpy as np

from ..plan import Plan


def borders(plan: Plan, token: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Rows and columns of pixels at which a unit of the finest level begins, the picture's edge left out.

    token: height and width of a token in pixels.
    """
    finest = [unit for unit in plan.units if plan.scales[unit.level] == 1]
    rows = {unit.rows[0] * token[0] for unit in finest} - {0}
    columns = {unit.cols[0] * token[1] for unit in finest} - {0}
    return sorted(rows), sorted(columns)


def seam_ratio(video_THWC: np.ndarray, plan: Plan, token: tuple[int, int]) -> float | None:
    """Mean step across the borders of the plan's units over the mean step elsewhere; about 1 where no seam is seen.

    None where the plan does not cut pictures, or nothing in the clip changes from pixel to pixel.
    """
    rows, columns = borders(plan, token)
    if not rows and not columns:
        return None
    luma = video_THWC.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    down, right = np.abs(np.diff(luma, axis=1)), np.abs(np.diff(luma, axis=2))
    at = [down[:, [y - 1 for y in rows]].ravel(), right[:, :, [x - 1 for x in columns]].ravel()]
    rest = [np.delete(down, [y - 1 for y in rows], 1).ravel(), np.delete(right, [x - 1 for x in columns], 2).ravel()]
    elsewhere = float(np.concatenate(rest).mean())
    return float(np.concatenate(at).mean()) / elsewhere if elsewhere > 0 else None
