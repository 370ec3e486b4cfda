"""What a visitor does and sees, for the browser tests."""

from __future__ import annotations

import numpy as np

_PIXELS = """index => {
  const canvas = document.querySelectorAll('.va-screen canvas')[index];
  return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data];
}"""


def ask(page, prompt: str = "a ball", plan: str = "cube", seed: int | None = 7) -> None:
    """Fills in the form."""
    page.fill("#va-prompt textarea", prompt)
    page.check(f".va-choices input[value={plan}]", force=True)
    drawn = page.get_by_label("New seed each time")
    drawn.set_checked(seed is None)
    if seed is not None:
        page.get_by_label("Seed", exact=True).fill(str(seed))


def generate(page, **asked) -> None:
    """Fills in the form and presses Generate."""
    ask(page, **asked)
    # So that waiting for a phase does not find that of an earlier film.
    page.evaluate("document.querySelectorAll('.va-pane').forEach(pane => (pane.dataset.phase = 'asked'))")
    page.click("#va-go")


def wait_for_phase(page, phase: str) -> None:
    """Waits until the film is "making", "done", "stopped" or "failed"."""
    page.wait_for_selector(f".va-pane[data-phase={phase}]")
    if phase == "done":
        # The list of settings comes last, with the seed; until then Generate would do nothing.
        wait_for_settings(page, page.text_content(".va-fact-seed"))


def wait_for_settings(page, text: str) -> None:
    """Waits until the settings of the finished film say so."""
    page.wait_for_function("text => document.querySelector('#va-settings dl')?.textContent.includes(text)", arg=text)


def wait_for_units(page, count: int) -> None:
    page.wait_for_function(f"parseInt(document.querySelector('.va-fact-units').textContent) >= {count}")


def picture(page, pane: int = 0) -> np.ndarray:
    """uint8 [H, W, 4]: what is on the screen."""
    width, height = page.evaluate(
        "index => { const c = document.querySelectorAll('.va-screen canvas')[index]; return [c.width, c.height]; }",
        pane,
    )
    return np.array(page.evaluate(_PIXELS, pane), np.uint8).reshape(height, width, 4)


def shown_frame(page) -> int:
    """The number of the frame on the screen, from 0."""
    return int(page.input_value(".va-scrub"))


def seek(page, frame: int) -> None:
    page.evaluate(
        "n => { const s = document.querySelector('.va-scrub'); s.value = n; s.dispatchEvent(new Event('input')); }",
        frame,
    )


def status(page) -> str:
    return page.text_content(".va-status")
