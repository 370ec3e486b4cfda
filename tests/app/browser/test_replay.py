"""A run saved from the page, and shown again on a page whose model failed to load."""

from __future__ import annotations

import numpy as np

from app.device import EngineDevice
from app.server import free_port, launch

from .steps import picture, race, seek, wait_for_race


def test_a_saved_run_is_shown_again_without_a_model(open_page, server, tmp_path):
    page = open_page(server)
    race(page, "a ball to be kept")
    wait_for_race(page)
    with page.expect_download() as saved:
        page.click(".va-save")
    path = tmp_path / saved.value.suggested_filename
    saved.value.save_as(path)
    assert path.name == "videoar-run.videoar"
    seek(page, 9)
    pictures = [picture(page, pane) for pane in (0, 1)]
    figures = page.locator(".va-verdict tbody").text_content()

    def load():
        raise ValueError("there is no model")

    bare = launch(EngineDevice(load), port=free_port("127.0.0.1", None))
    try:
        page = open_page(bare)
        page.asked = "a ball to be kept"
        page.set_input_files("#va-file input[type=file]", path)
        wait_for_race(page)
        seek(page, 9)
        assert all(np.array_equal(picture(page, pane), once) for pane, once in enumerate(pictures))
        assert page.locator(".va-verdict tbody").text_content() == figures
        # What it takes to make it again is in the form.
        assert page.input_value("#va-prompt textarea") == "a ball to be kept"
        assert page.input_value("#va-seed input") == "7"
        assert page.locator(".va-steps-of").evaluate_all("all => all.map(input => input.value)") == ["4", "4"]
    finally:
        bare.close()
