"""What a visitor does and sees, for the browser tests."""

from __future__ import annotations

import base64
import itertools

import numpy as np

_PIXELS = """index => {
  const canvas = document.querySelectorAll('.va-screen canvas')[index];
  return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data];
}"""


_numbers = itertools.count(1)
# True for the pane that shows the film of a prompt, in a phase and with so many units.
_SHOWS = """([prompt, phase, units]) => {
  const pane = document.querySelector('.va-pane');
  return pane.querySelector('canvas').getAttribute('aria-label') === 'Film: ' + prompt
    && (!phase || pane.dataset.phase === phase)
    && parseInt(pane.querySelector('.va-fact-units').textContent) >= units;
}"""


def ask(page, prompt: str | None = None, plan: str = "cube", seed: int | None = 7) -> None:
    """Fills in the form for one film."""
    page.get_by_role("tab", name="One film").click()
    fill(page, prompt, seed)
    page.check(f".va-choices input[value={plan}]", force=True)


def fill(page, prompt: str | None, seed: int | None) -> None:
    """Prompt and seed. Without a prompt it takes one that no film had before, so that films can be told apart."""
    prompt = f"ball number {next(_numbers)}" if prompt is None else prompt
    page.asked = prompt[:500]
    page.fill("#va-prompt textarea", prompt)
    drawn = page.get_by_label("New seed each time")
    drawn.set_checked(seed is None)
    if seed is not None:
        page.get_by_label("Seed", exact=True).fill(str(seed))


def race(page, prompt: str | None = None, seed: int = 7) -> None:
    """Fills in the form and presses Compare, with the contenders that are there."""
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector(".va-contenders li")
    fill(page, prompt, seed)
    page.click("#va-race")


def wait_for_race(page) -> None:
    """Waits until the comparison that was asked for last is done, figures and files included."""
    page.wait_for_function(
        """prompt => {
          const panes = [...document.querySelectorAll('.va-pane')];
          const mine = pane => pane.querySelector('canvas').getAttribute('aria-label') === 'Film: ' + prompt;
          return panes.length > 1 && panes.every(pane => mine(pane) && pane.dataset.phase === 'done')
            && !document.querySelector('.va-verdict').hidden && document.querySelector('#va-files a[download]');
        }""",
        arg=page.asked,
    )


def generate(page, **asked) -> None:
    """Fills in the form and presses Generate."""
    ask(page, **asked)
    page.click("#va-go")


def wait_for_phase(page, phase: str) -> None:
    """Waits until the film that was asked for last is "making", "done", "stopped" or "failed"."""
    page.wait_for_function(_SHOWS, arg=[page.asked, phase, 0])
    if phase == "done":
        # The list of settings comes last; until then Generate would do nothing.
        wait_for_settings(page, page.asked)


def wait_for_units(page, count: int) -> None:
    """Waits until the film that was asked for last has so many units."""
    page.wait_for_function(_SHOWS, arg=[page.asked, "", count])


def wait_for_settings(page, text: str) -> None:
    """Waits until the settings of the finished film say so."""
    page.wait_for_function("text => document.querySelector('#va-settings dl')?.textContent.includes(text)", arg=text)


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


def wait_for_panes(page, prompt: str) -> None:
    """Waits until every pane shows a whole film of this prompt, wherever it comes from."""
    page.wait_for_function(
        """prompt => {
          const panes = [...document.querySelectorAll('.va-pane')];
          const mine = pane => pane.querySelector('canvas').getAttribute('aria-label') === 'Film: ' + prompt;
          return panes.every(pane => mine(pane) && pane.dataset.phase === 'done');
        }""",
        arg=prompt,
    )


_DROP = """([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name));
  for (const kind of ['dragover', 'drop']) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""


def drop(page, name: str, content: bytes) -> None:
    """Drops a file on the page."""
    page.evaluate(_DROP, [name, base64.b64encode(content).decode()])
