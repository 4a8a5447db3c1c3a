"""What finishes a result goes along, whatever a pass makes of the op that computes it."""

import numpy as np
import pytest
from graphs import Maker, random_inputs

from graphopt.compiler.pipeline import lowering_passes, precision_passes
from graphopt.ir import Value
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Linear

FINISHED = {"activation": "leaky_relu", "slope": 0.7, "last": "relu"}
#: Of what a sum can be off in each precision, of the largest value; half of what is lost is 0.2.
BOUNDS = {"fp32": 1e-6, "bf16": 0.02, "int8": 0.03, "int4": 0.15}


def contractions(m: Maker) -> list[Value]:
    """A linear, and convolutions of one tap, more, in groups, of a filter a channel: finished."""
    rows, wide, image = m.input("rows", "B", 64), m.input("wide", "B", 64, "T"), []
    extras = {role: m.input(f"{role}_r", "B", 64) for role in ("factor", "residual0", "residual1")}
    weight, bias = m.constant("w", 64, 64), m.constant("b", 64)
    image.append(m.op(Linear(**FINISHED), rows, weight, bias=bias, **extras))
    extras = {role: m.input(role, "B", 64, "T") for role in ("factor", "residual0", "residual1")}
    for taps, groups in ((1, 1), (3, 1), (3, 2), (3, 64)):
        filters = m.constant(f"k{taps}_{groups}", 64, 64 // groups, taps)
        given = {"groups": groups, "padding": (0, taps // 2), **FINISHED, **extras}
        image.append(m.conv(wide, filters, "B", 64, "T", bias=bias, **given))
    return image


@pytest.mark.parametrize(
    ("precision", "bits"), [("fp32", 8), ("bf16", 8), ("int8", 8), ("int8", 16), ("int4", 8)]
)
def test_no_pass_loses_what_finishes_a_result(precision: str, bits: int) -> None:
    m = Maker()
    graph = m.output(*contractions(m))
    inputs = random_inputs(graph, B=3, T=7)
    expected = run_graph(graph, inputs)
    for step in [*lowering_passes(), *precision_passes(precision, activation_bits=bits)]:
        step.run(graph)
        for made, value in zip(run_graph(graph, inputs), expected, strict=True):
            error = np.abs(made - value).max() / np.abs(value).max()
            assert error < BOUNDS[precision], (step.name, error)
