"""Films without an end in the page: played while they are made, directed, stopped, and ended with their page."""

from __future__ import annotations

import time

import av
import numpy as np
import pytest
from PIL import Image

from tests.app.fake import pictures_of
from videoar.video import read_settings, read_video

from .steps import ask, generate, picture, shown_frame, status, wait_for_settings


@pytest.fixture(scope="module")
def quick_server(start):
    """A page that makes films about as fast as they play, so that an endless one moves on."""
    return start(0.02)


def begin(page, length: str = "endless", **asked) -> None:
    ask(page, **asked)
    page.check(f"#va-options input[value={length}]", force=True)
    page.click("#va-go")


def wait_for_frame(page, frame: int) -> None:
    page.wait_for_function("frame => +document.querySelector('.va-scrub').value >= frame", arg=frame)


def idle(server, seconds: float = 15.0) -> bool:
    """Whether the device gets nothing more to do."""
    engine, end = server.device._ready.result()[1], time.monotonic() + seconds
    while engine.load() != (0, 0) and time.monotonic() < end:
        time.sleep(0.05)
    return engine.load() == (0, 0)


def test_an_endless_film_plays_switches_and_is_kept(open_page, quick_server, shot, tmp_path):
    page = open_page(quick_server)
    begin(page, seed=7)
    page.wait_for_selector("#va-switch", state="visible")
    wait_for_frame(page, 30)  # longer than a clip
    page.fill("#va-prompt textarea", "a dark ball")
    page.press("#va-prompt textarea", "Control+Enter")
    page.wait_for_selector(".va-marks i", state="attached")
    first = int(page.get_attribute(".va-marks i", "data-first"))
    assert first > 30
    assert status(page).endswith("a dark ball")
    wait_for_frame(page, first)
    assert page.text_content(".va-scene") == "a dark ball"
    shot(page, "endless")
    page.click(".va-play")
    at = shown_frame(page)
    difference = np.abs(picture(page)[..., :3].astype(float) - pictures_of(7, at, at + 1)[0] // 3)
    assert difference.mean() < 4
    page.click("#va-stop")
    page.wait_for_selector("#va-film video")
    wait_for_settings(page, "a dark ball")
    assert not page.is_visible("#va-switch")
    assert idle(quick_server)
    with page.expect_download() as download:
        page.locator("#va-video a[download], #va-video button[aria-label*=ownload]").first.click()
    download.value.save_as(tmp_path / "film.mp4")
    settings, (film, _) = read_settings(tmp_path / "film.mp4"), read_video(tmp_path / "film.mp4")
    assert settings["storyboard"] == [[first / 8, "a dark ball"]]
    assert settings["kept_frames"] == len(film) > first
    assert np.abs(film[20].astype(float) - pictures_of(7, 20, 21)[0]).mean() < 6
    page.locator(".va-history button").first.click()
    page.wait_for_function("document.querySelector('#va-story').value.endsWith(' a dark ball')")
    assert page.is_checked("#va-options input[value=endless]")


def test_a_closed_tab_leaves_nothing_running(open_page, quick_server):
    page = open_page(quick_server)
    begin(page)
    wait_for_frame(page, 2)
    page.close()
    assert idle(quick_server)


def test_a_film_that_nobody_plays_does_not_run_away(open_page, quick_server):
    page = open_page(quick_server, reduced_motion="reduce")
    begin(page)
    page.wait_for_function("parseInt(document.querySelector('.va-fact-units').textContent) >= 8")
    assert page.get_attribute(".va-play", "data-playing") == "false"
    made = page.text_content(".va-fact-units")
    while True:  # until it rests
        time.sleep(1.5)
        if made == (made := page.text_content(".va-fact-units")):
            break
    assert int(made) < 40
    page.click(".va-play")
    wait_for_frame(page, 4)
    page.click("#va-stop")
    page.wait_for_selector("#va-film video")


def test_seconds_end_by_themselves_and_can_be_scrubbed(open_page, quick_server, shot):
    page = open_page(quick_server, viewport={"width": 360, "height": 780}, color_scheme="dark")
    page.fill(".va-seconds", "35")
    page.dispatch_event(".va-seconds", "input")
    begin(page, "seconds", seed=7, plan="full")
    page.wait_for_selector(".va-pane[data-phase=done]", timeout=60_000)
    page.wait_for_selector("#va-film video")
    shot(page, "seconds-phone-dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.text_content(".va-time").endswith("/ 0:35")
    for frame in (200, 10):
        page.evaluate("n => { const s = document.querySelector('.va-scrub'); s.value = n; s.oninput(); }", frame)
        page.wait_for_timeout(500)  # it has to be decoded first
        assert shown_frame(page) == frame
        true = pictures_of(7, frame, frame + 1)[0]
        assert np.abs(picture(page)[..., :3].astype(float) - true).mean() < 4


def test_a_storyboard_with_a_mistake_loses_nothing(open_page, quick_server, tmp_path):
    page = open_page(quick_server)
    page.click(".va-more summary")
    story = tmp_path / "story.txt"
    story.write_text("0 a ball\nsoon a dark ball\n")
    page.set_input_files(".va-load input", story)
    page.wait_for_function("document.querySelector('#va-story').value.includes('soon')")
    ask(page)
    page.click("#va-go")
    page.wait_for_selector(".toast-body:has-text('Line 2: begins with a time')")
    assert page.input_value("#va-story") == story.read_text()
    page.fill("#va-story", "4 a dark ball")
    page.click("#va-go")
    page.wait_for_selector(".va-pane[data-phase=done]", timeout=60_000)
    assert page.text_content(".va-time").endswith("/ 0:07")  # the last time, and a clip


def test_a_film_goes_on_from_itself(open_page, quick_server):
    page = open_page(quick_server)
    generate(page, seed=7)
    page.wait_for_selector("#va-film video")
    page.click("#va-continue")
    wait_for_settings(page, "videoar.mp4, 29 frames")
    page.wait_for_selector("#va-from:has-text('videoar')")
    assert page.text_content(".va-time").endswith("/ 28")
    # What a film went on from comes back with it, and goes with another one.
    page.locator(".va-history button").last.click()
    page.wait_for_selector("#va-start input[type=file]", state="attached")
    page.locator(".va-history button").first.click()
    page.wait_for_selector("#va-start:has-text('videoar')")
    link = page.get_attribute(".va-link", "href")
    assert "continued_from=videoar.mp4" in link
    page.goto(link)
    page.wait_for_selector(".toast-body:has-text('choose videoar.mp4 once more')")


def make_clip(path, frames: int) -> None:
    """A clip with odd sides at 24 pictures a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 127, 95, "yuv444p"
        container.start_encoding()
        for _ in range(frames):
            picture = np.full((95, 127, 3), 90, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None) if frames else [])


def test_what_a_film_can_go_on_from(open_page, quick_server, tmp_path):
    Image.new("L", (20_000, 4)).save(tmp_path / "wide.png")
    make_clip(tmp_path / "nothing.mp4", 0)
    make_clip(tmp_path / "odd.mp4", 12)
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.png").write_text("no picture")
    says = {"empty": "is empty", "notes": "neither a picture nor a video", "wide": "8192 a side", "nothing": "no video"}
    page = open_page(quick_server)
    ask(page, seed=7)
    page.click("#va-from > button")
    # One after another: nothing that cannot be used is in the way of the next one.
    for path in sorted(tmp_path.iterdir(), key=lambda path: path.stem == "odd"):
        page.set_input_files("#va-start input[type=file]", path)
        page.wait_for_selector(f"#va-start:has-text('{path.stem}')")
        page.click("#va-go")
        if path.stem == "odd":
            break
        page.wait_for_selector(f".toast-body:has-text('{says[path.stem]}')")
        assert says[path.stem] in status(page)
        page.locator(".toast-close").first.click()
        page.wait_for_selector(".toast-body", state="detached")
        page.click("#va-start button[aria-label=Clear]")
    wait_for_settings(page, "odd.mp4, 5 frames")  # half a second, at 8 a second
    assert page.text_content(".va-time").endswith("/ 28")


def test_several_films_to_choose_from(open_page, quick_server, shot):
    page = open_page(quick_server)
    page.click(".va-more summary")
    page.select_option("#va-count", "3")
    generate(page, seed=40)
    page.wait_for_function("document.querySelectorAll('.va-choice:not([hidden])').length === 3")
    shot(page, "batch")
    page.locator(".va-take").nth(2).click()
    page.wait_for_function("document.querySelector('#va-seed input').value === '42'")
    with page.expect_download() as download:
        page.locator(".va-own-film").nth(1).click()
    assert read_settings(download.value.path())["seed"] == 41


def test_a_link_brings_all_of_it(open_page, quick_server):
    page = open_page(quick_server)
    page.goto(
        f"{quick_server.url}?prompt=a+ball&seed=5&units=cube:2x2x2+window:4&seconds=12&storyboard=4+a+fish&sink=1"
    )
    page.wait_for_function("document.querySelector('#va-window')?.value === '4'")
    page.wait_for_function("document.querySelector('#va-seed input')?.value === '5'")
    page.click("#va-go")
    wait_for_settings(page, "a fish")
    page.wait_for_selector(".va-link[href]")
    link = page.get_attribute(".va-link", "href")
    for part in ("seconds=12.125", "storyboard=4+a+fish", "sink=1", "window%3A4"):
        assert part in link
