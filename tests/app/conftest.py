"""A running page around the fake model, and ways to make it slow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from app.server import Server, free_port, launch

from .fake import make_device


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[[float], Server]]:
    """Starts a page whose units take so many seconds; one server for each speed."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    servers: dict[float, Server] = {}

    def server(unit_seconds: float) -> Server:
        if unit_seconds not in servers:
            servers[unit_seconds] = launch(make_device(unit_seconds), port=free_port("127.0.0.1", None))
        return servers[unit_seconds]

    yield server
    for running in servers.values():
        running.close()


@pytest.fixture(scope="session")
def server(start) -> Server:
    """A page whose units take no time."""
    return start(0.0)


@pytest.fixture(scope="session")
def slow_server(start) -> Server:
    """A page whose units take three quarters of a second."""
    return start(0.75)
