"""What a GPU needs of the loop, as far as a CPU can tell: nothing is read back, and kernels are interchangeable."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest
import torch

from tests.videoar.tiny import INFO, make_transformer
from videoar.canvas import Canvas
from videoar.checkpoint import Model
from videoar.generate import ClipFinished, Request, UnitDecoded, _Denoiser, generate
from videoar.request import resolve
from videoar.rope import rope_table
from videoar.stopwatch import Stopwatch


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
