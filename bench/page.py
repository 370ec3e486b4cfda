"""How long the page takes until somebody can use it, measured in a real browser."""

from __future__ import annotations

import os
import shutil
import time

_TEXT = "a big yellow star spins"
_TIMEOUT_MS = 60_000
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def interactive_seconds(url: str, runs: int) -> list[float]:
    """Seconds from the navigation until the prompt can be typed in and Generate can be clicked, with nothing cached.

    Empty where the playwright package or Chromium ($CHROMIUM, or on the PATH) is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return []
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        return []
    seconds = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(runs):
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
        browser.close()
    return seconds
