"""Random models over every lowering rule: in numpy and compiled, against torch in float64."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from generate import generate  # noqa: E402
from judge import Wrong, judge  # noqa: E402
from lines import KINDS  # noqa: E402
from random_graphs import shrunk  # noqa: E402

from graphopt.passes.lower_aten import RULES  # noqa: E402

COUNT, COMPILED = 100, 10


@pytest.mark.parametrize("first", range(0, COUNT, COMPILED))
def test_compiled_equals_float64(first: int) -> None:
    """Ten models, of which the first is built and the others run in numpy."""
    for seed in range(first, first + COMPILED):
        program, compiled = generate(seed), seed == first
        try:
            counts = judge(program, compiled).counts
        except Wrong as fault:
            text = shrunk(program, fault, compiled)
            pytest.fail(f"seed {seed}: {fault}\n{text}", pytrace=False)
        assert "says nothing" not in counts, f"seed {seed} tests nothing: {program.script()}"


def test_every_rule_has_a_kind() -> None:
    """A new lowering rule is tried in random models from the day it is there."""
    rules = {".".join(name.split(".")[:2]) for name in RULES}
    assert rules <= set(KINDS), "enter them in tests/fuzz/lines.py"
