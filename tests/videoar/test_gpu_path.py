"""What a GPU needs of the loop, as far as a CPU can tell: nothing is read back, and kernels are interchangeable."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from torch._dynamo.testing import CompileCounter

import videoar.attention
from tests.videoar.tiny import INFO, make_transformer
from videoar.attention import agrees, attend, attention_bias, choose_kernel
from videoar.canvas import Canvas
from videoar.checkpoint import Model, load_model, save_model
from videoar.generate import ClipFinished, Request, UnitDecoded, _Denoiser, generate
from videoar.request import resolve
from videoar.rope import rope_table
from videoar.stopwatch import Stopwatch
from videoar.transformer import VideoARBlock


@pytest.mark.parametrize(
    ("plan", "sampler", "guidance"),
    [("cube:1x2x1", "few_step", 1.0), ("key_detail:2", "few_step", 1.0), ("scale:2", "euler", 3.0)],
)
def test_the_loop_never_waits_for_a_number_from_the_device(tiny_model, plan, sampler, guidance, monkeypatch):
    """The meta device has shapes and no numbers: asking for one fails. In this long a film the window rolls."""
    # Nor does it have autocasting, which sampling does without.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    info = dataclasses.replace(INFO, sampler=sampler, guidance_scale=guidance)
    model = Model(make_transformer().to("meta"), tiny_model.vae, tiny_model.text, info)
    settings = resolve(model, Request("a red ball", plan, seed=1, frames=29, window=4, sink=1))
    slabs = list(settings.slabs())
    assert len(slabs) > 1
    with torch.inference_mode():
        denoiser = _Denoiser(model, settings)
        canvas = Canvas(slabs[0], 16, model.patch, info.level_std(len(slabs[0].scales)), model.device)
        for slab in slabs:
            if slab is not slabs[0]:
                canvas.advance(slab)
            for place, unit in enumerate(slab.units):
                assert list(denoiser.denoise(unit)) == list(range(len(settings.sigmas)))
                canvas.put(unit, denoiser.tokens)
                complete = slab.complete_frames(place)
                denoiser.remember(unit, complete, last=False)
                if complete > canvas.first:
                    canvas.take(range(canvas.first, complete))
    assert denoiser.tokens.device.type == "meta"
    assert len(denoiser.cache.frames) <= 4


def test_a_film_of_one_unit_needs_no_cache(tiny_model):
    request = Request("a red ball", "full", seed=1)
    settings = resolve(tiny_model, request)
    assert _Denoiser(tiny_model, settings).cache._layers[0]["value"].numel() == 0
    events = list(generate(tiny_model, request))
    assert [event.cache_bytes for event in events if isinstance(event, UnitDecoded)] == [0]
    assert isinstance(events[-1], ClipFinished)


def test_rotary_tables_are_made_once_per_unit():
    positions = torch.rand(6, 3)
    first = rope_table(positions, 24)
    assert rope_table(positions.clone(), 24) is first
    assert rope_table(positions + 1, 24) is not first
    with torch.inference_mode():
        inference = rope_table(positions, 24)
    assert torch.equal(inference, first)
    # What inference made cannot be saved for a backward pass.
    assert (torch.ones_like(first, requires_grad=True) * rope_table(positions, 24)).sum().requires_grad


def test_attention_kernels_are_tried_before_they_are_used(monkeypatch):
    cpu, shape = torch.device("cpu"), (1, 64, 2, 24)
    assert agrees("_native_math", shape, cpu, torch.float32)
    assert not agrees("flash", shape, cpu, torch.float32)  # not installed, or not for this device
    monkeypatch.setattr(
        videoar.attention, "dispatch_attention_fn", lambda q, k, v, backend: v if backend == "flash" else q
    )
    assert not agrees("flash", shape, cpu, torch.float32)  # runs, and says something else


def test_the_first_kernel_that_agrees_is_set_on_every_attention_module(monkeypatch):
    transformer = make_transformer()
    assert choose_kernel(transformer, torch.device("cpu"), torch.float32) == "sdpa"
    monkeypatch.setattr(videoar.attention, "agrees", lambda kernel, *_: kernel == "flash")
    assert choose_kernel(transformer, torch.device("cuda"), torch.bfloat16) == "flash"
    backends = [m.processor._attention_backend for m in transformer.modules() if hasattr(m, "processor")]
    assert backends == [AttentionBackendName.FLASH] * 4
    # Its masks are ignored silently, so a masked call must not reach it.
    q, mask = torch.randn(1, 4, 2, 24), torch.eye(4, dtype=torch.bool)
    masked = attend(q, q, q, attention_bias(mask, q.dtype), AttentionBackendName.FLASH)
    torch.testing.assert_close(masked, q)


def test_compiled_blocks_make_the_same_film(tiny_model, tmp_path, monkeypatch):
    save_model(tiny_model, tmp_path / "model")
    plain = load_model(tmp_path / "model", device="cpu")
    graphs = CompileCounter()  # in place of the C++ compiler, which takes a minute
    monkeypatch.setattr(VideoARBlock, "compile", lambda self: torch.nn.Module.compile(self, backend=graphs))
    compiled = load_model(tmp_path / "model", device="cpu", compiled=True)
    request = Request("a red ball", "cube:2x2x2", seed=1)
    films = [list(generate(model, request))[-1].video.astype(int) for model in (plain, compiled)]
    assert abs(films[0] - films[1]).max() <= 1
    made = graphs.frame_count
    assert 0 < made < 12
    list(generate(compiled, Request("a red ball", "frame", seed=1)))  # other lengths, the same graphs
    assert graphs.frame_count == made
    with pytest.raises(ValueError, match="cannot be offloaded"):
        load_model(tmp_path / "model", device="cpu", compiled=True, offload="blocks")


def test_a_stopwatch_adds_up_its_spans(monkeypatch):
    moments = iter([1.0, 1.5, 10.0, 12.0])
    monkeypatch.setattr("videoar.stopwatch.time.perf_counter", lambda: next(moments))
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        watch.start()
        watch.stop()
    assert watch.done()
    assert watch.seconds() == watch.seconds() == 2.5


def test_a_stopwatch_on_a_gpu_reads_its_marks_late(monkeypatch):
    class Mark:
        reached, now = False, 0.0

        def __init__(self, device, enable_timing):
            Mark.now += 250
            self.at = Mark.now

        def record(self, stream):
            pass

        def query(self):
            return Mark.reached

        def synchronize(self):
            Mark.reached = True

        def elapsed_time(self, end):
            return end.at - self.at

    monkeypatch.setattr(torch, "Event", Mark)
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda device: None)
    watch = Stopwatch(torch.device("cuda"))
    watch.start()
    watch.stop()
    assert not watch.done()
    assert watch.seconds() == 0.25
    assert watch.done()
