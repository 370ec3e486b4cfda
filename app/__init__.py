"""The browser playground: a Gradio page with a canvas player that shows every prediction unit as soon as it exists."""
