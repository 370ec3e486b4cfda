"""A real browser for the benchmarks, and how long the page takes until somebody can use it there."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TEXT = "a big yellow star spins"
_TIMEOUT_MS = 60_000
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ["--no-sandbox", "--disable-gpu"]


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A running headless Chromium ($CHROMIUM, or on the PATH); None where it or the playwright package is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield None
        return
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        yield None
        return
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=[*_FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()


def interactive_seconds(url: str, runs: int) -> list[float]:
    """Seconds from the navigation until the prompt can be typed in and Generate can be clicked, with nothing cached.

    Empty without a browser.
    """
    seconds = []
    with chromium() as browser:
        for _ in range(runs if browser else 0):
            page = browser.new_context().new_page()
            page.set_default_timeout(_TIMEOUT_MS)
            begin = time.perf_counter()
            page.goto(url, wait_until="commit")
            prompt = page.locator("#va-prompt textarea")
            prompt.fill(_TEXT)
            page.locator("#va-go").click(trial=True)  # all of a click's checks without the click
            seconds.append(time.perf_counter() - begin)
            assert prompt.input_value() == _TEXT, "the field was there before the page listened to it"
            page.context.close()
    return seconds
