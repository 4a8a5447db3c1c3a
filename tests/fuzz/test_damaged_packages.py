"""Whatever happens to a package, its loader refuses with a `GraphoptError` or runs; never worse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import graphopt

torch = pytest.importorskip("torch")

import damage  # noqa: E402
import models  # noqa: E402

CASES = 440


def test_loader_survives(tmp_path: Path) -> None:
    package, scratch = tmp_path / "net.gopt", tmp_path / "scratch"
    x = torch.ones(1, 3, 48)
    graphopt.optimize(models.network(), precision="int8", example_inputs=(x,)).save(package)
    scratch.mkdir()
    # A process of its own: a crash there ends with the seed that made it.
    command = [sys.executable, damage.__file__, str(package), str(scratch), "0", str(CASES)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"crashed at: {done.stdout[-80:]}\n{done.stderr[-500:]}"
    lines = done.stdout.splitlines()
    assert "ESCAPED" not in done.stdout, done.stdout[done.stdout.index("ESCAPED") - 60 :][:3000]
    assert len(lines) == CASES
    refused = sum(line.endswith("refused") for line in lines)
    # Damage outside manifest and weights is always found; about half of the rest matters.
    assert refused > CASES * 0.7
    for kind in ("flip", "cut", "delete", "swap", "replace_by_folder", "garbage"):
        assert not [line for line in lines if f" {kind} ran" in line]
