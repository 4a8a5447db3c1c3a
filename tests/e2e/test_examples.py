"""Every example runs with --small."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

EXAMPLES = sorted(
    path
    for path in (Path(__file__).parents[2] / "examples").glob("*.py")
    if path.stem != "train_paraformer"  # test_recognizer.py runs it
)


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(script: Path, tmp_path: Path) -> None:
    if "graphopt.zoo" in script.read_text():
        pytest.importorskip("funasr")
    done = subprocess.run(
        [sys.executable, str(script), "--small"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout
