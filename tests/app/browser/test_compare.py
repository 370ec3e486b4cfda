"""Comparisons: contenders side by side on one clock, and figures that can be taken home."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.app.fake import film_of

from .conftest import PHONE
from .steps import picture, race, seek, shown_frame, status, wait_for_race
from .test_page import violations

FRAMES = 29


def labels(page) -> list[str]:
    return page.locator(".va-pane .va-name strong").all_text_contents()


def clocks(page) -> list[float]:
    return [float(text.split()[0]) for text in page.locator(".va-clock").all_text_contents()]


def difference(page, pane: int, frame: int, seed: int = 7) -> float:
    return float(np.abs(picture(page, pane)[..., :3].astype(float) - film_of(seed)[frame]).mean())


def test_the_contenders_are_shown_before_the_race(open_page, server):
    page = open_page(server)
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("document.querySelectorAll('.va-pane').length === 2")
    assert page.locator(".va-idle strong").all_text_contents() == ["Cubes 2×2×2: 8 units", "Frames: 8 units"]
    page.get_by_role("button", name="Unit types").click()
    page.wait_for_function("document.querySelectorAll('.va-pane').length === 5")
    assert page.locator(".va-add").is_disabled()
    page.get_by_role("button", name="Remove contender 2").click()
    page.get_by_label("Units of contender 1").select_option("Frames")
    page.get_by_label("frames per unit, contender 1").fill("4")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('.va-idle strong').textContent.startsWith('Chunks of 4 frames')")
    assert len(labels(page)) == 4
    page.get_by_role("tab", name="One film").click()
    page.wait_for_function("document.querySelectorAll('.va-pane').length === 1")


def test_cubes_of_any_size_can_be_chosen(page):
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Cubes and frames").click()
    for name, number in (("parts in time", 3), ("parts in height", 1), ("parts in width", 5)):
        page.get_by_label(f"{name}, contender 1").fill(str(number))
        page.keyboard.press("Tab")
    race(page)
    wait_for_race(page)
    assert labels(page) == ["Cubes 3×1×5", "Frames"]
    assert page.locator(".va-fact-units").all_text_contents() == ["15 of 15", "8 of 8"]
    # What does not fit is said beside it, before anybody waits.
    page.get_by_label("parts in time, contender 1").fill("9")
    page.keyboard.press("Tab")
    page.wait_for_selector(".va-contenders .va-error:has-text('use fewer cubes, such as cube:8x1x5')")
    page.get_by_role("button", name="Cubes and frames").click()


def test_films_are_made_side_by_side(open_page, slow_server, shot):
    page = open_page(slow_server)
    race(page)
    page.wait_for_function("document.querySelectorAll('.va-bars span[data-state=done]').length >= 3")
    shot(page, "compare-making")
    assert page.locator(".va-flight:visible").count() == 2
    times = clocks(page)
    assert max(times) - min(times) < 1  # a unit of 0.75 s, and what the machine adds
    assert page.locator(".va-pane .va-plan polygon[data-state=now]").count() >= 2
    wait_for_race(page)
    shot(page, "compare-done")


def test_one_transport_drives_all_films(page):
    race(page)
    wait_for_race(page)
    assert labels(page) == ["Cubes 2×2×2", "Frames"]
    for frame in (0, 13, 28):
        seek(page, frame)
        assert [difference(page, pane, frame) < 4 for pane in (0, 1)] == [True, True]
    page.focus(".va-screen")
    page.keyboard.press("ArrowLeft")
    assert shown_frame(page) == 27
    # While it plays, every picture of the page shows the same frame in both panes.
    skew = page.evaluate(
        """() => new Promise(resolve => {
          const canvases = [...document.querySelectorAll('.va-screen canvas')], seen = [];
          const pixels = canvas => canvas.getContext('2d').getImageData(0, 0, 128, 128).data;
          document.querySelector('.va-play').click();
          const look = () => {
            const [a, b] = canvases.map(pixels);
            seen.push(a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0) / a.length);
            seen.length < 40 ? requestAnimationFrame(look) : resolve(Math.max(...seen));
          };
          look();
        })"""
    )
    assert skew < 4


def test_films_swap_places_while_a_key_is_held(page):
    race(page)
    wait_for_race(page)
    page.focus(".va-screen")
    page.keyboard.down("f")
    assert labels(page) == ["Frames", "Cubes 2×2×2"]
    page.keyboard.up("f")
    assert labels(page) == ["Cubes 2×2×2", "Frames"]
    page.hover(".va-flip")
    page.mouse.down()
    assert labels(page) == ["Frames", "Cubes 2×2×2"]
    page.mouse.up()
    assert labels(page) == ["Cubes 2×2×2", "Frames"]


def test_the_same_spot_is_magnified_in_all_films(page):
    race(page)
    wait_for_race(page)

    def sheets():
        return page.evaluate(
            """[...document.querySelectorAll('.va-sheet')].map(sheet => {
              const style = getComputedStyle(sheet);
              return [style.transform, style.getPropertyValue('--spot')];
            })"""
        )

    page.click(".va-zoom")
    page.locator(".va-screen").first.hover(position={"x": 20, "y": 30})
    (one, other), (again, too) = sheets()
    assert one == again == "matrix(2, 0, 0, 2, 0, 0)"
    assert other == too
    page.focus(".va-screen")
    page.keyboard.press("Shift+ArrowRight")
    assert sheets()[0] == sheets()[1] != [one, other]
    page.keyboard.press("z")
    page.keyboard.press("z")
    assert sheets()[0][0] == "matrix(1, 0, 0, 1, 0, 0)"


def test_the_figures_can_be_taken_home(page, tmp_path):
    race(page, prompt="a red rocket rises under a starry night sky")
    wait_for_race(page)
    rows = page.locator(".va-verdict tbody tr")
    assert rows.count() == 2
    assert page.locator(".va-verdict .va-first").count() == 2
    read = rows.first.locator("td").last.text_content()
    assert all(word in read for word in ("red:", "rocket:", "rises:"))
    assert "finished first" in status(page)
    with page.expect_download() as download:
        page.click(".va-json")
    download.value.save_as(tmp_path / "timings.json")
    timings = json.loads((tmp_path / "timings.json").read_text())
    assert [c["label"] for c in timings["contenders"]] == labels(page)
    assert [len(c["units"]) for c in timings["contenders"]] == [8, 8]
    assert page.locator(".va-bars span[data-state=done]").count() == 16
    with page.expect_download() as film:
        page.locator("#va-files a[download]").first.click()
    assert film.value.suggested_filename == "videoar-1-cube-2x2x2.mp4"


def test_one_contenders_failure_leaves_the_other(page):
    race(page, prompt="fail slowly")
    page.wait_for_function("document.querySelector('.va-status').textContent.includes('out of memory')")
    assert page.locator(".va-pane[data-phase=failed]").count() == 2
    race(page)
    wait_for_race(page)


def test_a_comparison_can_be_stopped(open_page, slow_server):
    page = open_page(slow_server)
    race(page)
    page.wait_for_function("document.querySelectorAll('.va-bars span[data-state=done]').length >= 2")
    page.click("#va-stop-all")
    page.wait_for_function("document.querySelectorAll('.va-pane[data-phase=stopped]').length === 2")
    assert status(page).startswith("Stopped after ")
    page.wait_for_selector("#va-files a[download]")


LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2},
}


@pytest.mark.parametrize("look", LOOKS)
def test_comparisons_are_accessible_and_fit(open_page, server, axe, shot, look):
    page = open_page(server, **LOOKS[look])
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Unit types").click()
    findings = {"idle": violations(page, axe)}
    shot(page, f"compare-{look}-idle")
    race(page)
    wait_for_race(page)
    shot(page, f"compare-{look}-done")
    findings["done"] = violations(page, axe)
    assert findings == {"idle": [], "done": []}
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
