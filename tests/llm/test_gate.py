"""The gate of a decoder's feed-forward layers: one step with the quantization that follows."""

import numpy as np
import pytest
from decoders import tiny_decoder

from graphopt.compiler.options import Options
from graphopt.compiler.program import Program
from graphopt.llm.compiled import compile_decoder
from graphopt.llm.generate.engine import Engine

PROMPT = [3, 14, 15, 92, 65, 35, 89]


def logits(engine: Engine) -> np.ndarray:
    """Of the prompt and of a token behind it."""
    cache = engine.new_cache()
    return np.array([engine.forward(np.array([new]), cache)[0] for new in (PROMPT, [7])])


def gate_kernels(program: Program) -> list[str]:
    nodes = program.graph.nodes
    return [n.kernel for n in nodes if str(getattr(n.op, "expr", "")) == "mul(silu(x0), x1)"]


@pytest.mark.parametrize(("precision", "group"), [("int8", 32), ("int4", 32), ("int4", 0)])
def test_logits_are_those_of_two_steps(
    precision: str, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"group_size": group or None} if precision == "int4" else {}
    options = Options.of(precision=precision, num_threads=2, **kept)
    program, fused = compile_decoder(tiny_decoder(), options)
    monkeypatch.setenv("GRAPHOPT_SKIP", "fuse_quantize")
    other, apart = compile_decoder(tiny_decoder(), options)
    assert gate_kernels(program) == ["go_quantize_rows"] * 2
    assert gate_kernels(other) == ["loop"] * 2
    np.testing.assert_array_equal(logits(fused), logits(apart))
