"""docs/architecture.md lists the passes that run, in the order in which they first run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_passes_are_listed_in_order() -> None:
    pytest.importorskip("sympy")
    from graphopt import target
    from graphopt.compiler import pipeline

    passes = [
        *pipeline.lowering_passes(),
        *pipeline.precision_passes("int4+int8+bf16", activation_bits=16),
        *pipeline.placement_passes(target.native()),
    ]
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.M)
    assert listed == list(dict.fromkeys(step.name for step in passes))


def test_files_exist() -> None:
    folders = ("", "graphopt", "graphopt/funasr", "kernels/include", "kernels")
    for name in re.findall(r"[\w/]+\.(?:py|h)\b", PAGE):
        assert any((ROOT / folder / name).exists() for folder in folders), name
