"""The link that other devices can open."""

from __future__ import annotations

import base64

import httpx
import pytest

from app.share import own_address, reachable

LINK = "http://127.0.0.1:7860/?prompt=a%20ball&units=cube%3A2x2x2"


def test_an_address_of_the_network_stays_as_it_is():
    for link in ("https://someone-videoar.hf.space/?seed=7", "http://192.168.1.5:7860/"):
        assert reachable(link, "127.0.0.1") == (link, "")


def test_a_page_for_this_machine_alone_says_how_to_let_others_in():
    link, note = reachable(LINK, "127.0.0.1", here="192.168.1.5")
    assert link == LINK
    assert "--host 0.0.0.0" in note


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0"])
def test_a_page_for_the_whole_network_gets_the_machines_address(name):
    link, note = reachable(LINK.replace("127.0.0.1", name), "0.0.0.0", here="192.168.1.5")
    assert link == LINK.replace("127.0.0.1", "192.168.1.5")
    assert "same network" in note


def test_ones_own_address_is_none_or_one_that_others_see():
    assert own_address() is None or not own_address().startswith("127.")


@pytest.mark.parametrize("link", ["", "javascript:alert(1)", "file:///etc/passwd", "http://", "x" * 3000])
def test_what_is_no_link_is_refused(server, link):
    answer = httpx.get(f"{server.url}gradio_api/share", params={"link": link})
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(".")


def test_the_code_is_a_picture_without_anything_of_the_link_in_its_text(server):
    link = server.url + "?prompt=<script>alert(1)</script>"
    answer = httpx.get(f"{server.url}gradio_api/share", params={"link": link}).json()
    head, _, data = answer["picture"].partition(",")
    assert head.startswith("data:image/svg+xml")
    picture = base64.b64decode(data).decode() if "base64" in head else data
    assert "script" not in picture
    assert "path" in picture
