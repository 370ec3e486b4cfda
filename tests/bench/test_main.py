"""`python -m bench` imports the benchmark that is asked for and no other."""

from __future__ import annotations

import subprocess
import sys

from bench.__main__ import NAMES, main
from bench.serving import ROOT

# Runs where the packages of the app are not installed, as on a bare machine with a GPU.
BARE = """
import sys
for name in ("gradio", "gradio_client", "av", "moviepy", "spaces", "segno", "playwright"):
    sys.modules[name] = None
from bench import gpu
from bench.__main__ import main
from tests.bench.tiny import TINY
for name in ("gpu", "shapes", "profile"):
    try:
        main([name, "--help"])
    except SystemExit as end:
        assert end.code == 0, name
gpu.SMALL = TINY
few = ["--device", "cpu", "--runs", "1", "--full-steps", "1", "--plan", "frame"]
assert main(["gpu", *few, "--out", sys.argv[1]]) == 0
try:
    main(["app", "--help"])
except ModuleNotFoundError as error:
    print("absent:", error.name)
"""


def test_the_gpu_benchmarks_need_no_package_of_the_app(tmp_path):
    out = tmp_path / "gpu.json"
    done = subprocess.run([sys.executable, "-c", BARE, str(out)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"complete": true' in out.read_text()
    assert "absent:" in done.stdout  # so the packages were indeed not there
    for name in ("gpu", "shapes", "profile"):
        assert f"usage: python -m bench {name}" in done.stdout


def test_an_unknown_benchmark_is_told_the_names(capsys):
    assert main(["gpus"]) == 2
    assert main([]) == 2
    assert f"{{{','.join(NAMES)}}}" in capsys.readouterr().err


def test_what_a_person_did_wrong_is_a_sentence(capsys):
    assert main(["gpu", "--budget", "0"]) == 2
    assert capsys.readouterr().err == "bench gpu: --budget is a number of seconds above 0\n"
