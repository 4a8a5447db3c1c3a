"""Constant folding: what needs no input is computed, within bounds."""

import numpy as np
from graphs import F32, Maker, X, add, check_left_alone, check_pass, mul, ops

from graphopt.ir import DType, Value, scalar
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Cat, Expand
from graphopt.passes.fold_constants import FoldConstants

RAMP = scalar.apply("exp", mul(scalar.cast(scalar.index(0), F32), -0.03))


def test_arithmetic_on_constants_is_folded(golden) -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    ramp = m.pointwise(RAMP, shape=(4,))
    scaled = m.pointwise(add(), ramp, m.constant("offset", 4))
    graph = m.output(m.pointwise(mul(), x, scaled))
    golden("fold_constants", check_pass(FoldConstants(), graph))
    assert ops(graph) == ["pointwise"]


def test_an_output_of_the_graph_is_folded() -> None:
    m = Maker()
    m.input("x", "B")
    graph = m.output(m.pointwise(RAMP, shape=(4,)))
    check_pass(FoldConstants(), graph)
    np.testing.assert_allclose(
        run_graph(graph, [np.zeros(2, np.float32)])[0], np.exp(-0.03 * np.arange(4)), rtol=1e-6
    )


def test_bf16_constants_keep_their_type() -> None:
    m = Maker()
    x = m.input("x", 2, dtype=DType.BF16)
    one = Value(DType.BF16, (2,), "one", data=np.full(2, 0x3F80, np.uint16))
    wide = scalar.cast(scalar.operand(0, DType.BF16), F32)
    two = m.pointwise(scalar.cast(add(wide, wide), DType.BF16), one)
    both = m.op(Cat(axis=0), x, two)
    graph = m.output(both)
    check_pass(FoldConstants(), graph)
    (folded,) = graph.constants()
    assert folded.data is not None and folded.data.tolist() == [0x4000] * 2


def test_symbolic_sizes_are_left_alone() -> None:
    m = Maker()
    m.input("x", "T")
    size = scalar.cast(scalar.size(m.shape("T")[0]), F32)
    check_left_alone(FoldConstants(), m.output(m.pointwise(RAMP, shape=("T",))))
    check_left_alone(FoldConstants(), m.output(m.pointwise(size, shape=(4,))))


def test_large_results_are_left_alone() -> None:
    m = Maker()
    check_left_alone(FoldConstants(), m.output(m.pointwise(RAMP, shape=((64 << 18) + 1,))))


def test_expand_is_left_alone() -> None:
    m = Maker()
    check_left_alone(
        FoldConstants(), m.output(m.op(Expand(shape=m.shape(9, 4)), m.constant("c", 1, 4)))
    )


def test_nodes_on_inputs_are_left_alone() -> None:
    m = Maker()
    check_left_alone(FoldConstants(), m.output(m.pointwise(mul(X, 2.0), m.input("x", 4))))
