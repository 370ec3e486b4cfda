"""Runs the page as on ZeroGPU, with the real fork wrapper and no GPU: `python -m tests.app.zerogpu_server {fake|tiny}`.

`spaces` would take over CUDA in the torch that it finds, which a machine without a driver cannot do; so torch stays
hidden while `spaces` is imported. Everything else is the real thing.
"""

from __future__ import annotations

import importlib.abc
import sys


class _HideTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is hidden while spaces is imported")


def main(kind: str) -> None:
    hide = _HideTorch()
    sys.meta_path.insert(0, hide)
    import spaces  # noqa: F401

    sys.meta_path.remove(hide)

    from app.device import ON_ZERO_GPU, ZeroGpuDevice
    from app.server import free_port, launch, serve_forever

    assert ON_ZERO_GPU
    if kind == "fake":
        from tests.app.fake import FakeModel, generate

        device = ZeroGpuDevice(lambda: FakeModel(0.2), generate)
    else:
        import torch

        from tests.videoar.tiny import make_model

        torch.set_num_threads(1)  # threads do not survive a fork
        device = ZeroGpuDevice(make_model)
    server = launch(device, port=free_port("127.0.0.1", None))
    print(server.url, flush=True)
    serve_forever(server)


if __name__ == "__main__":
    main(sys.argv[1])
