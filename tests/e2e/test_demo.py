"""`graphopt demo --small`: runs to the end, shows what it promises, leaves what it says."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("funasr")

MODELS = ("fsmn-vad", "paraformer-encoder", "paraformer-decoder")
TARGETS = ("native", "neoverse-n2")


def test_demo(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "graphopt", "demo", "--small", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    for words in ("before: operators of torch", "after: operators of graphopt", "by module"):
        assert done.stdout.count(words) == len(MODELS)
    assert "the same segments in 27" in done.stdout
    assert "speed-up" in done.stdout and "relative error" in done.stdout
    assert "Warning" not in done.stderr
    out = tmp_path / "out"
    for model, target in itertools.product(MODELS, TARGETS):
        name = f"{model}-{target}"
        assert json.loads((out / f"{name}.gopt" / "manifest.json").read_text())["target"] == target
        dumps = sorted(path.name for path in (out / "dumps" / name).rglob("*.txt"))
        assert dumps[0] == "00_capture.txt" and len(dumps) > 8
