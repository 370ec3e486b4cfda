"""What the page "How it works" draws: the plan's own boxes and mask, and what a window forgets."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.device import EngineDevice
from app.explain import explain_routes, explained, read_plan, served_grid
from app.plans import USUAL_GRID
from videoar.plan import Grid, PlanSpec

from .fake import FakeModel, make_device

GRID = Grid(8, 4, 4)
PLANS = ["frame", "frame:3", "key_detail:4", "cube:2x2x2", "cube:2x1x1@1,0", "scale:3", "full"]


@pytest.fixture(scope="module")
def client():
    device = make_device()
    device.start()
    device.model(30)
    return TestClient(Starlette(routes=explain_routes(device)))


@pytest.mark.parametrize("text", PLANS)
def test_without_a_window_the_mask_is_the_plans(text):
    plan = PlanSpec.parse(text).build(GRID)
    drawn = explained(plan.spec, GRID)
    ids = plan.unit_ids()
    for k, unit in enumerate(plan.units):
        row = plan.mask()[ids == k]
        shares = [float(row[:, ids == j].float().mean()) for j in range(len(plan.units))]
        assert drawn["mask"][k] + [0.0] * (len(plan.units) - k - 1) == shares
        assert drawn["attended"][k] == int(row[0].sum())
        assert drawn["units"][k]["tokens"] == unit.size()
        assert drawn["frames"][k] == list(unit.frames)
    assert all(end is None for ends in drawn["until"] for end in ends)


def test_a_window_forgets_the_oldest_frames_but_the_sink():
    drawn = explained(PlanSpec.parse("frame"), Grid(8, 2, 2), window=4, sink=1)
    seen = [[j for j, share in enumerate(row) if share] for row in drawn["mask"]]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 2, 3, 4], [0, 3, 4, 5], [0, 4, 5, 6], [0, 5, 6, 7]]
    assert drawn["until"] == [[None], [4], [5], [6], [7], [None], [None], [None]]
    assert drawn["attended"] == [4, 8, 12, 16, 16, 16, 16, 16]


def test_units_of_several_frames_are_forgotten_in_part():
    drawn = explained(PlanSpec.parse("cube:2x2x2"), Grid(16, 4, 4), window=8)
    assert drawn["slabs"] == 2
    assert [unit["runs"] for unit in drawn["units"][::4]] == [[[0, 4]], [[4, 8]], [[8, 12]], [[12, 16]]]
    for k, row in enumerate(drawn["mask"]):
        for j, share in enumerate(row):
            held = [end is None or end > k for end in drawn["until"][j]]
            assert share == sum(held) / len(held)
        assert len({t for j, ends in enumerate(drawn["until"][: k + 1]) for t, end in
                    zip(drawn["frames"][j], ends, strict=True) if end is None or end > k}) <= 8  # fmt: skip
    assert drawn["mask"][8][:5] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("plan=spiral", "unknown plan 'spiral'"),
        ("plan=cube:9x1x1", "does not fit"),
        ("plan=cube:16x16x16&frames=32&rows=16&columns=16", "at most 128"),
        ("plan=full&frames=1000&rows=200&columns=200", "40000000 tokens: choose at most"),
        ("frames=1001", "frames is a whole number from 1 to 1000"),
        ("rows=0", "rows is a whole number"),
        ("columns=-1", "columns is a whole number"),
        ("frames=1e1", "frames is a whole number"),
        ("sink=1", "a sink needs a window"),
        ("window=2&sink=2", "part of the window"),
        ("plan=scale:5", "needs 16 token rows"),
        ("plan=key_detail:4&frames=8&window=2", "leaves key_detail:4 no context"),
    ],
)
def test_what_cannot_be_drawn_is_said(client, query, message):
    answer = client.get(f"/gradio_api/plan?{query}").json()
    assert message in answer["error"]
    assert "units" not in answer


def test_the_largest_drawings_are_made_and_larger_ones_refused():
    size = {"frames": "32", "rows": "16", "columns": "16"}
    assert len(read_plan({"plan": "cube:8x4x4", **size})["units"]) == 128
    with pytest.raises(ValueError, match="into 512 units: choose at most 128"):
        read_plan({"plan": "cube:2x4x4", "window": "2", **size})


def test_the_served_models_films_are_drawn_unless_others_are_asked_for(client):
    assert client.get("/gradio_api/plan").json()["grid"] == [8, 8, 8]
    assert client.get("/gradio_api/plan?frames=21&rows=30&columns=52").json()["attended"][-1] == 21 * 30 * 52

    class Wide(FakeModel):
        def grid(self, request):
            return Grid(5, 6, 10)

    wide = EngineDevice(Wide)
    assert served_grid(wide) == USUAL_GRID  # while it loads
    wide.start()
    wide.model(30)
    assert served_grid(wide) == (5, 6, 10)
    assert read_plan({"rows": "3"}, served_grid(wide))["grid"] == [5, 3, 10]
    wide.close()


def test_the_page_needs_nothing_else(client):
    page = client.get("/gradio_api/how-it-works").text
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "/* script */" not in page
    assert len(page.encode()) < 100_000
    assert client.get("/gradio_api/plan").json()["plan"] == "cube:2x2x2"
