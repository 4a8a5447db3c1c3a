"""Loops whose speed on N2 is known by hand, priced."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graphopt.errors import MissingToolError, PricingError
from graphopt.n2sim.check import LOOPS, Loop, build_loops, priced_cycles
from graphopt.n2sim.llvm import Llvm
from graphopt.n2sim.price import price


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 is missing (apt-get install qemu-user)")
    try:
        Llvm.find()
    except MissingToolError as error:
        pytest.skip(str(error))
    return build_loops(tmp_path_factory.mktemp("sanity"))


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
def test_loop_costs_what_it_must(program: Path, loop: Loop) -> None:
    """3 %: what the first and last iterations add, and the edges of the windows."""
    assert priced_cycles(program, loop) == pytest.approx((loop.cycles, loop.cycles), rel=0.03)


def test_price_counts_what_ran(program: Path) -> None:
    found = price([program], "^independent$")
    assert found.by_class == {"smmla": 16 * 2000, "scalar": 2 * 2000 + 1}
    assert found.macs == found.issued_macs == 16 * 2000 * 32
    assert (found.peak_class, found.peak) == ("smmla", 64)
    assert found.recorded == 1 and not found.unknown and found.exit_status == 0
    loop = found.main_loop
    assert loop is not None and loop.is_loop and (loop.macs_each, loop.times) == (512, 2000)
    assert loop.macs_per_cycle == pytest.approx(64, rel=0.01)


def test_command_line(program: Path) -> None:
    words = [sys.executable, "-m", "graphopt", "price", str(program), "--functions", "^load1$"]
    shown = subprocess.run([*words, "--json", "--listing"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    data = json.loads(shown.stdout)
    assert data["cpu"] == "neoverse-n2" and data["by_class"]["load"] == 32000
    assert any(line.startswith("ldr q31, [x1]") for line in data["blocks"][0]["code"])
    text = subprocess.run([*words, "--macs", "512000"], capture_output=True, text=True).stdout
    assert "of the smmla peak 64.0" in text and "load1 at 0x" in text
    assert "of the smmla peak" in text and "32.0 per cycle" not in text


def test_core_without_the_instructions(program: Path) -> None:
    found = price([program], "^independent$", cpu="neoverse-n1")
    assert "smmla" in " ".join(found.unknown)
    assert "WRONG NUMBERS" in found.text(show=0, listing=False)


def test_refusals(program: Path, tmp_path: Path) -> None:
    with pytest.raises(PricingError, match="no function matches '\\^nothing"):
        price([program], "^nothing$")
    with pytest.raises(PricingError, match="no model of 'm1'"):
        price([program], cpu="m1")
    with pytest.raises(PricingError, match="regular expression"):
        price([program], "(")
    with pytest.raises(PricingError, match="is not a file"):
        price([tmp_path / "none"])
    with pytest.raises(PricingError, match="static aarch64"):
        price([Path(shutil.which("true") or sys.executable)])
