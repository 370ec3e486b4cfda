"""Chromium, axe-core and pages; without them the browser tests are skipped, and say what is missing.

Every run leaves its pictures in tests/artifacts, those of failed tests as `failed-*.png`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ARTIFACTS = ROOT / "tests" / "artifacts"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Generous, because the machine may be busy; nothing waits that long unless it fails.
TIMEOUT_MS = 60_000
REPORT: pytest.StashKey = pytest.StashKey()  # how a test went, for what comes after it
PHONE = {"width": 360, "height": 780}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            # A browser beside a server on two busy cores now and then misses the moment that a test looks at.
            item.add_marker(pytest.mark.flaky(reruns=2))
    # Last: Playwright keeps an event loop running, beside which other tests could not start their own.
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.stash[REPORT] = report
    return report


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium: $CHROMIUM, or the one on the PATH."""
    playwright = pytest.importorskip("playwright.sync_api", reason="browser tests need the playwright package")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if not found:
        pytest.skip("browser tests need Chromium: apt-get install chromium, or set CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, request) -> Iterator[Callable]:
    """Opens a page of a server in a context of its own; fails the test if the page logs an error."""
    contexts, errors = [], []

    def open_(server, **options):
        page = _open(chromium, server, errors, **options)
        contexts.append(page.context)
        return page

    yield open_
    report = request.node.stash.get(REPORT, None)
    for number, context in enumerate(contexts):
        if report and report.failed and context.pages:
            ARTIFACTS.mkdir(exist_ok=True)
            context.pages[0].screenshot(path=ARTIFACTS / f"failed-{request.node.name[:80]}-{number}.png")
        context.close()
    assert not errors


@pytest.fixture(scope="session")
def shared(chromium, server) -> Iterator[tuple]:
    errors: list[str] = []
    page = _open(chromium, server, errors)
    yield page, errors
    page.context.close()


@pytest.fixture
def page(shared) -> Iterator:
    """One page of the fast server for all tests that begin with a new film: loading a page is what takes time here."""
    page, errors = shared
    yield page
    page.unroute_all()
    page.select_option(".va-speed", "1")
    found, errors[:] = list(errors), []
    assert not found


def _is_fault(message) -> bool:
    """Whether a line of the console is an error of the page, and not Chromium's note that a test took it offline."""
    return message.type == "error" and "net::ERR_INTERNET_DISCONNECTED" not in message.text


def _open(chromium, server, errors: list[str], **options):
    context = chromium.new_context(**{"viewport": {"width": 1360, "height": 900}} | options)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if _is_fault(message) else None)
    page.goto(server.url)
    page.wait_for_selector(".va-choices label")
    page.wait_for_selector(".va-screen")
    return page


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core: $AXE_CORE, or node_modules of the repository."""
    path = Path(os.environ.get("AXE_CORE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
    if not path.is_file():
        pytest.skip("accessibility tests need axe-core: npm install --no-save axe-core, or set AXE_CORE to axe.min.js")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def shot() -> Callable:
    """Saves a picture of a page to look at."""
    ARTIFACTS.mkdir(exist_ok=True)

    def save(page, name: str) -> None:
        page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)

    return save
