"""The player shows the film that was made, while it is made, and can be driven by mouse, keyboard and touch."""

from __future__ import annotations

import numpy as np
import pytest

from app.plans import choices
from tests.app.fake import film_of

from .steps import generate, picture, seek, shown_frame, status, wait_for_phase, wait_for_settings, wait_for_units


def difference(page, frame: int, seed: int = 7) -> float:
    """How far the screen is from a frame of the fake's film, in levels of 255."""
    return float(np.abs(picture(page)[..., :3].astype(float) - film_of(seed)[frame]).mean())


@pytest.mark.parametrize("plan", [choice["value"] for choice in choices()])
def test_every_plan_ends_in_the_exact_film(page, plan):
    generate(page, plan=plan)
    wait_for_phase(page, "done")
    for frame in (0, 1, 13, 28):
        seek(page, frame)
        assert shown_frame(page) == frame
        assert difference(page, frame) < 4
    assert not page.is_visible(".va-preview")
    assert page.locator(".va-strip i[data-state=exact]").count() == 29
    total = len(next(choice for choice in choices() if choice["value"] == plan)["picture"]["units"])
    assert page.text_content(".va-fact-units") == f"{total} of {total}"
    assert page.locator(".va-bars span").count() == total
    assert page.text_content(".va-fact-seed") == "7"
    assert status(page).startswith(f"Done: {total} unit")


def test_cubes_appear_one_by_one(open_page, slow_server, shot):
    page = open_page(slow_server)
    generate(page)
    wait_for_units(page, 1)
    first = picture(page)
    wait_for_units(page, 3)
    assert page.is_visible(".va-flight")
    assert page.is_visible(".va-preview")
    assert page.text_content(".va-flight span").startswith("unit ")
    shot(page, "making")
    assert page.locator(".va-bars span:not(:empty)").count() >= 3
    assert page.locator(".va-plan polygon[data-state=done]").count() >= 9
    painted = first[..., 3] > 0
    assert painted[:64, :64].all()
    assert not painted[64:, 64:].any()  # nobody was that fast: two more units come first
    wait_for_phase(page, "done")
    assert not page.is_visible(".va-flight")


def test_scales_are_previews_until_the_last_one(open_page, slow_server):
    page = open_page(slow_server)
    generate(page, plan="scale")
    wait_for_units(page, 1)
    assert page.is_visible(".va-preview")
    assert (picture(page)[..., 3] > 0).all()
    wait_for_phase(page, "done")
    seek(page, 5)
    assert difference(page, 5) < 4


def test_the_keyboard_drives_the_player(page):
    generate(page)
    wait_for_phase(page, "done")
    page.focus(".va-screen")
    page.keyboard.press("Home")
    assert shown_frame(page) == 0
    assert page.get_attribute(".va-play", "aria-label") == "Play"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert shown_frame(page) == 1
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert shown_frame(page) == 0
    page.keyboard.press("End")
    assert shown_frame(page) == 28
    page.keyboard.press("Space")
    assert page.get_attribute(".va-play", "aria-label") == "Pause"
    page.wait_for_function(
        "+document.querySelector('.va-scrub').value > 2 && +document.querySelector('.va-scrub').value < 20"
    )
    page.keyboard.press("Space")
    assert page.get_attribute(".va-play", "aria-label") == "Play"
    page.focus(".va-play")
    page.keyboard.press("Space")  # the button's own, once and not twice
    assert page.get_attribute(".va-play", "aria-label") == "Pause"


def test_buttons_speed_and_loop(page):
    generate(page)
    wait_for_phase(page, "done")
    seek(page, 27)
    page.click(".va-forward")
    assert shown_frame(page) == 28
    page.click(".va-back")
    assert shown_frame(page) == 27
    page.click(".va-loop")
    assert page.get_attribute(".va-loop", "aria-pressed") == "false"
    page.select_option(".va-speed", "2")
    page.click(".va-screen")
    page.wait_for_selector(".va-play[data-playing=false]")  # without the loop it ends by itself
    assert shown_frame(page) == 28
    assert page.text_content(".va-time") == "29 / 29"
    page.click(".va-loop")
    assert page.get_attribute(".va-loop", "aria-pressed") == "true"


def test_the_film_plays_at_its_own_speed(page):
    generate(page)
    wait_for_phase(page, "done")
    seek(page, 0)
    begin = page.evaluate(
        """() => new Promise(resolve => {
          const scrub = document.querySelector('.va-scrub'), start = performance.now();
          document.querySelector('.va-play').click();
          const look = () => +scrub.value >= 16 ? resolve(performance.now() - start) : requestAnimationFrame(look);
          look();
        })"""
    )
    assert 1700 < begin < 3500  # 16 frames at 8 a second; only a stalled machine is late


def test_the_stream_resumes_after_a_lost_connection(page):
    starts = []

    def lose(route):
        starts.append(int(route.request.url.rpartition("=")[2]))
        if len(starts) == 1:
            whole = route.fetch().body()
            route.fulfill(body=whole[: len(whole) // 2], content_type="application/octet-stream")
        else:
            route.continue_()

    page.route("**/gradio_api/units/**", lose)
    generate(page)
    wait_for_phase(page, "done")
    assert len(starts) == 2
    assert starts[0] == 0 < starts[1]
    seek(page, 20)
    assert difference(page, 20) < 4


def test_a_new_film_is_not_mixed_with_the_one_before(page):
    """The first stream comes at once and takes long to decode, the second begins meanwhile."""
    generate(page, seed=70, plan="frame")
    wait_for_settings(page, page.asked)  # the film is finished, its pictures perhaps not yet decoded
    generate(page, seed=71)
    wait_for_phase(page, "done")
    assert page.text_content(".va-fact-units") == "8 of 8"
    for frame in range(0, 29, 4):
        seek(page, frame)
        assert difference(page, frame, seed=71) < 4


def test_a_job_that_is_gone_is_explained(page, shared):
    page.route("**/gradio_api/units/**", lambda route: route.fulfill(status=404, body="{}"))
    generate(page, seed=404)
    page.wait_for_function("document.querySelector('.va-status').textContent.includes('no longer')")
    wait_for_settings(page, "404")  # made all the same
    shared[1].clear()  # the browser itself reports the 404
