"""Random models over every lowering rule: in numpy and compiled, against torch in float64."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from generate import generate  # noqa: E402
from judge import Wrong, case_of, compare, compare_code, judge, optimized  # noqa: E402
from overloads import KINDS  # noqa: E402
from plan_noise import OFF  # noqa: E402
from program import Program  # noqa: E402
from random_graphs import shrunk  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from graphopt.frontend.import_torch import schema_text  # noqa: E402
from graphopt.kernels.reference import Array, QuantizedRows, quantize_rows  # noqa: E402
from graphopt.passes.lower_aten import RULES  # noqa: E402
from graphopt.passes.lowering import experts  # noqa: E402
from graphopt.passes.lowering.schema import overload  # noqa: E402

COUNT, COMPILED = 60, 10
ATTEMPTS = 40  # models of a kind, to reach an overload that it has
#: A number that comes out of a tensor ends a trace with values; torch.export has stand-ins there.
#: Recurrent layers are ops of graphopt's while it captures alone.
NOT_TRACED = {"aten.item", "graphopt.recurrent"}
#: Rules of an op that transformers registers (test_experts.py).
OF_OTHERS = set(experts.RULES)


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


def test_every_overload_is_reached() -> None:
    """A new lowering rule is tried in random models from the day it is there.

    A kind has the name of an overload, or of an op if its lines reach each overload now and then.
    """
    reached, named = set(NOT_TRACED), set(RULES) - OF_OTHERS
    for name in sorted(named):
        kind = name if name in KINDS else ".".join(name.split(".")[:2])
        assert kind in KINDS, "enter it in tests/fuzz/lines.py or overloads.py"
        for seed in range(ATTEMPTS):
            if name not in reached:
                reached |= _overloads(generate(seed, (kind,), "fp32"))
    assert named <= reached, named - reached


def _overloads(program: Program) -> set[str]:
    """The overloads that torch.export meets in a model."""
    loaded = program.load()
    with torch.no_grad():
        traced = make_fx(loaded.model, pre_dispatch=True)(*loaded.inputs(*program.sizes[0]))
    targets = (node.target for node in traced.graph.nodes)
    found = (t._schema for t in targets if isinstance(t, torch._ops.OpOverload))
    return {overload(schema_text(schema)) for schema in found}


@pytest.mark.parametrize("error", [2.0**-20, 2.0**-6])
def test_code_is_held_to_its_plan(error: float) -> None:
    """An error in every scale that the loss of int8 hides is none of last bits."""
    program = generate(1, ("aten.linear", "aten.linear"), "int8")
    module, case = optimized(program), case_of(program, program.sizes[0])
    assert case is not None
    plan = list(module.interpret(*case.inputs))

    def quantize(x: Array, together: int = 1) -> QuantizedRows:
        rows = quantize_rows(x, together)
        return replace(rows, scale=rows.scale * np.float32(1 + error))

    with patch("graphopt.kernels.reference.quantize_rows", quantize):
        code = list(module.interpret(*case.inputs))
    compare(code, case, "code", case.bounds)
    if error < OFF:
        compare_code(module, case, code, plan)
    else:
        with pytest.raises(Wrong, match="departs"):
            compare_code(module, case, code, plan)
