"""What a tab keeps of its visit: earlier runs, votes; and files that are dropped on it."""

from __future__ import annotations

import csv
import io
import json

from .steps import drop, fill, generate, race, status, wait_for_panes, wait_for_phase, wait_for_race, wait_for_settings
from .test_page import violations

FILM = {"prompt": "a dropped prompt", "plan": "scale:3", "steps": 12, "seed": 5, "guidance_scale": 1.0, "window": None}


def form(page) -> tuple:
    """Prompt, seed, whether a new one is drawn, and the open tab."""
    drawn = page.get_by_label("New seed each time").is_checked()
    tab = page.locator("[role=tab][aria-selected=true]").text_content()
    return page.input_value("#va-prompt textarea"), page.input_value("#va-seed input"), drawn, tab


def wait_for_prompt(page, prompt: str) -> None:
    page.wait_for_function("text => document.querySelector('#va-prompt textarea').value === text", arg=prompt)
    page.wait_for_function("!document.querySelector('.va-seed-row .generating')")


def test_files_that_are_dropped_fill_in_the_form(open_page, server):
    page = open_page(server)
    drop(page, "clip.json", json.dumps(FILM).encode())
    wait_for_prompt(page, "a dropped prompt")
    page.wait_for_function("document.querySelector('#va-steps input[type=number]').value === '12'")
    assert form(page) == ("a dropped prompt", "5", False, "One film")
    assert page.locator(".va-choices input:checked").get_attribute("value") == "scale"
    drop(page, "clip.json", json.dumps(FILM | {"plan": "cube:1x3x2", "prompt": "of another cut"}).encode())
    wait_for_prompt(page, "of another cut")
    page.wait_for_selector(".va-choices label:has(:checked):has-text('Cubes 1×3×2')")
    several = {"comparison": [FILM | {"plan": plan, "prompt": "several"} for plan in ("frame:2", "cube:1x3x2", "full")]}
    drop(page, "race.json", json.dumps(several).encode())
    wait_for_prompt(page, "several")
    page.wait_for_function("document.querySelectorAll('.va-pane').length === 3")
    assert page.locator(".va-idle strong").all_text_contents()[1] == "Cubes 1×3×2: 6 units"
    drop(page, "broken.json", b"{")
    page.wait_for_selector(".toast-body:has-text('no JSON text')")
    drop(page, "broken.mp4", b"no film")
    page.wait_for_selector(".toast-body:has-text('broken.mp4')")
    drop(page, "notes.txt", b"hello")
    page.wait_for_selector(".toast-body:has-text('notes.txt')")
    assert form(page)[0] == "several"


def test_a_file_of_a_long_film_brings_all_of_it(open_page, server):
    page = open_page(server)

    def chosen() -> tuple:
        length = page.locator(".va-lengths :checked").get_attribute("value")
        names = (".va-seconds", "#va-story", "#va-window", ".va-sink", "#va-guidance", "#va-count")
        return length, *(page.input_value(name) for name in names)

    whole = FILM | {"window": 5, "sink": 1, "guidance_scale": 3.0, "frames": 97, "fps": 8.0, "model": "stripes"}
    whole |= {"storyboard": [[4.0, "a fish"]], "width": 832, "height": 480, "continued_from": "cat.png"}
    drop(page, "clip.json", json.dumps(whole).encode())
    page.wait_for_selector(".toast-body:has-text('the size of 832 × 480 pixels; the file that the film goes on from')")
    assert chosen() == ("seconds", "12.25", "4 a fish", "5", "1", "3", "1")
    assert page.locator("#va-from").get_by_text("Drop File Here").is_visible()
    endless = {"endless": True, "frames": None, "prompt": "without an end", "window": 20}
    drop(page, "clip.json", json.dumps(whole | endless).encode())
    wait_for_prompt(page, "without an end")
    page.wait_for_function("document.querySelector('#va-window').value === '20'")  # beyond the model's own
    assert chosen()[0] == "endless"
    # What is the model's own is not asked for.
    plain = FILM | {"prompt": "a clip", "frames": 29, "fps": 8.0, "sink": 0, "window": 8, "guidance_scale": 1.0}
    drop(page, "clip.json", json.dumps(plain).encode())
    wait_for_prompt(page, "a clip")
    page.wait_for_function("document.querySelector('#va-story').value === ''")
    assert chosen() == ("clip", "30", "", "8", "", "", "1")
    assert not page.locator(".va-more").get_attribute("open")


def test_earlier_runs_come_back_with_their_settings(open_page, server, axe, shot):
    page = open_page(server)
    generate(page, prompt="the first film", seed=3)
    wait_for_phase(page, "done")
    race(page, prompt="the second run", seed=4)
    wait_for_race(page)
    runs = page.locator(".va-history button")
    assert runs.count() == 2
    assert runs.first.get_attribute("aria-label").endswith("the second run (Cubes 2×2×2 against Frames)")
    shot(page, "history")
    assert violations(page, axe) == []
    fill(page, "something else", None)
    runs.last.click()
    wait_for_panes(page, "the first film")
    wait_for_prompt(page, "the first film")
    wait_for_settings(page, "the first film")
    assert form(page) == ("the first film", "3", False, "One film")
    assert page.locator("#va-film").is_visible()
    runs.first.click()
    wait_for_panes(page, "the second run")
    other = open_page(server)
    assert other.locator(".va-history button").count() == 0


def test_a_blind_test_tells_the_names_after_the_vote(open_page, server, axe, shot):
    page = open_page(server)
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("checkbox", name="Blind test").check()
    race(page, prompt='a "quoted" prompt, with a comma', seed=4)
    page.wait_for_selector(".va-ballot:visible")
    names = page.locator(".va-pane .va-name strong")
    assert names.all_text_contents() == ["A", "B"]
    telling = ".va-clock, .va-facts, .va-plan, .va-timeline, .va-verdict, .va-history, #va-films"
    assert [each for each in page.locator(telling).all() if each.is_visible()] == []
    shot(page, "blind")
    assert violations(page, axe) == []
    page.get_by_role("button", name="B", exact=True).click()
    shown = names.all_text_contents()
    assert sorted(name[4:] for name in shown) == ["Cubes 2×2×2", "Frames"]
    assert status(page) == f"B is {shown[1][4:]}."
    assert page.locator(".va-verdict").is_visible()
    race(page, prompt="another one", seed=4)
    page.wait_for_selector(".va-ballot:visible")
    page.get_by_role("button", name="No difference").click()
    rows = [row.split("\t") for row in page.locator(".va-tally tbody tr").all_inner_texts()]
    # One vote of one: Wilson's interval goes from 21% to 100%.
    assert [shown[1][4:], "1 of 1", "100% (21 to 100%)"] in rows
    assert [shown[0][4:], "0 of 1", "0% (0 to 79%)"] in rows
    assert "2 votes in this tab, 1 without a difference" in page.text_content(".va-tally")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Votes as CSV").click()
    votes = list(csv.DictReader(io.StringIO(saved.value.path().read_bytes().decode())))
    assert [vote["choice"] for vote in votes] == [shown[1][4:], ""]
    assert votes[0]["prompt"] == 'a "quoted" prompt, with a comma'
    assert votes[0]["shown"] == " | ".join(name[4:] for name in shown)
    page.get_by_role("button", name="Start over").click()
    assert page.locator(".va-tally").is_hidden()


def test_the_interval_is_wilsons(page):
    page.evaluate(
        """() => sessionStorage.setItem('videoar-votes', JSON.stringify([1, 1, 1, 0, 0].map(won =>
          ({ time: '', prompt: '', seed: '', shown: ['Cubes', 'Frames'], choice: won ? 'Cubes' : 'Frames' }))))"""
    )
    page.reload()
    page.wait_for_selector(".va-tally tbody tr")
    # Newcombe (1998), method 3, for 3 of 5: 0.231 to 0.882.
    assert "60% (23 to 88%)" in page.text_content(".va-tally tbody")
    page.evaluate("sessionStorage.clear()")
    page.reload()
    page.wait_for_selector(".va-choices label")
