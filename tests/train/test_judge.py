"""Films as latents under any plan, how far they are from real ones, and stages that end when they get no better."""

import dataclasses
import json

import pytest
import torch

from tests.train.test_dmd import PLANS, make
from train.dmd import Rollout, finest_latents
from train.judge import LatentDistance, latent_steps, motion_by_half
from train.presets import SMOKE, ServePreset
from train.sample import sample_latents
from train.stages import STAGES
from train.stopping import EarlyStopping, best_snapshot
from train.workshop import Workshop
from videoar.checkpoint import load_model
from videoar.plan import Grid, PlanSpec
from videoar.sampler import schedule


@pytest.mark.parametrize("plan", PLANS)
def test_films_are_made_as_stage_2_makes_them(plan):
    network, built = make().eval(), PlanSpec.parse(plan).build(Grid(2, 2, 2))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, len(built.unit_ids()), 16, generator=generator)
    text = torch.randn(3, 5, 16, generator=generator)
    serve = ServePreset("few_step", 2, shift=5.0, guidance_scale=1.0)
    made = sample_latents(network, text, text[:1], built, serve, noise)
    with torch.no_grad():
        rolled = Rollout(network, schedule(2, 5.0))(noise, text, built)
    assert torch.allclose(made, finest_latents(rolled, built, (1, 2, 2)), atol=1e-5)


def test_guidance_with_the_prompt_itself_as_negative_changes_nothing():
    network, built = make().eval(), PlanSpec.parse("cube:2x2x2").build(Grid(2, 2, 2))
    noise = torch.randn(1, 3, 8, 16, generator=torch.Generator().manual_seed(1))
    text = torch.randn(1, 5, 16).expand(3, -1, -1)
    plain, guided = (ServePreset("euler", 3, guidance_scale=g) for g in (1.0, 4.0))
    one, two = (sample_latents(network, text, text[:1], built, serve, noise) for serve in (plain, guided))
    assert torch.allclose(one, two, atol=1e-4)


def test_the_distance_is_that_of_known_gaussians():
    """Clips of the real ones' distribution are near; moved by d deviations of one component they are d^2 away, and
    spread k times as wide (k - 1)^2 for every component."""
    torch.manual_seed(0)
    scales = torch.tensor([8.0, 4.0, 2.0, 1.0]).view(1, 4, 1, 1, 1)
    real, same = (torch.randn(4000, 4, 1, 1, 1) * scales for _ in range(2))
    distance = LatentDistance(real, dimensions=4)
    assert distance(same) < 0.02
    moved = same.clone()
    moved[:, 2] += 3 * 2.0
    assert distance(moved) == pytest.approx(9, rel=0.1)
    assert distance(1.5 * same) == pytest.approx(4 * 0.5**2, rel=0.15)
    with pytest.raises(ValueError, match="more than 4 real clips"):
        LatentDistance(real[:4], dimensions=4)


@pytest.mark.parametrize(("frames", "first", "second"), [(8, 2.0, 6.0), (7, 2.0, 5.0), (3, 1.0, 2.0)])
def test_motion_is_that_of_each_half(frames, first, second):
    """The nth step is n, forwards or backwards; of an odd number of steps the middle one belongs to neither half."""
    signs = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1, 1)
    latents = (torch.arange(frames).cumsum(0).float().view(1, 1, -1, 1, 1) * signs).expand(2, 3, -1, 4, 4)
    assert latent_steps(latents).tolist() == list(range(1, frames))
    assert motion_by_half(latents) == (first, second)


def test_the_best_weights_are_kept_and_patience_ends(tmp_path):
    scores = iter([3.0, 1.0, 2.0, 2.5])
    judged = []

    def stopping():
        def judge(weights):
            judged.append(weights["w"])
            return next(scores)

        return EarlyStopping(tmp_path, 2, judge, lambda weights, path: (path.mkdir(parents=True), None)[1])

    assert not stopping()(10, {"w": 1})
    assert not stopping()(20, {"w": 2})
    assert not stopping()(30, {"w": 3})
    (tmp_path / "evaluation.jsonl").write_text((tmp_path / "evaluation.jsonl").read_text() + '{"st')
    (tmp_path / "evaluation.jsonl").write_text((tmp_path / "evaluation.jsonl").read_text() + "\n")
    assert not stopping()(30, {"w": 3})  # a run that was resumed comes by again
    assert stopping()(40, {"w": 4})
    assert stopping().spent()
    assert judged == [1, 2, 3, 4]
    assert best_snapshot(tmp_path).name == "step-000020"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    workshop = Workshop(SMOKE, tmp_path_factory.mktemp("runs"), threads=1)
    for stage in ("text", "linear", "data", "base"):
        STAGES[stage](workshop, lambda row: None)
    return workshop


@pytest.mark.parametrize("stage", ["causal", "dmd"])
def test_a_stage_stops_with_its_best_weights(prepared, tmp_path, monkeypatch, stage):
    """Every step is evaluated; the second one is said to be the best."""
    monkeypatch.setattr("train.judge.REAL", 24)
    monkeypatch.setattr("train.judge.JUDGED", 4)
    judged = []
    from train import stages

    class Judge(stages.Judge):
        def __call__(self, weights):
            value = super().__call__(weights)
            assert value > 0
            judged.append(value)
            return [3.0, 1.0, 2.0, 2.0][len(judged) - 1]

    monkeypatch.setattr(stages, "Judge", Judge)
    changes = {s: dataclasses.replace(getattr(SMOKE, s), steps=9, save_every=1) for s in ("causal", "dmd")}
    workshop = dataclasses.replace(prepared, preset=dataclasses.replace(SMOKE, **changes), patience=2)
    if stage == "dmd":
        workshop.init = prepared.folder("base") / "transformer"
    STAGES[stage](workshop, lambda row: None)
    assert len(judged) == 4
    folder = workshop.folder(stage)
    rows = [json.loads(line) for line in (folder / "evaluation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert (folder / "transformer").exists()
    STAGES[stage](workshop, lambda row: None)
    assert len(judged) == 4  # it knows that it is over
    workshop.init, workshop.out = None, tmp_path / "model"
    (workshop.folder("vae") / "codec").exists() or STAGES["vae"](workshop, lambda row: None)
    STAGES["export"](workshop, lambda row: None)
    assert load_model(tmp_path / "model", device="cpu").info.provenance["step"] == 2
