"""The browser playground: `python app.py`, and what a Hugging Face Space runs."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from app.device import ON_ZERO_GPU, make_device  # first: on ZeroGPU it must come before torch
from app.model import load_model, named
from app.server import DEFAULT_PORT, launch, serve_forever
from videoar.folders import find_folder


def main(arguments: list[str] | None = None) -> int:
    """Starts the playground and serves until Ctrl-C. Returns the exit status: 2 for what cannot be used."""
    parser = argparse.ArgumentParser(prog="app.py", description="Make videos unit by unit in the browser.")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1; 0.0.0.0 for the whole network)")
    parser.add_argument("--port", type=int, help=f"port to listen on (default: the first free one from {DEFAULT_PORT})")
    parser.add_argument(
        "--model",
        action="append",
        help="model folder or hub id (default: the built-in model); repeat it to compare several with each other",
    )
    parser.add_argument("--device", help='torch device, such as "cpu" or "cuda" (default: the best there is)')
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on a CPU, else bfloat16)")
    parser.add_argument("--offload", help="for small GPUs: text keeps the text encoder in CPU memory, blocks more")
    parser.add_argument("--decoder", help="a tiny decoder (taew2_1) that makes all pixels, for speed")
    parser.add_argument("--previewer", help="a tiny decoder that makes the previews")
    options = parser.parse_args(arguments)
    chosen = {name: getattr(options, name) for name in ("dtype", "offload", "decoder", "previewer")}
    chosen = {name: value for name, value in chosen.items() if value is not None}

    # On ZeroGPU there is no GPU to be found yet: the weights are put there all the same, and nothing can run.
    where = options.device or ("cuda" if ON_ZERO_GPU else None)
    loads = {
        name: partial(load_model, path, where, warm_up=not ON_ZERO_GPU, **chosen)
        for name, path in named(options.model or [None]).items()
    }
    device = make_device(loads)
    try:
        for path in options.model or [None]:
            find_folder(path)  # said before there is a page that could not make films
        server = launch(device, options.host, options.port)
    except ValueError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    if options.port is None and server.port > DEFAULT_PORT:
        print(f"Port {DEFAULT_PORT} is in use, so this is the next free one.")
    print(f"VideoAR is at {server.url} (Ctrl-C ends it).", flush=True)
    if not serve_forever(server):
        print("app.py: without a model there is nothing to serve.", file=sys.stderr)
        return 2
    print("Stopped.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
