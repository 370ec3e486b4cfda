"""The keyboard reaches everything, and shows where it is."""

from __future__ import annotations

from .steps import generate, race, wait_for_phase, wait_for_race

# Lists what can be operated, one name for each control and one for a group of radio buttons, of which Tab visits one.
# From then on takes down where the keyboard is, and where no outline shows it: of the control or of what is around it.
_WATCH = """() => {
  const all = document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]');
  const isThere = control => control.checkVisibility({ visibilityProperty: true });
  const controls = [...all].filter(control => control.tabIndex >= 0 && !control.disabled && isThere(control));
  const said = control => control.getAttribute('aria-label') || control.labels?.[0]?.textContent || control.textContent;
  const nameOf = control => control.type === 'radio' ? control.name
    : [control.tagName, control.id || control.className, said(control).trim(), controls.indexOf(control)].join(' ');
  const isOutlined = place => {
    const { outlineStyle, outlineWidth } = getComputedStyle(place);
    return outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1;
  };
  window.walk = { missing: new Set(controls.map(nameOf)), unseen: new Set() };
  document.addEventListener('focusin', ({ target }) => {
    if (!controls.includes(target)) return;
    walk.missing.delete(nameOf(target));
    const places = [target, target.closest('label'), target.closest('.block')].filter(Boolean);
    if (!places.some(isOutlined)) walk.unseen.add(nameOf(target));
  });
  return walk.missing.size;
}"""


def tab_through(page) -> tuple[list[str], list[str]]:
    """Goes round the page with Tab: the controls that it did not reach, and those where its place was not seen."""
    count = page.evaluate(_WATCH)
    assert count > 40
    for _ in range(count + 6):  # round once, whatever has the focus now
        page.keyboard.press("Tab")
    missing, unseen = page.evaluate("[[...walk.missing], [...walk.unseen]]")
    return missing, unseen


def test_tab_reaches_every_control_and_shows_where_it_is(open_page, server):
    page = open_page(server, viewport={"width": 1280, "height": 720})
    page.click(".va-more summary")
    page.click("#va-from > button")
    page.click("#va-guide > button")
    generate(page, seed=7)
    wait_for_phase(page, "done")
    page.wait_for_selector("#va-film video")
    assert tab_through(page) == ([], [])
    race(page)
    wait_for_race(page)
    assert tab_through(page) == ([], [])
