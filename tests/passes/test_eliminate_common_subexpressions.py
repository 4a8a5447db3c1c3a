"""Common subexpressions: equal work is done once, and only equal work."""

import numpy as np
from graphs import Maker, X, Y, add, check_left_alone, check_pass, mul, ops

from graphopt.ir import Node, scalar
from graphopt.ir.ops import CachedAttention, Check, Pad, Rope
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
    draws = [m.torch("rand_like", x) for _ in range(2)]
    m.graph.nodes += [Node.of(Check(4), x) for _ in range(2)]
    check_left_alone(EliminateCommonSubexpressions(), m.output(*draws))


def test_numbers_that_compare_equal_are_not_the_same() -> None:
    """-0.0 and 0.0, True and 1, 1 and 1.0: in constants, in expressions and as attributes."""
    m = Maker()
    x = m.input("x", "B", 4)
    zeros = [m.constant(n, 4, data=np.full(4, v, np.float32)) for n, v in (("a", 0.0), ("b", -0.0))]
    ones = [m.constant(f"one{kind}", 1, data=np.ones(1, kind)) for kind in ("i1", "?", "u1", "i8")]
    values = [m.pointwise(scalar.apply("div", X, Y), x, z) for z in zeros]
    values += [m.pointwise(mul(X, v), x) for v in (0.0, -0.0)]
    values += [m.op(Pad((0, 1), v, m.shape("B", 6)), x) for v in (0.0, -0.0, 1, 1.0, True)]
    values += [m.pointwise(scalar.operand(0, v.dtype), v) for v in ones]
    check_left_alone(EliminateCommonSubexpressions(), m.output(*values))
    assert len(list(m.graph.constants())) == 6


def test_reads_of_a_state_across_a_write_stay_two() -> None:
    m = Maker()
    q, cache = m.input("q", "B", "T", 2, 4), m.input("cache", 1, 2, "B", 8, 2, 4)
    other = m.input("other", 1, 2, "B", 8, 2, 4)
    cache.is_state = other.is_state = True

    def read(state):
        return m.op(CachedAttention(0, 1.0), q, cache=state)

    def write():
        return m.op(Rope(0), q, cache=cache)

    values = [read(cache), read(other), write(), read(cache), write(), read(cache)]
    graph = m.output(*values, read(other), read(cache))
    assert EliminateCommonSubexpressions().run(graph)
    names = ["cached_attention", "cached_attention", "rope", "cached_attention"]
    assert ops(graph) == [*names, "rope", "cached_attention"]
    assert graph.outputs[6] is values[1] and graph.outputs[7] is values[5]
    assert len({id(v) for v in graph.outputs[:6]}) == 6
