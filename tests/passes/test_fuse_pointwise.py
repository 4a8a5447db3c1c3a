"""Element-wise fusion: one loop where that computes nothing twice that matters."""

from functools import reduce

import numpy as np
from graphs import (
    BOOL,
    F32,
    I64,
    Maker,
    X,
    Y,
    add,
    check_left_alone,
    check_pass,
    mul,
    ops,
    random_inputs,
)

from graphopt.ir import scalar, symbolic
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Pointwise
from graphopt.ir.scalar import Scalar
from graphopt.passes.fuse_pointwise import FusePointwise

SHAPE = ("B", "T", 4)


def exp(x=X):
    return scalar.apply("exp", x)


def test_1_chain(golden) -> None:
    m = Maker()
    x, p = m.input("x", *SHAPE), m.input("p", *SHAPE)
    y = m.pointwise(add(), m.pointwise(mul(X, 22.6), x), p)
    golden("fuse_pointwise", check_pass(FusePointwise(), m.output(y)))


def test_1_same_operand_twice() -> None:
    m = Maker()
    x = m.input("x", *SHAPE)
    y = m.pointwise(mul(), *(m.pointwise(add(), x, x),) * 2)
    graph = m.output(y)
    check_pass(FusePointwise(), graph)
    assert ops(graph) == ["pointwise"]


def test_1_cheap_broadcasts_are_computed_again() -> None:
    m = Maker()
    x, gain = m.input("x", *SHAPE), m.input("gain", 4)
    graph = m.output(m.pointwise(mul(), x, m.pointwise(add(X, scalar.const(1, F32)), gain)))
    check_pass(FusePointwise(), graph)
    assert ops(graph) == ["pointwise"]


def test_1_costly_broadcasts_are_left_alone() -> None:
    m = Maker()
    x, gain = m.input("x", *SHAPE), m.input("gain", 4)
    check_left_alone(FusePointwise(), m.output(m.pointwise(mul(), x, m.pointwise(exp(), gain))))


def test_1_results_with_several_readers_are_left_alone() -> None:
    m = Maker()
    y = m.pointwise(mul(X, 2.0), m.input("x", *SHAPE))
    check_left_alone(FusePointwise(), m.output(m.pointwise(exp(), y), y))


def test_2_nodes_without_inputs() -> None:
    m = Maker()
    x = m.input("x", *SHAPE)
    time = m.pointwise(scalar.cast(scalar.index(0), F32), shape=("T", 1))
    graph = m.output(m.pointwise(add(), x, time), m.pointwise(mul(), x, time))
    inputs = random_inputs(graph)
    check_pass(FusePointwise(), graph)
    assert [len(n.inputs) for n in graph.nodes] == [1, 1]
    steps = np.arange(5, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(run_graph(graph, inputs)[0], inputs[0] + steps)


def test_an_index_along_a_broadcast_axis_is_left_alone() -> None:
    m = Maker()
    x, row = m.input("x", *SHAPE), m.input("row", "T", 1)
    numbered = add(X, scalar.cast(scalar.index(1), F32))  # always 0 there, never in the result
    check_left_alone(FusePointwise(), m.output(m.pointwise(mul(), x, m.pointwise(numbered, row))))


def test_what_is_loaded_is_computed_at_the_indices_of_the_load() -> None:
    m = Maker()
    x, turn = m.input("x", *SHAPE), m.input("turn", "T", 1)
    turned = m.op(Pointwise(_backwards(), m.shape(*SHAPE)), x)
    y = m.pointwise(add(X, scalar.cast(scalar.index(1), F32)), turned)
    gate = m.pointwise(mul(), y, turn)
    graph = m.output(m.op(Pointwise(add(_backwards(), Y), m.shape(*SHAPE)), gate, turn))
    check_pass(FusePointwise(), graph)
    assert ops(graph) == ["pointwise"]


def test_what_is_loaded_is_left_alone_where_it_is_costly_or_read_elsewhere() -> None:
    m = Maker()
    x = m.input("x", *SHAPE)
    y, z = m.pointwise(exp(), x), m.pointwise(mul(X, 2.0), x)
    backwards = [m.op(Pointwise(_backwards(), m.shape(*SHAPE)), v) for v in (y, z)]
    check_left_alone(FusePointwise(), m.output(*backwards, z))


def test_checks_still_run_for_every_element() -> None:
    m = Maker()
    x, words, mask = m.input("x", "T"), m.input("w", "B", dtype=I64), m.input("m", "B", dtype=BOOL)
    (t,) = m.shape("T")
    word = scalar.load(0, F32, (scalar.check(scalar.operand(1, I64), t),))
    y, z = (m.op(Pointwise(word, m.shape("B")), x, words) for _ in range(2))
    chosen = scalar.apply("where", scalar.operand(1, BOOL), X, scalar.const(0, F32))
    first = scalar.load(0, F32, (scalar.const(0, I64),))
    graph = m.output(m.pointwise(chosen, y, mask), m.op(Pointwise(first, m.shape(2)), z))
    check_left_alone(FusePointwise(), graph)


def _backwards() -> Scalar:
    """An element of operand 0, the axis T backwards."""
    last = scalar.size(symbolic.symbol("T") - 1)
    at = (scalar.index(0), scalar.apply("sub", last, scalar.index(1)), scalar.index(2))
    return scalar.load(0, F32, at)


def test_many_operands_are_left_alone() -> None:
    m = Maker()
    values = [m.input(f"x{i}", *SHAPE) for i in range(12)]
    graph = m.output(reduce(lambda a, b: m.pointwise(add(), a, b), values))
    check_pass(FusePointwise(), graph)
    assert len(graph.nodes) == 2 and max(len(n.inputs) for n in graph.nodes) == 8


def test_many_operations_are_left_alone() -> None:
    m = Maker()
    x = m.input("x", *SHAPE)
    for _ in range(5):
        x = m.pointwise(exp(), x)
    graph = m.output(x)
    check_pass(FusePointwise(), graph, 1e-5, T=1)
    assert [n.op.expr.cost for n in graph.nodes] == [80, 20]


def test_operations_of_a_repeated_operand_count_each_time() -> None:
    m = Maker()
    x = m.pointwise(exp(), m.input("x", *SHAPE))
    for _ in range(8):
        x = m.pointwise(mul(), x, x)
    graph = m.output(x)
    FusePointwise().run(graph)
    assert max(n.op.expr.cost for n in graph.nodes) <= 80
