"""The estimate counts what is known of Wan2.1-1.3B, and says what fits."""

import pytest

from train.estimate import GIB, estimate, parameters, report
from train.presets import CPU, WAN
from train.workshop import Workshop


@pytest.fixture
def wan(tmp_path):
    return Workshop(WAN, tmp_path)


def test_the_networks_of_wan_are_counted_exactly(wan):
    assert parameters(wan) == 1_418_996_800
    assert wan.grid() == (21, 30, 52)
    dmd = estimate(wan, "dmd", 1, sharded=False).memory
    fakes = dmd["2 fake scorers (weights, gradients, AdamW)"]
    assert fakes / 1e9 == pytest.approx(45.4, abs=0.1)  # 16 bytes a parameter, twice


def test_sharding_divides_the_networks_and_nothing_else(wan):
    whole, sharded = (estimate(wan, "dmd", 8, sharded=s).memory for s in (False, True))
    for name, size in whole.items():
        assert sharded[name] == (size / 8 if "weights" in name else size)


def test_fewer_scorers_take_less(wan):
    both = estimate(wan, "dmd", 1, sharded=False)
    wan.scorers = "forward"
    one = estimate(wan, "dmd", 1, sharded=False)
    assert one.total < both.total
    assert one.seconds < both.seconds


def test_the_report_says_what_fits(wan, tmp_path):
    assert "dmd: 6000 steps of 8 clips" in report(wan, 8, 80)
    assert "fits with --fsdp" in report(wan, 8, 80).split("dmd")[1]
    assert "does not fit" in report(wan, 1, 80).split("dmd")[1]
    assert "all on each GPU: fits\n" in report(wan, 1, 141) + "\n"
    small = report(Workshop(CPU, tmp_path), 1, 80)
    assert small.count("in all on each GPU: fits") == 2
    assert estimate(Workshop(CPU, tmp_path), "causal", 1, sharded=False).total < GIB
    for machine in ((0, 80), (1, 0), (1, float("nan"))):
        with pytest.raises(ValueError, match="at least one GPU"):
            report(wan, *machine)
