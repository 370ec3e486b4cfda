"""The page "How it works": any plan drawn unit by unit, beside what each unit may attend to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from app.device import Device
from app.limits import MOST_UNITS
from app.plans import USUAL_GRID, name, plan_picture
from app.player import LOGO
from app.theme import css_variables
from videoar.cache import KVCache
from videoar.plan import Grid, Plan, PlanSpec
from videoar.request import slab_length

_STATIC = Path(__file__).parent / "static"
_MOST_FRAMES, _MOST_SIDE = 1000, 256
_MOST_TOKENS = 1 << 19  # sixteen times those of 81 frames of 832x480; all of them go through a cache


def explain_routes(device: Device) -> list[Route]:
    """The page and its figures, under /gradio_api/ because everything else belongs to Gradio's page on a Space."""
    page = _page()

    def show(request: Request) -> Response:
        return HTMLResponse(page)

    def plan(request: Request) -> Response:
        try:
            return JSONResponse(read_plan(request.query_params, served_grid(device)))
        except ValueError as error:
            # Not as a failure of the request: half-typed numbers are part of trying out.
            return JSONResponse({"error": str(error)})

    return [Route("/gradio_api/how-it-works", show), Route("/gradio_api/plan", plan)]


def served_grid(device: Device) -> Grid:
    """The token grid of the served model's films; the usual one while the model loads."""
    try:
        model = device.model(0)
        return model.grid(model.info)
    except Exception:  # of which others speak: there is something to explain without a model
        return USUAL_GRID


def read_plan(asked: Mapping[str, str], usual: Grid = USUAL_GRID) -> dict[str, Any]:
    """The figures of the plan that the parameters of an address ask for. Raises ValueError with a sentence.

    plan: such as "cube:2x2x2"; frames, rows, columns: of the token grid, or the usual one; window, sink: see
    `videoar.request.Request`.
    """
    spec = PlanSpec.parse(asked.get("plan", "cube"))
    sides = {"frames": (usual.T, _MOST_FRAMES), "rows": (usual.H, _MOST_SIDE), "columns": (usual.W, _MOST_SIDE)}
    grid = Grid(*(_whole(side, asked[side], 1, most) if side in asked else n for side, (n, most) in sides.items()))
    if math.prod(grid) > _MOST_TOKENS:
        raise ValueError(f"this film has {math.prod(grid)} tokens: choose at most {_MOST_TOKENS}, which can be drawn")
    window = _whole("window", asked["window"], 1, 10_000) if asked.get("window") else None
    sink = _whole("sink", asked["sink"], 0, 10_000) if asked.get("sink") else 0
    if sink and window is None:
        raise ValueError("a sink needs a window, without which nothing is forgotten")
    if window is not None and sink >= window:
        raise ValueError(f"the sink ({sink} latent frames) is part of the window ({window}): make it smaller")
    units = math.prod(spec.args) if spec.kind == "cube" else 1
    if units <= MOST_UNITS:
        drawn = explained(spec, grid, window, sink)
        units = len(drawn["units"])
        if units <= MOST_UNITS:
            return drawn
    raise ValueError(f"{spec} cuts this film into {units} units: choose at most {MOST_UNITS}, which can still be drawn")


def explained(spec: PlanSpec, grid: Grid, window: int | None = None, sink: int = 0) -> dict[str, Any]:
    """A film's plan as boxes, as `plan_picture` draws it, and its mask. Raises ValueError if the plan does not fit.

    mask[k][j]: the share of unit j's tokens, j <= k, that unit k attends to. until[j][i]: the first unit that no longer
    sees unit j's i-th frame, frames[j][i]; None if all later ones do. attended[k]: tokens that unit k attends to, its
    own included. A film that is longer than its window repeats the plan, slab after slab.
    """
    rolling = window is not None and window < grid.T
    slab = min(grid.T, slab_length(spec, grid.T, window, sink)) if rolling and window is not None else grid.T
    spec.build(Grid(slab, grid.H, grid.W))  # the slabs themselves are fitted to what is left of a film
    plans = list(spec.slabs(grid, slab))
    units = [unit for plan in plans for unit in plan.units]
    return {
        "plan": str(spec),
        "name": name(spec),
        "grid": list(grid),
        "scales": list(plans[0].scales),
        "units": [_moved(box, plan.start) for plan in plans for box in plan_picture(plan)["units"]],
        "frames": [list(unit.frames) for unit in units],
        "slabs": len(plans),
        **_mask(plans, window, sink),
    }


def _moved(box: dict[str, Any], frames: int) -> dict[str, Any]:
    """A unit of a later slab where it lies in the film."""
    return box | {"runs": [[first + frames, end + frames] for first, end in box["runs"]]}


def _mask(plans: Iterable[Plan], window: int | None, sink: int) -> dict[str, list]:
    """What is attended to, found out by sending the plan's tokens through a cache as small as can be."""
    cache = KVCache(1, 1, 1, 1, window=window, sink=sink, relative=False)
    until: list[dict[int, int | None]] = []
    mask, attended, sizes = [], [], list[int]()
    for plan in plans:
        for unit in plan.units:
            k, positions_N3 = len(until), plan.positions(unit)
            cache.open(positions_N3)
            held = set(cache.frames)
            for lives in until:
                lives.update({t: k for t, end in lives.items() if end is None and t not in held})
            until.append(dict.fromkeys(unit.frames))
            sizes.append(unit.size())
            shares = [sum(end is None for end in lives.values()) / len(lives) for lives in until]
            empty_BNHD = torch.zeros(1, unit.size(), 1, 1)
            cache.extend(0, empty_BNHD, empty_BNHD, empty_BNHD)
            cache.commit()
            assert cache.length == round(sum(s * n for s, n in zip(shares, sizes, strict=True))), (
                "the cache holds others"
            )
            mask.append([round(share, 4) for share in shares])
            attended.append(cache.length)
    return {"mask": mask, "attended": attended, "until": [list(lives.values()) for lives in until]}


def _whole(name: str, text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not low <= int(text) <= high:
        raise ValueError(f"{name} is a whole number from {low} to {high}")
    return int(text)


def _page() -> str:
    """The page as one file: it needs no other but its figures."""

    def read(name: str) -> str:
        return (_STATIC / name).read_text(encoding="utf-8")

    style = f"{css_variables()}\n{read('style.css')}\n{read('explain.css')}"
    script = f"{read('block.js')}\n{read('explain.js')}"
    page = read("explain.html").replace("<!-- logo -->", LOGO.read_text(encoding="utf-8"))
    return page.replace("/* style */", style).replace("/* script */", script)
