"""Servers that a benchmark starts, talks to and ends."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_S = 20.0


@contextmanager
def serving(command: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Runs a command that prints the URL it serves at: that URL, without a slash, and the process; ended afterwards."""
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout is not None
        output = server.stdout
        found = next(filter(None, (re.search(r"https?://\S+", line) for line in output)), None)
        if found is None:
            raise ValueError(f"the server did not start; run `{' '.join(command)}` to see why")
        # What it prints later must not fill the pipe.
        threading.Thread(target=lambda: [None for _ in output], daemon=True).start()
        yield found.group(0).rstrip("/."), server
    finally:
        server.terminate()
        try:
            server.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
