"""Comparisons where things are not as they should be: a slow network, a broken connection, two tabs; and on ZeroGPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.app.test_zerogpu import DeviceApi, run

from .steps import race, seek, wait_for_panes, wait_for_race
from .test_compare import difference

# Kilobytes a second and milliseconds of a bad connection in a hall.
SLOW = {"offline": False, "latency": 300, "downloadThroughput": 150_000, "uploadThroughput": 50_000}


def shows(page, seed: int) -> bool:
    """Whether both films of a comparison are whole and the seed's own."""
    seek(page, 20)
    return all(difference(page, pane, 20, seed) < 4 for pane in (0, 1))


def test_a_slow_network_delays_and_loses_nothing(open_page, server):
    page = open_page(server)
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", SLOW)
    race(page, "a film on a thin line", seed=21)
    wait_for_race(page)
    assert shows(page, 21)


def test_a_comparison_goes_on_after_a_broken_connection(open_page, server):
    page = open_page(server)
    starts = []

    def cut_once(route):
        starts.append(int(route.request.url.rpartition("=")[2]))
        if len(starts) > 1:
            return route.continue_()
        whole = route.fetch().body()
        return route.fulfill(body=whole[: len(whole) // 2], content_type="application/octet-stream")

    page.route("**/gradio_api/units/**", cut_once)
    race(page, "a film on a shaky line", seed=22)
    wait_for_race(page)
    assert starts[0] == 0 < starts[1]
    assert shows(page, 22)


def test_a_browser_without_image_decoder_shows_the_same(open_page, server):
    page = open_page(server)
    assert page.evaluate("delete window.ImageDecoder && !window.ImageDecoder"), (
        "Chromium has one on this machine's pages"
    )
    race(page, "a film by plain http", seed=23)
    wait_for_race(page)
    assert shows(page, 23)


def test_two_tabs_of_one_visitor_have_a_run_each(open_page, server):
    one = open_page(server)
    other = one.context.new_page()
    other.goto(server.url)
    other.wait_for_selector(".va-choices label")
    race(one, "of the first tab", seed=23)
    race(other, "of the second tab", seed=24)
    wait_for_panes(one, "of the first tab")
    wait_for_panes(other, "of the second tab")
    assert shows(one, 23)
    assert shows(other, 24)
    other.close()
    race(one, "of the tab that stays", seed=25)
    wait_for_race(one)
    assert shows(one, 25)


@pytest.fixture
def zero_gpu():
    """The page on an emulated ZeroGPU Space."""
    api = DeviceApi()
    for client, _ in run("fake", api):
        yield SimpleNamespace(url=client.src, api=api)
    api.close()


def test_a_comparison_on_zero_gpu(zero_gpu, open_page):  # in this order: the page is closed before its server
    page = open_page(zero_gpu)
    race(page, "a film on a borrowed device", seed=26)
    wait_for_race(page)
    assert shows(page, 26)
    assert zero_gpu.api.count("schedule") == 1
