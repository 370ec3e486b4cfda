"""The benchmark of the page measures the real one."""

from __future__ import annotations

import multiprocessing
import sys

from bench.page import interactive_seconds


def test_without_playwright_or_chromium_there_is_no_figure(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert interactive_seconds("http://127.0.0.1:1", 1) == []
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    assert interactive_seconds("http://127.0.0.1:1", 1) == []


def test_the_page_can_be_used_at_once(chromium, server):
    del chromium  # named so that the test is skipped without one

    # Playwright allows one driver in a thread, and this one has the tests'.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds = pool.apply(interactive_seconds, (server.url, 1))
    assert len(seconds) == 1
    assert 0 < seconds[0] < 60  # a second or two on an idle machine
