"""The page "How it works": what it draws, by keyboard and link, in every look."""

from __future__ import annotations

import re

import pytest

from videoar.montage import unit_colour

from .conftest import PHONE
from .test_page import LOOKS, violations


def explain(open_page, server, query: str = "", **options):
    page = open_page(server, **options)
    page.goto(f"{server.url}gradio_api/how-it-works{query}")
    page.wait_for_function("document.querySelector('.va-said').textContent")
    return page


def said(page) -> str:
    return page.text_content(".va-said")


def test_units_are_stepped_through_by_keyboard(open_page, server):
    page = explain(open_page, server)
    assert said(page) == "Unit 1 of 8 attends to itself: 64 of 512 tokens."
    page.locator("body").press("ArrowRight")
    page.locator("body").press("ArrowRight")
    assert said(page) == "Unit 3 of 8 attends to itself and units 1, 2: 192 of 512 tokens."
    page.focus(".va-at")
    page.keyboard.press("End")
    assert said(page) == "Unit 8 of 8 attends to itself and units 1 to 7: 512 of 512 tokens."
    states = page.eval_on_selector_all(".va-slices rect", "all => all.map(rect => rect.dataset.state)")
    assert (states.count("now"), states.count("seen"), len(states)) == (4, 28, 32)
    page.get_by_role("radio", name="All at once").focus()
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('.va-said').textContent.startsWith('Unit 1 of 1 ')")
    assert page.locator(".va-cut p.va-chosen").inner_text().startswith("One unit holds the whole film")


def test_a_link_opens_the_same_drawing(open_page, server):
    query = "?plan=frame:1&frames=6&rows=2&columns=3&window=3&sink=1&unit=5"
    page = explain(open_page, server, query)
    assert said(page) == (
        "Unit 5 of 6 attends to itself and units 1 and 4: 18 of 36 tokens. It has forgotten units 2, 3."
    )
    assert set(re.findall(r"[a-z]+=[^&]*", page.url)) == set(query.replace(":", "%3A")[1:].split("&"))
    page.fill("input[name=sink]", "3")
    page.wait_for_function("document.querySelector('.va-error').textContent")
    assert "the sink (3 latent frames) is part of the window (3)" in page.text_content(".va-error").replace(
        "The", "the"
    )


def test_colours_are_those_of_exported_films(open_page, server):
    page = explain(open_page, server)
    for index in (0, 3, 7):
        drawn = page.evaluate(
            """index => {
              const pen = new OffscreenCanvas(1, 1).getContext('2d');
              pen.fillStyle = unitColour(index, 8);
              pen.fillRect(0, 0, 1, 1);
              return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
            }""",
            index,
        )
        assert drawn == pytest.approx(unit_colour(index, 8), abs=2)


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_is_accessible_and_fits(open_page, server, axe, shot, look):
    page = explain(open_page, server, "?plan=cube:2x2x2&unit=5", **LOOKS[look])
    shot(page, f"explain-{look}")
    assert violations(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_the_playground_leads_there_and_back(open_page, server):
    page = open_page(server, viewport=PHONE)
    page.get_by_role("link", name="How it works").click()
    page.wait_for_selector(".va-said")
    page.get_by_role("link", name="Playground").click()
    page.wait_for_selector("#va-prompt textarea")
