"""Dead code: what nobody reads goes, checks and what feeds them stay."""

from graphs import I64, Maker, X, check_left_alone, check_pass, mul, ops

from graphopt.ir import Node
from graphopt.passes.eliminate_dead_code import EliminateDeadCode


def test_removes_chains_that_nobody_reads(golden) -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    kept = m.pointwise(mul(X, 2.0), x)
    m.permute(m.pointwise(mul(X, 3.0), x), 1, 0)
    golden("eliminate_dead_code", check_pass(EliminateDeadCode(), m.output(kept)))


def test_keeps_everything_that_is_read() -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    check_left_alone(EliminateDeadCode(), m.output(m.permute(m.pointwise(mul(X, 2.0), x), 1, 0)))


def test_keeps_checks_and_what_feeds_them() -> None:
    for op in ("go.check", "aten.item"):  # aten.item becomes go.check
        m = Maker()
        lengths = m.input("lengths", "B", dtype=I64)
        longest = m.op("go.reduce", [lengths], 1, dtype=I64, kind="max", axes=(0,))
        m.graph.nodes.append(Node(op, [longest], [], {"size": m.shape("T")[0]}))
        check_left_alone(EliminateDeadCode(), m.output(lengths))


def test_random_draws_that_nobody_reads_go() -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    m.op("aten.rand", [], 4)
    graph = m.output(m.pointwise(mul(X, 2.0), x))
    assert EliminateDeadCode().run(graph)
    assert ops(graph) == ["pointwise"]


def test_keeps_what_writes_to_a_state() -> None:
    """A rotation whose result nobody reads still puts its keys into the cache."""
    m = Maker()
    graph = m.output(m.pointwise(mul(X, 2.0), m.input("x", "B", 4)))
    q, cache = m.input("q", "B", "T", 2, 4), m.input("cache", 1, 2, "B", 8, 2, 4)
    cache.is_state = True
    m.op("go.rope", [q, cache], *q.shape, roles=("q", "cache"), layer=0)
    m.op("go.cached_attention", [q, cache], *q.shape, roles=("q", "cache"), layer=0)
    assert EliminateDeadCode().run(graph)
    assert ops(graph) == ["pointwise", "rope"]


def test_keeps_what_computes_a_dim_and_what_feeds_it() -> None:
    m = Maker()
    x = m.input("x", "B", "T", 4)
    doubled = m.pointwise(mul(X, 2.0), x)
    m.op("go.cif", [doubled], "B", "N", 4, computes="N")
    graph = m.output(m.pointwise(mul(X, 3.0), x))
    assert not EliminateDeadCode().run(graph)
    assert ops(graph) == ["pointwise", "cif", "pointwise"]
