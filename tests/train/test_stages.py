"""Every stage runs a few steps, resumes to the bit after a kill, and ends in a model folder that generates."""

import dataclasses
import json
import random

import pytest
import torch
from accelerate.tracking import GeneralTracker
from safetensors import SafetensorError
from safetensors.torch import load_file

from train.data import Pool, sample_video, world_from_json, world_to_json
from train.export import stage_record
from train.presets import SMOKE, SMOKE_WAN
from train.run import Run
from train.stages import APART, STAGES
from train.workshop import Workshop
from videoar.checkpoint import load_model
from videoar.codec import TinyCodec
from videoar.generate import ClipFinished, Request, generate
from videoar.playworld import sample_world

LAPPED_SMOKE = dataclasses.replace(SMOKE, name="smoke-lapped", codec=dataclasses.replace(SMOKE.codec, lapped=True))


def quiet(row):
    pass


def run_stages(workshop, *names):
    for name in names:
        STAGES[name](workshop, quiet)


STAGES_BEFORE = {"causal": ["base"], "guidance": ["base", "causal"], "dmd": ["base", "causal", "guidance"]}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A workshop in which everything before `base` is done."""
    workshop = Workshop(SMOKE, tmp_path_factory.mktemp("runs"), threads=1)
    run_stages(workshop, "text", "linear", "data", "vae")
    return workshop


def test_all_stages_make_a_folder_that_generates_every_plan(prepared, tmp_path):
    run_stages(prepared, "base", "causal", "guidance", "dmd")
    workshop = dataclasses.replace(prepared, out=tmp_path / "model")
    run_stages(workshop, "export")
    model = load_model(tmp_path / "model", device="cpu")
    assert model.info.provenance["stage"] == "dmd"
    assert (model.info.sampler, model.info.steps, model.info.guidance_scale) == ("few_step", 4, 1.0)
    assert set(model.info.provenance["stages"]) == {"text", "vae", "base", "causal", "guidance", "dmd"}
    snapshot = dataclasses.replace(workshop, init=workshop.folder("dmd") / "snapshots" / "step-000004")
    run_stages(dataclasses.replace(snapshot, out=tmp_path / "snapshot"), "export")
    again = load_model(tmp_path / "snapshot", device="cpu")
    assert again.info.provenance["step"] == 4
    assert all(map(torch.equal, model.transformer.parameters(), again.transformer.parameters()))
    with pytest.raises(ValueError, match="is no snapshot"):
        run_stages(dataclasses.replace(snapshot, init=tmp_path), "export")
    for plan in model.info.plans:
        last = list(generate(model, Request("a red ball rises", plan=plan, seed=1, steps=1)))[-1]
        assert isinstance(last, ClipFinished)
        assert last.video.shape == (9, 32, 32, 3)


def test_the_gpu_recipe_with_a_wan_autoencoder_makes_a_folder_too(tmp_path):
    workshop = Workshop(SMOKE_WAN, tmp_path, threads=1)
    run_stages(workshop, *STAGES)
    model = load_model(tmp_path / "smoke-wan" / "model", device="cpu")
    assert type(model.vae).__name__ == "AutoencoderKLWan"
    assert any(std != 1 for std in model.vae.config.latents_std)
    last = list(generate(model, Request("a red ball rises", plan="cube", seed=1, steps=1)))[-1]
    assert last.video.shape == (9, 32, 32, 3)


@pytest.mark.parametrize("stage", ["text", "vae", "base", "causal", "guidance", "dmd"])
def test_a_killed_stage_resumes_to_the_same_weights(prepared, tmp_path, stage):
    """Four steps in one go equal two steps, a fresh process, and two more."""
    link = tmp_path / SMOKE.name
    link.mkdir()
    for name in ("text", "vae", "data", "base", "causal"):
        if name != stage and prepared.folder(name).exists():
            (link / name).symlink_to(prepared.folder(name))
    if stage == "vae":
        (link / "vae").mkdir()
        (link / "vae" / "linear").symlink_to(prepared.folder("vae") / "linear")
    for earlier in STAGES_BEFORE.get(stage, ()):
        if not prepared.folder(earlier).exists():
            run_stages(prepared, earlier)
        if not (link / earlier).exists():
            (link / earlier).symlink_to(prepared.folder(earlier))
    # A constant learning rate: the schedule would otherwise depend on the number of steps asked for.
    constant = {n: dataclasses.replace(getattr(SMOKE, n), decay=0.0) for n in ("base", "causal", "guidance")}
    preset = dataclasses.replace(SMOKE, **constant)

    def final(folder, save_every):
        from train import generator, text, vae

        workshop = Workshop(preset, tmp_path, threads=1)
        real = workshop.folder
        workshop.folder = lambda name: tmp_path / folder if name == stage else real(name)
        if stage == "vae":
            (tmp_path / folder).mkdir(exist_ok=True)
            if not (tmp_path / folder / "linear").exists():
                (tmp_path / folder / "linear").symlink_to(prepared.folder("vae") / "linear")
        workshop.steps = 4
        modules = {"text": (text, "train_text"), "vae": (vae, "train_codec")}
        _module, name = modules.get(stage, (generator, "train"))
        from train import stages

        original = getattr(stages, name)

        def hooked(*args, **kwargs):
            return original(*args, **{**kwargs, "save_every": save_every, "progress": stop_at_three})

        def stop_at_three(row):
            if save_every == 2 and row["step"] == 3 and not (tmp_path / folder / "stopped").exists():
                (tmp_path / folder / "stopped").touch()
                raise KeyboardInterrupt

        setattr(stages, name, hooked)
        try:
            STAGES[stage](workshop, quiet)
        except KeyboardInterrupt:
            STAGES[stage](workshop, quiet)
        finally:
            setattr(stages, name, original)
        return load_file(Run(tmp_path / folder).checkpoints()[-1] / "state.safetensors")

    whole, resumed = final("whole", 1000), final("resumed", 2)
    assert (tmp_path / "resumed" / "stopped").exists()
    assert whole.keys() == resumed.keys()
    for key in whole:
        assert torch.equal(whole[key], resumed[key]), key


def test_a_stage_before_its_input_says_what_to_run(tmp_path):
    workshop = Workshop(SMOKE, tmp_path)
    with pytest.raises(ValueError, match="python -m train text"):
        STAGES["base"](workshop, quiet)
    with pytest.raises(ValueError, match="python -m train linear"):
        STAGES["data"](workshop, quiet)


def test_what_is_pretrained_is_not_trained(tmp_path, capsys):
    from train.__main__ import main

    for stage, hint in {"text": "adopt", "vae": "adopt", "base": "--teacher", "data": "--data"}.items():
        assert main([stage, "--preset", "wan-1.3b", "--runs", str(tmp_path)]) == 2
        assert hint in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_stage_and_keeps_the_checkpoint(prepared, tmp_path, monkeypatch):
    from train.flow import FlowMatching

    workshop = Workshop(SMOKE, prepared.runs)
    workshop.folder = lambda name: tmp_path / "base" if name == "base" else prepared.runs / SMOKE.name / name
    run_stages(workshop, "base")
    before = Run(tmp_path / "base").checkpoints()
    nothing = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(FlowMatching, "forward", lambda self, *args: (nothing, {}))
    workshop.steps = 5
    with pytest.raises(FloatingPointError, match="at step 3"):
        STAGES["base"](workshop, quiet)
    assert Run(tmp_path / "base").checkpoints() == before


def test_the_pool_depends_on_its_seed_alone_and_survives_a_stop(prepared, tmp_path):
    one, two = Pool(tmp_path / "one", seed=3), Pool(tmp_path / "two", seed=3)
    for pool in (one, two):
        pool.make_shard(0, SMOKE, prepared.codec())
    (tmp_path / "two" / "clips-00001.partial").write_bytes(b"half")
    one.refresh()
    two.refresh()
    assert len(one) == len(two) == 128
    a, b = one.batch(5, 4), two.batch(5, 4)
    assert torch.equal(a.latents_BCFHW, b.latents_BCFHW)
    assert a.prompts == b.prompts


def test_worlds_survive_json():
    for i in range(50):
        world = sample_world(random.Random(i))
        assert world_from_json(json.loads(json.dumps(world_to_json(world)))) == world


def test_training_worlds_leave_the_held_out_combinations_out():
    from train.data import sample_worlds
    from videoar.playworld import is_held_out

    for world in sample_worlds(200, "any"):
        assert not any(is_held_out(t.subject, t.color, t.motion, world.scene) for t in world.things)


def test_a_tracker_gets_the_numbers_of_the_log(prepared, tmp_path):
    class Tracker(GeneralTracker):
        name, requires_logging_directory, tracker = "mine", False, None

        def __init__(self):
            super().__init__()
            self.rows = {}

        def store_init_configuration(self, values):
            self.config = values

        def log(self, values, step, **kwargs):
            self.rows[step] = values

    workshop = dataclasses.replace(prepared)
    workshop.folder = lambda name: tmp_path / "base" if name == "base" else prepared.folder(name)
    workshop.tracker = tracker = Tracker()
    run_stages(workshop, "base")
    assert tracker.config["stage"] == "base"
    assert sorted(tracker.rows) == [1, 2, 3]
    logged = Run(tmp_path / "base").rows()
    assert [row["loss"] for row in tracker.rows.values()] == [row["loss"] for row in logged]
    with pytest.raises(ValueError, match=r"there is no tracker 'paper'; choose of: .*tensorboard"):
        Workshop(SMOKE, tmp_path, tracker="paper")


def test_a_tracker_that_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("train.device.get_available_trackers", list)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        Workshop(SMOKE, tmp_path, tracker="tensorboard")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error")])
def test_a_shard_on_a_full_disk_is_an_error_that_loses_nothing(prepared, tmp_path, monkeypatch, error):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise error

    pool = Pool(tmp_path)
    pool.write(0, torch.zeros(2, 4, 1, 2, 2), captions=["a", "b"])
    monkeypatch.setattr("train.data.save_file", full)
    with pytest.raises(OSError, match="the shards before it are untouched"):
        pool.write(1, torch.zeros(2, 4, 1, 2, 2), captions=["a", "b"])
    assert [path.name for path in tmp_path.iterdir()] == ["clips-00000.safetensors"]


def test_a_full_disk_is_an_error_that_loses_nothing(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run.save(1, {"a": torch.ones(3)}, {})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.run.save_file", full)
    with pytest.raises(OSError, match="earlier checkpoints are untouched"):
        run.save(2, {"a": torch.zeros(3)}, {})
    tensors, info = run.load()
    assert info["step"] == 1
    assert torch.equal(tensors["a"], torch.ones(3))
    assert not list(tmp_path.glob(".partial*"))


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    run = Run(tmp_path)
    run.save(1, {"a": torch.ones(3)}, {})
    broken = tmp_path / "step-00000002"
    broken.mkdir()
    (broken / "state.safetensors").write_bytes(b"\x10\x00")
    assert run.load()[1]["step"] == 1


def test_a_save_clears_what_killed_processes_left_and_keeps_a_whole_checkpoint(tmp_path):
    run = Run(tmp_path)
    (tmp_path / ".partial-1").mkdir()
    (tmp_path / ".partial-1" / "state.safetensors").write_bytes(b"half")
    run.save(1, {"a": torch.ones(3)}, {})
    assert not list(tmp_path.glob(".partial*"))
    before = (tmp_path / "step-00000001" / "state.safetensors").stat().st_ino
    run.save(1, {"a": torch.ones(3)}, {})  # never removed, not even to be written again
    assert (tmp_path / "step-00000001" / "state.safetensors").stat().st_ino == before
    (tmp_path / "step-00000001" / "state.safetensors").write_bytes(b"\x10\x00")
    run.save(1, {"a": torch.ones(3)}, {})
    assert torch.equal(run.load()[0]["a"], torch.ones(3))


def test_the_record_of_a_stage_counts_the_steps_that_were_kept(tmp_path):
    run = Run(tmp_path)
    for step in (1, 2, 3, 4):
        run.log(step=step, loss=float(step))
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"time": 1.0, "st\n')  # killed while it wrote; the checkpoint of step 2 was the last
    for step in (3,):
        run.log(step=step, loss=30.0)
    run.save(3, {"a": torch.ones(1)}, {})
    assert stage_record(tmp_path) == {"steps": 3, "loss": 11.0, "minutes": 0.0}


def test_adopted_parts_start_a_run_and_carry_their_record(prepared, tmp_path):
    for stage in ("base", "causal"):
        if not prepared.folder(stage).exists():
            run_stages(prepared, stage)
    first = dataclasses.replace(prepared, out=tmp_path / "first")
    run_stages(first, "export")
    workshop = Workshop(SMOKE, tmp_path / "runs", threads=1, init=tmp_path / "first")
    APART["adopt"](workshop, quiet)
    with pytest.raises(ValueError, match="is in use"):
        APART["adopt"](workshop, quiet)
    run_stages(workshop, "data", "base")
    workshop.init = None
    run_stages(workshop, *STAGES)
    one, two = (load_model(path, device="cpu") for path in (tmp_path / "first", workshop.folder("model")))
    for part in ("text", "vae"):
        record = one.info.provenance["stages"][part]
        assert two.info.provenance["stages"][part] == {"adopted": "Playworld smoke", **record}
    begun = two.info.provenance["stages"]["base"]["started_from"]
    assert (begun["folder"], begun["stage"]) == (str(tmp_path / "first"), one.info.provenance["stage"])
    assert f"python -m train base --preset smoke --init {tmp_path / 'first'}" in two.info.provenance["command"]
    assert two.info.scale_std == pytest.approx(one.info.scale_std)
    for a, b in ((one.vae, two.vae), (one.text.encoder, two.text.encoder)):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    other = Workshop(SMOKE_WAN, tmp_path / "other", init=tmp_path / "first")
    with pytest.raises(ValueError, match="does not fit the preset smoke-wan"):
        APART["adopt"](other, quiet)
    overlapping = Workshop(LAPPED_SMOKE, tmp_path / "other", init=tmp_path / "first")
    with pytest.raises(ValueError, match=r"whether blocks lap.*False.*not.*True"):
        APART["adopt"](overlapping, quiet)


def test_a_codec_with_overlap_is_trained_exported_and_adopted(prepared, tmp_path):
    workshop = Workshop(LAPPED_SMOKE, tmp_path, threads=1, out=tmp_path / "model")
    (tmp_path / LAPPED_SMOKE.name).mkdir()
    (tmp_path / LAPPED_SMOKE.name / "text").symlink_to(prepared.folder("text"))
    run_stages(workshop, "linear", "data", "vae", "base", "export")
    video = sample_video(SMOKE, 1, "seen")
    latents = workshop.codec().encode(video)
    plain = TinyCodec.from_config(workshop.codec().config, lapped=False)
    plain.load_state_dict(workshop.codec().state_dict())
    assert not torch.allclose(plain.encode(video), latents, atol=1e-2)
    model = load_model(tmp_path / "model", device="cpu", dtype="float32")
    assert model.vae.config.lapped
    torch.testing.assert_close(model.vae.encode(video), latents, rtol=0, atol=0.02)  # its weights are stored in half
    last = list(generate(model, Request("a red ball rises", plan="cube", seed=1, steps=1)))[-1]
    assert isinstance(last, ClipFinished)
    adopting = Workshop(LAPPED_SMOKE, tmp_path / "adopting", init=tmp_path / "model")
    APART["adopt"](adopting, quiet)
    for finished in (False, True):
        assert torch.equal(adopting.codec(finished).encode(video), model.vae.encode(video))
    refused = Workshop(SMOKE, tmp_path / "refused", init=tmp_path / "model")
    with pytest.raises(ValueError, match="does not fit the preset smoke"):
        APART["adopt"](refused, quiet)


def test_export_never_replaces_a_folder_that_is_not_a_model(prepared, tmp_path, capsys):
    from train.__main__ import main

    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["export", "--preset", "smoke", "--runs", str(prepared.runs), "--out", str(tmp_path)]) == 2
    assert "is not a model folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "arguments",
    [
        ["base", "--steps", "0"],
        ["all", "--steps", "5"],
        ["all", "--init", "x"],
        ["base", "--threads", "-1"],
        ["base", "--patience", "-1"],
        ["base", "--tracker", "paper"],
    ],
)
def test_unusable_arguments_are_one_line_and_exit_code_2(arguments, tmp_path, capsys):
    from train.__main__ import main

    assert main([*arguments, "--preset", "smoke", "--runs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_gradient_that_is_not_finite_ends_the_stage_before_it_is_used(prepared, tmp_path):
    """The loss alone does not tell: here it is finite and its gradient is not."""
    from train import stages

    if not (prepared.folder("base") / "transformer").exists():
        run_stages(prepared, "base")
    before = {path: path.stat().st_mtime for path in Run(prepared.folder("base")).checkpoints()}

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("nan")

    class Faulty(stages.FlowTraining):
        def losses(self, draw):
            for name, loss, columns in super().losses(draw):
                yield name, Broken.apply(loss) if draw.step == 4 else loss, columns

    workshop = dataclasses.replace(prepared, steps=6)
    original, stages.FlowTraining = stages.FlowTraining, Faulty
    try:
        with pytest.raises(FloatingPointError, match="gradient of the model is nan at step 4"):
            run_stages(workshop, "base")
    finally:
        stages.FlowTraining = original
    assert {path: path.stat().st_mtime for path in Run(prepared.folder("base")).checkpoints()} == before
