"""Common subexpressions: equal work is done once, and only equal work."""

import numpy as np
from graphs import Maker, X, add, check_left_alone, check_pass, mul, ops

from graphopt.ir import Node
from graphopt.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions


def test_equal_nodes_merge(golden) -> None:
    m = Maker()
    x = m.input("x", "B", 6)
    first, second = (m.pointwise(mul(X, 2.0), m.slice(x, 1, 0, 4)) for _ in range(2))
    graph = m.output(m.pointwise(add(), first, second))
    golden("eliminate_common_subexpressions", check_pass(EliminateCommonSubexpressions(), graph))
    assert graph.nodes[-1].inputs[0] is graph.nodes[-1].inputs[1]


def test_equal_small_constants_merge() -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    a, b = (m.constant(n, 4, data=np.arange(4, dtype=np.float32)) for n in "ab")
    graph = m.output(m.pointwise(add(), m.pointwise(add(), x, a), b))
    check_pass(EliminateCommonSubexpressions(), graph)
    assert [v.name for v in graph.constants()] == ["a"]


def test_large_constants_are_not_compared() -> None:
    m = Maker()
    x = m.input("x", "B", 32768)
    a, b = (m.constant(n, 32768, data=np.ones(32768, np.float32)) for n in "ab")
    graph = m.output(m.pointwise(add(), m.pointwise(add(), x, a), b))
    check_left_alone(EliminateCommonSubexpressions(), graph)


def test_different_work_stays() -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    other = m.input("y", "B", 4)
    values = [
        m.pointwise(mul(X, 2.0), x),
        m.pointwise(mul(X, 3.0), x),
        m.pointwise(mul(X, 2.0), other),
        m.slice(x, 1, 0, 2),
        m.slice(x, 1, 1, 2),
        m.slice(x, 1, 0, 2, step=2),
    ]
    check_left_alone(EliminateCommonSubexpressions(), m.output(*values))


def test_equal_outputs_of_the_graph_stay_two_outputs() -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    graph = m.output(m.pointwise(mul(X, 2.0), x), m.pointwise(mul(X, 2.0), x))
    check_pass(EliminateCommonSubexpressions(), graph)
    assert len(graph.outputs) == 2 and ops(graph) == ["pointwise"]


def test_aten_nodes_and_checks_are_left_alone() -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    draws = [m.op("aten.rand_like", [x], *x.shape) for _ in range(2)]
    m.graph.nodes += [Node("go.check", [x], [], {"size": 4}) for _ in range(2)]
    check_left_alone(EliminateCommonSubexpressions(), m.output(*draws))
