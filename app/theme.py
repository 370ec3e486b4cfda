"""The look of the page: calm greys, so that colour is left to the units. No web fonts: the page needs no network."""

from __future__ import annotations

import gradio as gr

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Ubuntu", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

# Each name: light, dark.
_COLOURS = {
    "body_background_fill": ("#f7f7f5", "#0d0e11"),
    "body_text_color": ("#17191e", "#f1f2f4"),
    "body_text_color_subdued": ("#585d68", "#a6abb6"),
    "background_fill_primary": ("#ffffff", "#15171b"),
    "background_fill_secondary": ("#f1f1ee", "#1c1e24"),
    "border_color_primary": ("#e1e1dc", "#2b2e36"),
    "border_color_accent": ("#3b4bd8", "#98a4ff"),
    "color_accent_soft": ("#ecedfb", "#23263a"),
    "block_background_fill": ("#ffffff", "#15171b"),
    "block_border_color": ("#e1e1dc", "#2b2e36"),
    "block_label_background_fill": ("#ffffff", "#15171b"),
    "block_label_text_color": ("#585d68", "#a6abb6"),
    "block_title_text_color": ("#17191e", "#f1f2f4"),
    "block_info_text_color": ("#585d68", "#a6abb6"),
    "input_background_fill": ("#ffffff", "#15171b"),
    "input_border_color": ("#d3d3cd", "#363a44"),
    "input_border_color_focus": ("#3b4bd8", "#98a4ff"),
    "input_placeholder_color": ("#6a6f7a", "#9096a2"),
    "button_primary_background_fill": ("#17191e", "#f1f2f4"),
    "button_primary_background_fill_hover": ("#31353f", "#ffffff"),
    "button_primary_border_color": ("#17191e", "#f1f2f4"),
    "button_primary_border_color_hover": ("#31353f", "#ffffff"),
    "button_primary_text_color": ("#ffffff", "#111318"),
    "button_secondary_background_fill": ("#ffffff", "#1c1e24"),
    "button_secondary_background_fill_hover": ("#f1f1ee", "#262932"),
    "button_secondary_border_color": ("#d3d3cd", "#363a44"),
    "button_secondary_text_color": ("#17191e", "#f1f2f4"),
    "checkbox_background_color_selected": ("#3b4bd8", "#98a4ff"),
    "checkbox_border_color_selected": ("#3b4bd8", "#98a4ff"),
    "slider_color": ("#3b4bd8", "#98a4ff"),
    "link_text_color": ("#3341bd", "#aab4ff"),
    "accordion_text_color": ("#17191e", "#f1f2f4"),
}


def theme() -> gr.themes.Base:
    """The Gradio theme of the page."""
    base = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="zinc",
        font=SANS,
        font_mono=MONO,
        radius_size="md",
        spacing_size="md",
    )
    colours: dict[str, str] = {}
    for name, (light, dark) in _COLOURS.items():
        colours |= {name: light, f"{name}_dark": dark}
    sizes = {
        "block_radius": "12px",
        "container_radius": "12px",
        "button_large_radius": "10px",
        "input_radius": "8px",
        "button_border_width": "1px",
    }
    return base.set(
        **colours, **sizes, block_shadow="none", button_large_text_weight="600", block_title_text_weight="600"
    )


def css_variables() -> str:
    """The colours as style rules, for pages beside Gradio's: light ones, and those of a page with the class `dark`."""
    rules = []
    for selector, index in ((":root", 0), (".dark", 1)):
        values = (f"--{name.replace('_', '-')}: {colours[index]};" for name, colours in _COLOURS.items())
        rules.append(f"{selector} {{ {' '.join(values)} --font: {', '.join(map(_quoted, SANS))}; }}")
    return "\n".join(rules)


def _quoted(family: str) -> str:
    return f'"{family}"' if " " in family else family
