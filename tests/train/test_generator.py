"""What `--compile` does where."""

import torch

from tests.videoar.tiny import make_transformer
from train.flow import FlowMatching
from train.generator import compile_transformers
from train.presets import FlowPreset
from videoar.elementwise import Fused


@torch._dynamo.config.patch(recompile_limit=8)
def test_on_a_gpu_the_chains_are_fused_and_on_a_cpu_the_blocks_compiled():
    for device in ("cuda", "cpu"):
        network, teacher = make_transformer(), make_transformer()
        compile_transformers(FlowMatching(network, FlowPreset(), {}, teacher), torch.device(device))
        for module in (network, teacher):
            assert isinstance(module.elementwise, Fused) == (device == "cuda")
            assert all((block._compiled_call_impl is not None) == (device == "cpu") for block in module.blocks)
        assert torch._dynamo.config.recompile_limit >= 64
