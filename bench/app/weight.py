"""What the page weighs without Gradio, and what axe-core finds wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from app.player import LOGO, head
from bench.page import chromium
from bench.serving import ROOT, serving

from .scripted import ScriptedModel, command

_OURS = ("html_template", "js_on_load", "props", "value")  # of a component of HTML, which is all we add to Gradio's
_HOW = "/gradio_api/how-it-works"
_TIMEOUT_MS = 120_000
_LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 780}, "has_touch": True, "is_mobile": True},
}


def measure() -> dict[str, Any]:
    """Bytes of our own, and axe-core's violations by look and state; those are None without browser or axe-core."""
    with serving(command(ScriptedModel(unit_s=0.02))) as (url, _):
        return weigh(url) | {"axe_violations": _violations(url)}


def weigh(url: str) -> dict[str, Any]:
    """Bytes as they are sent, which is uncompressed: our share of the page, and the page "How it works", all ours."""
    config = httpx.get(f"{url}/config", timeout=60).raise_for_status().json()
    parts = {"head": len(head().encode()), "favicon": LOGO.stat().st_size}
    for component in config["components"]:
        if component["type"] == "html":
            ours = {name: component["props"].get(name) for name in _OURS}
            name = component["props"].get("elem_id") or "texts"
            parts[name] = parts.get(name, 0) + len(json.dumps(ours))
    page, how = (len(httpx.get(url + path, timeout=60).raise_for_status().content) for path in ("/", _HOW))
    return {
        "own_bytes": sum(parts.values()) + how,
        "own_bytes_of_page": sum(parts.values()),
        "own_bytes_of_how_it_works": how,
        "parts": parts,
        "page_with_gradios_bytes": page,
    }


def _violations(url: str) -> dict[str, Any] | None:
    path = Path(os.environ.get("AXE_CORE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
    if not path.is_file():
        return None
    axe, found = path.read_text(encoding="utf-8"), {}
    with chromium() as browser:
        if browser is None:
            return None
        for look, options in _LOOKS.items():
            context = browser.new_context(**options)
            page = context.new_page()
            page.set_default_timeout(_TIMEOUT_MS)
            page.goto(f"{url}/?{urlencode([('prompt', 'a scripted film')] + [('units', 'frame:1')] * 2)}")
            page.wait_for_function("document.querySelectorAll('.va-pane').length === 2")
            found[f"{look}, before a run"] = _run(page, axe)
            page.click("#va-race")
            page.wait_for_selector("#va-films a[download]")
            found[f"{look}, after a comparison"] = _run(page, axe)
            page.goto(url + _HOW)
            page.wait_for_selector("svg polygon, svg rect, canvas")
            found[f"{look}, how it works"] = _run(page, axe)
            context.close()
    names = sorted({name for names in found.values() for name in names})
    return {"count": sum(map(len, found.values())), "states": list(found), "rules": names}


def _run(page: Any, axe: str) -> list[str]:
    """The rule of every violating element."""
    page.evaluate(axe)
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [violation["id"] for violation in result["violations"] for _ in violation["nodes"]]
