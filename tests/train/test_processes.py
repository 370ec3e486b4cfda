"""Two processes train as one does on the doubled batch, and passes of a step as one pass of all of its clips."""

import dataclasses
import os
import socket
import subprocess
import sys

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from train.presets import SMOKE
from train.run import Run
from train.stages import STAGES
from train.workshop import Workshop

SCRIPT = """
import sys
from pathlib import Path
from tests.train.test_processes import train

train(Path(sys.argv[1]), fsdp=sys.argv[2] == "fsdp", batch=1)
"""
STAGES_TESTED = ("guidance", "dmd")


def train(runs, fsdp=False, **changes):
    """Two steps of each stage, in this process."""
    changes = {"steps": 2, "optimizer": "adamw", "ema": 0.5, **changes}
    stages = {stage: dataclasses.replace(getattr(SMOKE, stage), **changes) for stage in STAGES_TESTED}
    workshop = Workshop(dataclasses.replace(SMOKE, **stages), runs, threads=1, fsdp=fsdp)
    for stage in STAGES_TESTED:
        STAGES[stage](workshop, lambda row: None)


def train_in_two_processes(runs, how):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["MASTER_PORT"] = str(free.getsockname()[1])
    started = []
    for rank in ("0", "1"):
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        command = [sys.executable, "-c", SCRIPT, str(runs), how]
        started.append(subprocess.Popen(command, env={**environment, **ranks}, stderr=subprocess.PIPE, text=True))
    for process in started:
        errors = process.communicate(timeout=400)[1]
        assert process.returncode == 0, errors[-2000:]


def same(one, two):
    """The same losses and the same weights, up to rounding."""
    for stage in STAGES_TESTED:
        runs = [Run(runs / SMOKE.name / stage) for runs in (one, two)]
        losses = [[row["loss"] for row in run.rows()] for run in runs]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        weights, others = (load_file(run.checkpoints()[-1] / "state.safetensors") for run in runs)
        assert weights.keys() == others.keys()
        for key in weights:
            assert torch.allclose(weights[key], others[key], atol=2e-5), key


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    workshop = Workshop(SMOKE, tmp_path_factory.mktemp("runs"), threads=1)
    for stage in ("text", "linear", "data", "base", "causal"):
        STAGES[stage](workshop, lambda row: None)
    return workshop


@pytest.fixture
def fresh(prepared, tmp_path):
    """Makes run folders in which everything before a stage is done."""

    def make(name):
        folder = tmp_path / name / SMOKE.name
        folder.mkdir(parents=True)
        for stage in ("text", "vae", "data", "base", "causal"):
            (folder / stage).symlink_to(prepared.folder(stage))
        return tmp_path / name

    return make


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """Rounding to bfloat16 would hide small mistakes."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_two_passes_two_processes_and_two_shards_are_one_with_the_doubled_batch(fresh):
    one, passes, processes, shards = (fresh(name) for name in ("one", "passes", "processes", "shards"))
    train(one, batch=2)
    train(passes, batch=1, accumulate=2)
    same(one, passes)
    train_in_two_processes(processes, "whole")
    same(one, processes)
    train_in_two_processes(shards, "fsdp")
    same(one, shards)
