"""On stage: the whole screen, large type, the keyboard alone; and links that open the same settings."""

from __future__ import annotations

import pytest

from .steps import race, seek, shown_frame, status, wait_for_panes, wait_for_race
from .test_page import violations

SCREENS = {
    "projector": {"viewport": {"width": 1280, "height": 720}},
    "4k": {"viewport": {"width": 3840, "height": 2160}},
}


def cue(page) -> str:
    return page.text_content(".va-cue strong")


def test_a_talk_by_keyboard_alone(open_page, server, shot):
    page = open_page(server, **SCREENS["projector"])
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("document.querySelectorAll('.va-pane').length === 2")
    page.focus(".va-screen")
    page.keyboard.press("p")
    page.wait_for_selector(".va-presenting")
    first = cue(page)
    page.keyboard.press("ArrowDown")
    assert cue(page) != first
    page.keyboard.press("PageUp")
    assert cue(page) == first
    page.keyboard.press("e")
    page.keyboard.type("a prompt from the audience")
    page.keyboard.press("Enter")
    page.asked = "a prompt from the audience"
    assert cue(page) == page.asked
    wait_for_race(page)
    shot(page, "present-projector")
    films = page.locator(".va-screen").evaluate_all("all => all.map(screen => screen.clientHeight)")
    assert min(films) > 200  # of 720
    assert "finished first" in status(page)
    # Everything that counts is on the screen: films, lanes and the table, without scrolling.
    bottom = page.locator(".va-verdict table").bounding_box()
    assert bottom["y"] + bottom["height"] <= 720
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert shown_frame(page) == 1
    page.keyboard.press("m")
    assert page.locator(".va-clock:visible, .va-facts:visible, .va-verdict:visible").count() == 0
    page.keyboard.press("m")
    page.keyboard.down("f")
    assert page.locator(".va-pane[data-swapped=true]").count() == 2
    page.keyboard.up("f")
    page.keyboard.press("q")
    page.wait_for_selector(".va-presenting", state="detached")
    assert page.evaluate("document.activeElement.className") == "va-present"


def test_the_stage_is_accessible_and_large_on_every_screen(open_page, server, axe, shot):
    page = open_page(server, **SCREENS["4k"])
    race(page)
    wait_for_race(page)
    seek(page, 5)
    page.click(".va-present")
    shot(page, "present-4k")
    assert violations(page, axe) == []
    size = "parseFloat(getComputedStyle(document.querySelector('.va-cue strong')).fontSize)"
    assert page.evaluate(size) >= 70
    box = page.locator(".va-verdict table").bounding_box()
    assert box["y"] + box["height"] <= 2160


def test_films_are_stopped_by_keyboard(open_page, slow_server):
    page = open_page(slow_server, **SCREENS["projector"])
    page.click(".va-present")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.va-bars span[data-state=done]').length >= 1")
    box = page.locator(".va-lanes").bounding_box()
    assert box["y"] + box["height"] <= page.viewport_size["height"]  # seen without scrolling
    page.keyboard.press("Enter")
    assert "Press S" in status(page)
    page.keyboard.press("s")
    page.wait_for_selector(".va-pane[data-phase=stopped]")


def test_a_link_opens_the_same_comparison(open_page, server, page):
    race(page, prompt="a red ball & 50% <b>more</b>", seed=77)
    wait_for_race(page)
    link = page.get_attribute(".va-link", "href")
    other = open_page(server)
    other.goto(link)
    other.wait_for_function("document.querySelectorAll('.va-pane').length === 2")
    other.wait_for_function("document.querySelector('#va-prompt textarea').value.includes('50%')")
    assert other.input_value("#va-prompt textarea") == "a red ball & 50% <b>more</b>"
    assert other.input_value("#va-seed input") == "77"
    assert not other.get_by_label("New seed each time").is_checked()
    other.wait_for_function("[...document.querySelectorAll('.va-steps-of')].every(input => input.value === '4')")
    other.asked = page.asked
    other.click("#va-race")
    wait_for_race(other)


@pytest.mark.parametrize(
    ("query", "says"), [("?prompt=a&units=pyramid", "unknown plan"), ("?seed=x", "whole number"), ("?units=", "plan")]
)
def test_a_link_that_cannot_be_followed_is_explained(open_page, server, query, says):
    page = open_page(server)
    page.goto(server.url + query)
    page.wait_for_selector(f".toast-body:has-text('{says}')")


def say_and_start(page, prompt: str) -> None:
    """The own prompt of whoever presents, and Enter."""
    page.keyboard.press("e")
    page.keyboard.type(prompt)
    page.keyboard.press("Enter")
    page.asked = prompt


def test_a_failing_device_is_followed_by_the_last_good_run(open_page, server, shot):
    page = open_page(server, **SCREENS["projector"])
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("document.querySelectorAll('.va-pane').length === 2")
    page.click(".va-present")
    page.keyboard.press("r")
    assert "no finished run yet" in status(page)
    say_and_start(page, "a run to fall back to")
    wait_for_race(page)
    say_and_start(page, "fail before everybody")
    page.wait_for_function("document.querySelector('.va-status').textContent.includes('last good run is shown again')")
    page.wait_for_selector(".va-replayed:visible")
    wait_for_panes(page, "a run to fall back to")
    assert cue(page) == "a run to fall back to"
    page.wait_for_function("document.querySelector('.va-status').textContent.startsWith('Replay of ')")
    shot(page, "present-replay")
    # By hand, and with a server that is gone.
    page.context.set_offline(True)
    page.keyboard.press("r")
    page.wait_for_selector(".va-pane[data-phase=making]")
    wait_for_panes(page, "a run to fall back to")
    page.context.set_offline(False)
    say_and_start(page, "and on we go")
    wait_for_race(page)
    assert not page.locator(".va-replayed").is_visible()


def test_a_code_leads_others_to_the_same_settings(open_page, server, axe, shot):
    page = open_page(server, **SCREENS["projector"])
    page.click(".va-present")
    page.keyboard.press("c")
    page.wait_for_selector(".va-share-dialog[open]")
    page.wait_for_function("document.querySelector('.va-share-code').naturalWidth > 100")
    shot(page, "present-code")
    assert violations(page, axe) == []
    assert "--host 0.0.0.0" in page.text_content(".va-share-note")
    link = page.get_attribute(".va-share-link", "href")
    page.keyboard.press("c")
    page.wait_for_selector(".va-share-dialog:not([open])", state="attached")
    assert page.locator(".va-presenting").count() == 1
    prompt = page.input_value("#va-prompt textarea")
    page.goto(link)
    page.wait_for_function("prompt => document.querySelector('#va-prompt textarea')?.value === prompt", arg=prompt)
