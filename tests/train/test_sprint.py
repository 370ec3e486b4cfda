"""A sprint trains every stage by the clock, on whatever device, and what it leaves behind is a model."""

import contextlib
import copy
import dataclasses
import fcntl
import itertools
import json
import shutil
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils._pytree import tree_map

from tests.train.elsewhere import ELSEWHERE, Elsewhere, ElsewhereTensor, allowed
from train import device, flow, run, sprint, sprint_command, text, vae
from train.learner import Learner
from train.pieces import Pieces, join
from train.presets import SMOKE, SMOKE_WAN
from train.render import CAPTIONS, Workers, kind_of, make_shard, read_shard, shard_path, write_shard
from train.resident import ResidentClips, ResidentFeed
from train.run import Run
from train.sprint import STAGES, Sprint, check_stage
from train.sprint_command import fitted, join_model, run_stages
from videoar.checkpoint import load_model
from videoar.generate import ClipFinished, Request, generate
from videoar.plan import Grid

CPU = torch.device("cpu")
CLIPS = 16
WHOLE_FRAMES = tuple(share for share in SMOKE.base.plans if share.crop is None)


class Clock:
    """Every look at it is a quarter of a second later."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.25
        return self.now


@pytest.fixture(scope="module")
def parts():
    return load_model(None, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def pool(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    write_shard(folder, 0, make_shard(0, SMOKE, parts, seed=0, clips=CLIPS), kind_of(SMOKE, parts, 0))
    return folder


@pytest.fixture
def make(parts, pool, tmp_path):
    def made(on=CPU, **options) -> Sprint:
        preset = fitted(dataclasses.replace(SMOKE, pool_clips=CLIPS), parts)
        pieces = Pieces(tmp_path / "out", {"preset": "smoke", "seed": 0})
        options = {"fused": False, "clock": Clock(), "say": said.append, "pool": pool} | options
        own = copy.deepcopy(parts)  # its text encoder moves to the device
        result = Sprint(preset, own, on, kind=kind_of(SMOKE, parts, 0), pieces=pieces, **options)
        pieces.info["transformer"] = dict(result.workshop.new_transformer().config)
        return result

    said: list[str] = []
    made.said = said
    return made


def some_seconds(**seconds):
    return dict.fromkeys(STAGES, 3.0) | seconds


def test_every_stage_trains_and_the_pieces_are_a_model(make, tmp_path):
    made = make()
    run_stages(made, some_seconds(), None, 0.0, lambda: 0.0)
    assert list(made.weights) == list(STAGES)
    assert {row["stage"] for row in made.rows} <= set(STAGES)
    for earlier, later in itertools.pairwise(STAGES):
        changed = [not torch.equal(made.weights[earlier][k], v) for k, v in made.weights[later].items()]
        assert any(changed), f"{later} changed nothing"
    out = join_model(tmp_path / "out", tmp_path / "model")
    model = load_model(out, device="cpu", dtype=torch.float32)
    assert (model.info.sampler, model.info.steps, model.info.guidance_scale) == ("few_step", 4, 1.0)
    assert model.info.provenance["stage"] == "dmd"
    for name, value in model.transformer.state_dict().items():
        assert torch.equal(value, made.weights["dmd"][name].bfloat16().half().float()), name
    *_, last = generate(model, Request("a red ball rises", seed=1, steps=1), previews=False)
    assert isinstance(last, ClipFinished)
    assert last.video.shape == (9, 32, 32, 3)
    weights, manifest = join(tmp_path / "out", "causal")  # what can be trained on is there as well
    assert manifest["newest"] == "dmd"
    assert torch.equal(weights["proj_out.weight"], made.weights["causal"]["proj_out.weight"].bfloat16())


def test_the_command_renders_trains_joins_and_goes_on(tmp_path):
    """From an empty folder, with a worker of its own, as docs/gpu.md has it but smaller."""
    command = [sys.executable, "-m", "train", "sprint"]
    shared = ["--preset", "smoke", "--pool", str(tmp_path / "pool"), "--clips", "16", "--threads", "1", "--eager"]
    seconds = [word for stage in STAGES for word in (f"--{stage}", "0.2")]
    out = ["--workers", "1", "--out", str(tmp_path / "out")]
    ran = subprocess.run([*command, *shared, *seconds, *out], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    joined = subprocess.run([*command, "--join", str(tmp_path / "out"), "--out", str(tmp_path / "model")])
    assert joined.returncode == 0
    again = ["--workers", "0", "--init", str(tmp_path / "model"), "--out", str(tmp_path / "again")]
    again += ["--base", "0", "--causal", "0.2", "--guidance", "0", "--dmd", "0"]
    ran = subprocess.run([*command, *shared, *again], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    _, manifest = join(tmp_path / "again")
    assert manifest["newest"] == "causal"
    assert manifest["started_from"]["stage"] == "dmd"


def test_the_check_times_every_plan_and_makes_a_film(pool, parts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sprint_command, "CHECK_STEPS", 4)
    monkeypatch.setattr(sprint_command, "_elapsed", lambda: 0.0)
    options = ["--preset", "smoke", "--check", "--eager", "--workers", "0", "--clips", str(CLIPS)]
    assert sprint_command.main([*options, "--pool", str(pool), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert all(f"{stage}: all finite" in said for stage in STAGES)
    assert "join to a model that makes films of 9 frames" in said


# Runs where the packages of the page are not installed, as on a rented machine.
BARE = """
import sys
for name in ("gradio", "gradio_client", "av", "moviepy", "spaces", "segno", "playwright", "fastapi", "pandas"):
    sys.modules[name] = None
from train import sprint_command
from train.__main__ import main
sprint_command.CHECK_STEPS = 2
assert main(["sprint", *sys.argv[1:]]) == 0
main(["render", "--help"])
"""


def test_a_sprint_needs_no_package_of_the_page(pool, tmp_path):
    options = ["--preset", "smoke", "--check", "--eager", "--workers", "0", "--clips", str(CLIPS), "--threads", "1"]
    options += ["--pool", str(pool), "--out", str(tmp_path / "out")]
    ran = subprocess.run([sys.executable, "-c", BARE, *options], capture_output=True, text=True)
    assert "makes films" in ran.stdout, ran.stderr
    assert "usage: python -m train render" in ran.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_on_a_device_waits_for_nothing_and_mixes_nothing(make, stage, monkeypatch):
    """Two steps on the pretended device, and the same numbers as on the CPU."""
    monkeypatch.setattr(device, "computes_in_bfloat16", lambda: False)
    monkeypatch.setattr(flow, "new_generator", lambda device, seed: torch.Generator().manual_seed(seed))

    def losses(on):
        made = make(on)
        made.weights["base"] = start
        made.take_in(most=1)
        preset = getattr(made.preset, stage)
        learner = Learner(made.method(stage), preset, device.OneDevice(on))
        feed = ResidentFeed(made.clips, made.workshop.grid(), preset, 0, learner.method.needs_latents)
        watch, found = sprint.Watch(on), []
        waiting = Elsewhere.waiting_allowed
        Elsewhere.waiting_allowed = False
        try:
            for step in range(6):
                draw = feed.draw(step, step / 6)
                grids.add(draw.plan.grid)
                found.append(learner.step(step, [draw], 1e-3, watch))
        finally:
            Elsewhere.waiting_allowed = waiting
        assert (on == CPU) != any(isinstance(p, ElsewhereTensor) for p in learner.method.trained["model"].parameters())
        with allowed():
            watch.check(6)
            return [{name: value.item() for name, value in columns.items()} for columns in found]

    grids = set()
    start = make().workshop.new_transformer().state_dict()
    here = losses(CPU)
    with Elsewhere(), allowed():
        there = losses(ELSEWHERE)
    for one, other in zip(here, there, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
    assert stage != "base" or grids == {Grid(1, 2, 2), Grid(1, 1, 1), Grid(3, 2, 2)}


def here(tensor):
    return tensor.inner if isinstance(tensor, ElsewhereTensor) else tensor


@pytest.mark.parametrize("stage", ["text", "vae", "vae of Wan's layout"])
def test_the_other_stages_mix_nothing_either(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "computes_in_bfloat16", lambda: False)
    monkeypatch.setattr(vae, "new_accelerator", lambda: device.OneDevice(ELSEWHERE))
    monkeypatch.setattr(run, "save_file", lambda tensors, path: save_file(tree_map(here, tensors), path))
    with Elsewhere(), allowed():
        for steps in (2, 4):  # the second time from a checkpoint
            if stage == "text":
                tokenizer = text.make_tokenizer(0)
                encoder = text.make_encoder(SMOKE.text, len(tokenizer))
                preset = dataclasses.replace(SMOKE.text, steps=steps)
                text.train_text(Run(tmp_path), tokenizer, encoder, preset, save_every=2, device=ELSEWHERE)
                continue
            base = SMOKE if stage == "vae" else SMOKE_WAN
            preset = dataclasses.replace(base, codec=dataclasses.replace(base.codec, steps=steps))
            codec = vae.new_wan_vae(preset.codec) if base is SMOKE_WAN else vae.TinyCodec(z_dim=4, widths=(8, 8, 8, 8))
            vae.train_codec(Run(tmp_path), codec, preset, save_every=2)
            assert all(isinstance(p, ElsewhereTensor) for p in codec.parameters())
    assert Run(tmp_path).checkpoints()[-1].name == "step-00000004"


def test_the_pretended_device_refuses_what_a_gpu_would():
    """Or the tests above could not fail."""
    linear = nn.Linear(2, 2)
    with Elsewhere():
        x = torch.randn(3, 2, device="cuda")
        with pytest.raises(AssertionError, match="mixes devices"):
            linear(x)
        with allowed():
            linear.to("cuda")
        y = linear(x).mean()
        brings = (lambda: torch.ones(2).to("cuda"), lambda: x[:, torch.tensor([1, 0])])
        asks = (y.item, x.tolist, x.cpu, lambda: bool(y > 0), lambda: x.to("cpu"), lambda: x[x > 0], x.unique)
        for wait in (*asks, *brings):
            with pytest.raises(AssertionError, match="waits for the device"):
                wait()


def test_the_clips_of_a_step_are_those_of_the_pool(make, parts):
    made = make()
    made.take_in(most=1)
    shard = read_shard(made.pool, 0, made.kind)
    preset = dataclasses.replace(made.preset.base, text_drop=0.0, batch=8, plans=WHOLE_FRAMES)
    feed = ResidentFeed(made.clips, made.workshop.grid(), preset, seed=3)
    lengths = set()
    for step in range(6):
        draw = feed.draw(step, 0.0)
        lengths.add(draw.plan.grid.T)
        assert len(draw.latents_BCFHW) == 8 * 3 // draw.plan.grid.T
        for z, path, words in zip(draw.latents_BCFHW, draw.paths_BF24, draw.text_BLE, strict=True):
            F = z.shape[1]
            windows = [(i, f) for i in range(CLIPS) for f in range(4 - F)]
            same = [(i, f) for i, f in windows if torch.equal(shard.latents_BCFhw[i, :, f : f + F].float(), z)]
            assert any(torch.equal(shard.paths_BF24[i, f : f + F], path) for i, f in same)
            ids = shard.tokens_BKL[[i for i, _ in same]].flatten(0, 1).long()
            known = parts.text.embed(ids, (ids != 0).long()).bfloat16().float()
            assert any(torch.equal(one, words) for one in known)
    assert lengths == {1, 3}


def test_dropped_captions_are_the_empty_prompt(make):
    made = make()
    made.take_in(most=1)
    preset = dataclasses.replace(made.preset.base, text_drop=1.0)
    draw = ResidentFeed(made.clips, made.workshop.grid(), preset, seed=0).draw(0, 0.0)
    assert torch.equal(draw.text_BLE, draw.no_text_1LE.expand_as(draw.text_BLE))


class Faulty:
    """A stage's method whose loss is not finite in some steps, counted over all its beginnings."""

    def __init__(self, method, bad, count):
        self.method, self.bad, self.count = method, bad, count

    def __getattr__(self, name):
        return getattr(self.method, name)

    def losses(self, draw):
        self.count.append(1)
        for name, loss, columns in self.method.losses(draw):
            yield name, loss * float("nan") if self.bad(len(self.count)) else loss, columns


def faulty(made, monkeypatch, bad):
    count: list[int] = []
    real = made.method
    monkeypatch.setattr(made, "method", lambda stage: Faulty(real(stage), bad, count))
    return count


def finite(weights):
    return all(value.isfinite().all() for value in weights.values())


def test_what_is_not_finite_is_never_saved_and_the_stage_goes_on(make, monkeypatch, tmp_path):
    monkeypatch.setattr(sprint, "ROW_EVERY", 1.0)
    monkeypatch.setattr(sprint, "SAVE_EVERY", 2.0)
    made = make()
    count = faulty(made, monkeypatch, lambda step: step == 9)
    made.wait_for_clips(1)
    made.run("base", 12.0)
    assert len(count) > 12
    assert sum("back to the last good weights" in line for line in make.said) == 1
    assert finite(made.weights["base"])
    assert finite(join(tmp_path / "out")[0])


def test_a_stage_that_is_never_finite_leaves_the_weights_before_it(make, monkeypatch):
    made = make()
    made.weights["init"] = made.workshop.new_transformer().state_dict()
    faulty(made, monkeypatch, lambda step: True)
    made.wait_for_clips(1)
    made.run("base", 40.0)
    assert list(made.weights) == ["init"]
    assert "given up" in make.said[-1]


def test_teachers_and_real_scorers_are_unguided_and_finished(make):
    """Also where a stage begins again from weights of its own, and where there was no base."""
    made = make()
    first = made.workshop.new_transformer().state_dict()
    made.weights = {name: {k: v + i for k, v in first.items()} for i, name in enumerate(("init", "causal", "guidance"))}

    def bias(network):
        return network.proj_out.bias[0].item() - first["proj_out.bias"][0].item()

    guidance = made.method("guidance")
    assert bias(guidance.frozen[0]) == pytest.approx(1)  # causal
    assert bias(guidance.trained["model"]) == pytest.approx(2)  # what it had reached
    dmd = made.method("dmd")
    assert bias(dmd.real) == pytest.approx(1)
    assert bias(dmd.trained["model"]) == pytest.approx(2)
    made.weights = {"base": made.weights["init"], "guidance": made.weights["guidance"]}
    assert bias(made.method("dmd").real) == pytest.approx(0)
    assert not any(p.requires_grad for p in [*guidance.frozen[0].parameters(), *dmd.real.parameters()])


def test_stages_share_the_seconds_that_are_left():
    ran, waited = {}, [0.0] * 5

    class Recorder:
        say, preset = staticmethod(lambda line: None), SMOKE

        def wait_for_clips(self, enough, patience, most):
            assert patience < most
            clock[0] += waited.pop()

        def run(self, stage, seconds):
            ran[stage] = seconds
            clock[0] += seconds + 10  # each takes ten seconds longer than it was given

    clock = [30.0]
    run_stages(Recorder(), some_seconds(base=100, causal=100, guidance=0, dmd=100), 300.0, 20.0, lambda: clock[0])
    assert list(ran) == ["base", "causal", "dmd"]
    assert ran["base"] == pytest.approx(250 / 3)
    assert ran["causal"] == pytest.approx((250 - 250 / 3 - 10) / 2)
    assert clock[0] <= 300 - 20 + 10
    ran.clear()
    clock[0], waited = 30.0, [0.0, 40.0]  # what a stage waits for clips is taken from all alike
    run_stages(Recorder(), some_seconds(base=125, causal=125, guidance=0, dmd=0), 300.0, 20.0, lambda: clock[0])
    assert ran["base"] == pytest.approx(210 / 2)
    assert clock[0] == pytest.approx(300 - 20 + 10)
    ran.clear()
    clock[0], waited = 20.0, [0.0] * 4
    run_stages(Recorder(), dict.fromkeys(STAGES), 220.0, 0.0, lambda: clock[0])
    assert ran["base"] == pytest.approx(0.55 * 200)
    ran.clear()
    clock[0] = 500.0
    run_stages(Recorder(), dict.fromkeys(STAGES), 220.0, 0.0, lambda: clock[0])
    assert not ran
    clock[0], waited = 0.0, [0.0, 91.0, 0.0]  # so few seconds would not make a guidance that deserves the name
    run_stages(Recorder(), some_seconds(base=100, causal=0, guidance=50, dmd=50), 210.0, 0.0, lambda: clock[0])
    assert list(ran) == ["base", "dmd"]


class NoWorkers:
    """Workers that have ended, perhaps with an error."""

    def __init__(self, reason=None):
        self.reason, self.count = reason, 1

    def running(self):
        return False

    def failed(self):
        return self.reason


def test_a_pool_without_clips_says_why(make, tmp_path):
    made = make(pool=tmp_path, workers=NoWorkers("worker 0 ended with 1: no space left"))
    with pytest.raises(ValueError, match=r"no clips in .*no space left"):
        made.wait_for_clips(1)
    made.workers = None
    with pytest.raises(ValueError, match="let --workers render some"):
        made.wait_for_clips(1)


class SlowWorkers(NoWorkers):
    """Workers that never come to an end."""

    def running(self):
        return True


def test_waiting_for_clips_comes_to_an_end(make, pool, tmp_path, monkeypatch):
    monkeypatch.setattr(sprint.time, "sleep", lambda seconds: None)
    made = make(pool=tmp_path, workers=SlowWorkers())
    with pytest.raises(ValueError, match="none came in time"):
        made.wait_for_clips(8, 5.0, 10.0)
    assert 10 <= made.clock.now < 12
    made.pool, made.clock = pool, Clock()
    made.clips = ResidentClips(2 * CLIPS, made.clips.latents_nFChw.transpose(1, 2).shape[1:], made.clips.text, CPU)
    made.wait_for_clips(2 * CLIPS, 5.0, 10.0)
    assert made.clips.count == CLIPS
    assert 5 <= made.clock.now < 7


def test_a_shard_that_cannot_be_read_ends_no_training(make, pool, tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    for index in (0, 2):
        shutil.copy(shard_path(pool, 0), shard_path(folder, index))
    shard_path(folder, 1).write_bytes(shard_path(pool, 0).read_bytes()[:1000])
    made = make(pool=folder)
    made.clips = ResidentClips(3 * CLIPS, made.clips.latents_nFChw.transpose(1, 2).shape[1:], made.clips.text, CPU)
    made.wait_for_clips(3 * CLIPS)
    assert made.clips.count == 2 * CLIPS
    assert ["is damaged" in line and "left out" in line for line in make.said] == [True]
    shard_path(folder, 0).write_bytes(b"")
    made.clips.count = made._shards = 0
    with pytest.raises(ValueError, match="is damaged"):  # at the beginning there is time to mend it
        made.wait_for_clips(1)


def test_a_failed_worker_is_told_at_once_and_once(make):
    made = make(workers=NoWorkers("worker 0 ended with 1: no space left"))
    made.wait_for_clips(1)
    made.run("base", 12.0)
    assert sum("no space left" in line for line in make.said) == 1


def test_the_first_step_is_made_however_long_the_networks_took(make):
    made = make()
    made.wait_for_clips(1)
    made.run("base", 0.1)
    assert list(made.weights) == ["base"]
    changed = [
        not torch.equal(made.workshop.new_transformer().state_dict()[k], v) for k, v in made.weights["base"].items()
    ]
    assert any(changed)


def test_a_slow_pool_is_said_and_trained_on(make, parts, pool, monkeypatch):
    monkeypatch.setattr(sprint, "WORN", 1)
    preset = fitted(dataclasses.replace(SMOKE, pool_clips=2 * CLIPS), parts)
    made = make(workers=NoWorkers())
    made.clips = ResidentClips(2 * CLIPS, made.clips.latents_nFChw.transpose(1, 2).shape[1:], parts.text, CPU)
    made.wait_for_clips(2 * CLIPS)
    made.run("base", 6.0)
    assert made.clips.capacity == preset.pool_clips
    assert any("rendering is slower than training" in line for line in make.said)
    assert "base" in made.weights


def test_presets_and_pools_tell_codecs_with_overlap_apart(parts):
    kinds = []
    for lapped in (False, True):
        codec = vae.TinyCodec.from_config(parts.vae.config, lapped=lapped)
        codec.load_state_dict(parts.vae.state_dict())
        own = dataclasses.replace(parts, vae=codec)
        assert fitted(SMOKE, own).codec == dataclasses.replace(SMOKE.codec, lapped=lapped)
        kinds.append(kind_of(SMOKE, own, 0))
    assert kinds[0] != kinds[1]


def test_clips_of_another_kind_and_damaged_ones_are_named(parts, pool, tmp_path):
    shutil.copy(shard_path(pool, 0), shard_path(tmp_path, 0))
    with pytest.raises(ValueError, match="another size, codec or seed; choose another --pool"):
        read_shard(tmp_path, 0, kind_of(SMOKE, parts, seed=1))
    shard_path(tmp_path, 0).write_bytes(shard_path(pool, 0).read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        read_shard(tmp_path, 0, kind_of(SMOKE, parts, 0))
    assert read_shard(tmp_path, 1, kind_of(SMOKE, parts, 0)) is None


def test_shards_depend_on_seed_and_number_alone(parts):
    one, again, other = (make_shard(i, SMOKE, parts, seed=5, clips=2) for i in (3, 3, 4))
    assert all(torch.equal(getattr(one, name), getattr(again, name)) for name in vars(one))
    assert not torch.equal(one.latents_BCFhw, other.latents_BCFhw)
    assert one.tokens_BKL.shape == (2, CAPTIONS, parts.info.text_length)


def test_too_little_memory_is_a_sentence_with_the_number(make, monkeypatch):
    from videoar import memory

    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match=r"needs .* MB \(the pool .*\) and has 0.0 MB free: use fewer --clips"):
        make()


def test_a_full_disk_is_said_and_the_training_goes_on(make, monkeypatch, tmp_path):
    monkeypatch.setattr(sprint, "SAVE_EVERY", 2.0)
    made = make()
    made.wait_for_clips(1)
    made.run("base", 3.0)
    before, _ = join(tmp_path / "out")
    from train import pieces

    def full(path, content):
        raise OSError(28, "No space left on device")

    real = pieces._write
    monkeypatch.setattr(pieces, "_write", full)
    made.run("causal", 3.0)
    assert "No space left on device" in made.unwritten
    assert any("No space left on device" in line and "untouched" in line for line in make.said)
    assert finite(made.weights["causal"])
    after, manifest = join(tmp_path / "out")
    assert manifest["newest"] == "base"
    assert all(torch.equal(before[k], after[k]) for k in before)
    monkeypatch.setattr(pieces, "_write", real)
    made.run("dmd", 3.0)
    assert made.unwritten is None


def test_a_command_that_leaves_nothing_behind_does_not_say_it_is_done(pool, tmp_path, capsys, monkeypatch):
    from train import pieces
    from train.__main__ import main

    def full(path, content):
        raise OSError(28, "No space left on device")

    options = ["sprint", "--preset", "smoke", "--eager", "--workers", "0", "--clips", str(CLIPS), "--pool", str(pool)]
    options += [word for stage in STAGES[1:] for word in (f"--{stage}", "0")] + ["--out", str(tmp_path / "out")]
    assert main([*options, "--base", "9", "--seconds", "0.001"]) == 2
    assert "nothing was trained" in capsys.readouterr().err
    monkeypatch.setattr(pieces, "_write", full)
    assert main([*options, "--base", "0.3"]) == 2
    out = capsys.readouterr()
    assert "the newest weights are lost: base: could not write" in out.err
    assert "done" not in out.out


def test_a_check_stops_at_its_time(make):
    made = make()
    made.take_in(most=1)
    measured = check_stage(made, "base", 50, seconds=2.0)
    assert len(measured.first_ms) == 3  # all plans
    assert made.clock.now < 10
    assert measured.peak_bytes is None


def test_workers_end_with_their_block(tmp_path):
    options = ["--preset", "smoke", "--pool", str(tmp_path), "--clips", "1000000", "--seed", "0"]
    with Workers(1, options, tmp_path) as workers:
        deadline = time.monotonic() + 300
        while not shard_path(tmp_path, 0).exists():
            assert workers.running(), workers.failed()
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert not workers.running()


ORPHANED = """
import os, subprocess, sys
command = [sys.executable, "-m", "train", "render", "--parent", str(os.getpid()), *sys.argv[1:]]
print(subprocess.Popen(command, stdout=subprocess.DEVNULL).pid)
"""


def test_a_worker_whose_command_was_killed_while_it_started_renders_nothing(tmp_path):
    options = ["--preset", "smoke", "--pool", str(tmp_path), "--clips", "1000000", "--worker", "0", "--of", "1"]
    ran = subprocess.run([sys.executable, "-c", ORPHANED, *options], stdout=subprocess.PIPE, text=True)
    worker, deadline = psutil.Process(int(ran.stdout)), time.monotonic() + 300
    try:
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            assert not shard_path(tmp_path, 0).exists()
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        pass
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    assert not shard_path(tmp_path, 0).exists()


def test_a_worker_takes_over_from_that_of_a_command_that_ended(tmp_path):
    """It waits instead of leaving: the one before it may be about to end."""
    options = ["--preset", "smoke", "--pool", str(tmp_path), "--clips", "1", "--seed", "0"]
    with open(tmp_path / "worker-0-of-1.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Workers(1, options, tmp_path) as workers:
            with pytest.raises(subprocess.TimeoutExpired):
                workers.processes[0].wait(0.5)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert workers.processes[0].wait(300) == 0
    assert shard_path(tmp_path, 0).exists()


def test_workers_of_whom_one_cannot_be_started_end(tmp_path, monkeypatch):
    real, started = subprocess.Popen, []

    def popen(*args, **kwargs):
        if len(started) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(real(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(BlockingIOError), Workers(3, ["--preset", "smoke", "--pool", "x", "--clips", "1"], tmp_path):
        pass
    assert [process.poll() is not None for process in started] == [True, True]


def test_the_time_since_the_start_follows_no_clock_that_is_set(monkeypatch):
    before = sprint_command._elapsed()
    assert before > 0
    monkeypatch.setattr(sprint_command.time, "time", lambda: 4e9)
    assert before <= sprint_command._elapsed() < before + 1000
    assert sprint_command._age() == 0.0  # a start that is decades away is none


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say how long it may take: --seconds 570"),
        (["--seconds", "-1"], "--seconds is more than 0, not -1"),
        (["--seconds", "nan"], "--seconds is more than 0, not nan"),
        (["--seconds", "inf"], "--seconds is more than 0, not inf"),
        (["--seconds", "10", "--base", "inf"], "--base is 0 or more, not inf"),
        (["--base", "-2", "--seconds", "10"], "--base is 0 or more, not -2"),
        (["--clips", "0", "--seconds", "10"], "--clips is more than 0, not 0"),
        (["--clips", "9", "--batch", "10", "--seconds", "10"], "a --batch of 10 is more than all 9 clips"),
        (["--join", "nowhere"], "sprint.json is missing: --join takes the folder"),
        (["--seconds", "9", "--parts", "nowhere", "--workers", "0"], "nowhere"),
    ],
)
def test_unusable_options_are_one_line_and_exit_code_2(options, said, capsys, tmp_path, monkeypatch):
    from train.__main__ import main

    monkeypatch.chdir(tmp_path)
    assert main(["sprint", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sprint: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_start_of_another_shape_is_refused(make, parts):
    from train.sprint_command import load_start
    from videoar.folders import find_folder

    with pytest.raises(ValueError, match="another network than the preset smoke"):
        load_start(find_folder(None), make())
    assert json.dumps(make().pieces.info)
