"""Starts the page: finds a port, says where it is, and ends cleanly on Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import dataclass

import gradio as gr

from app.device import Device
from app.explain import explain_routes
from app.export import export_routes
from app.hub import Hub
from app.layout import build_app
from app.player import LOGO, head
from app.routes import job_routes
from app.runs import Runs
from app.share import share_routes
from app.theme import theme

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7860
_PORTS_TO_TRY = 100


@dataclass
class Server:
    """A running page."""

    url: str
    port: int
    page: gr.Blocks
    hub: Hub
    device: Device

    def close(self) -> None:
        """Ends every film, then the server."""
        self.hub.close()
        self.device.close()
        # A page that is still open holds a connection, for which the server would wait without an end.
        self.page.server.config.timeout_graceful_shutdown = 1
        self.page.close(verbose=False)


def launch(device: Device, host: str | None = None, port: int | None = None, hub: Hub | None = None) -> Server:
    """Starts serving and returns. port: exactly this one (ValueError if it is taken); None takes the first free one.

    Without a host and a port Gradio's own variables count (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT), which Spaces set.
    """
    hub = hub or Hub()
    host = host or os.environ.get("GRADIO_SERVER_NAME") or DEFAULT_HOST
    if port is None and os.environ.get("GRADIO_SERVER_PORT"):
        port = int(os.environ["GRADIO_SERVER_PORT"])
    port = free_port(host, port)
    device.start()
    runs = Runs(device, hub)
    page = build_app(runs, device.names)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        # Server-side rendering breaks WebSockets and answers unknown routes with a page.
        ssr_mode=False,
        max_file_size="32mb",  # saved runs
        footer_links=["api"],
        run_history=False,
        theme=theme(),
        head=head(),
        favicon_path=LOGO,
        # Before Gradio's own routes, of which the last one catches everything.
        app_kwargs={
            "routes": [*job_routes(hub, runs), *export_routes(hub), *explain_routes(device), *share_routes(host)]
        },
    )
    return Server(url, port, page, hub, device)


def free_port(host: str, port: int | None) -> int:
    """The port to use. Raises ValueError, saying what to do, if the given one (or every usual one) is taken."""
    if port is not None:
        if not 1 <= port <= 65535:
            raise ValueError(f"A port is a number from 1 to 65535, not {port}.")
        if not _is_free(host, port):
            raise ValueError(f"Port {port} on {host} is in use. Choose another one with --port, or leave --port out.")
        return port
    for candidate in range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TO_TRY):
        if _is_free(host, candidate):
            return candidate
    raise ValueError(f"Ports {DEFAULT_PORT} to {candidate} on {host} are in use. Choose a free one with --port.")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def serve_forever(server: Server) -> bool:
    """Blocks until Ctrl-C or SIGTERM, then ends everything; a second Ctrl-C does not wait for that.

    Also ends, and returns false, if the model does not load: nobody watches a page that cannot make films, while a
    process that ends is seen, on a Space too.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    # A list and no threading.Event: a second signal inside Event.set() would wait for the first one for ever.
    received: list[int] = []
    for number in signals:
        signal.signal(number, lambda number, _frame: received.append(number))
    while not received and not (failed := _has_failed(server.device)):
        time.sleep(0.2)
    for number in signals:
        signal.signal(number, signal.SIG_DFL)
    server.close()
    return not failed


def _has_failed(device: Device) -> bool:
    try:
        device.model(0)
    except TimeoutError:
        return False
    except Exception:  # the device has logged it
        return True
    return False
