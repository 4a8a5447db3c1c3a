"""Dead code: what nobody reads goes, checks and what feeds them stay."""

from graphs import F32, I64, Maker, X, check_left_alone, check_pass, mul, ops

from graphopt.ir import DimInfo, Node, scalar, symbolic
from graphopt.ir.ops import Aten, CachedAttention, Check, Cif, Reduce, Rope
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
    size = symbolic.symbol("T")
    for op in (Check(size), Aten("aten.item", {}, size=size)):  # which becomes go.check
        m = Maker()
        lengths = m.input("lengths", "B", dtype=I64)
        longest = m.op(Reduce(kind="max", axes=(0,)), lengths)
        m.graph.nodes.append(Node(op, {"value" if op.NAME else "x0": longest}, []))
        check_left_alone(EliminateDeadCode(), m.output(lengths))


def test_random_draws_that_nobody_reads_go() -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    m.torch("rand")
    graph = m.output(m.pointwise(mul(X, 2.0), x))
    assert EliminateDeadCode().run(graph)
    assert ops(graph) == ["pointwise"]


def test_keeps_what_writes_to_a_state() -> None:
    """A rotation whose result nobody reads still puts its keys into the cache."""
    m = Maker()
    graph = m.output(m.pointwise(mul(X, 2.0), m.input("x", "B", 4)))
    q, cache = m.input("q", "B", "T", 2, 4), m.input("cache", 1, 2, "B", 8, 2, 4)
    cache.is_state = True
    m.op(Rope(0), q, cache=cache)
    m.op(CachedAttention(0, 1.0), q, cache=cache)
    assert EliminateDeadCode().run(graph)
    assert ops(graph) == ["pointwise", "rope"]


def test_keeps_what_computes_a_dim_that_something_has_and_what_feeds_it() -> None:
    m = Maker()
    x, tokens = m.input("x", "B", "T", 4), symbolic.found_symbol("N")
    doubled = m.pointwise(mul(X, 2.0), x)
    m.graph.nodes.append(Node.of(Cif(1.0, "", "", "N"), hidden=doubled))
    m.graph.dims["N"] = DimInfo(tokens, 3, (), symbolic.symbol("T"))
    scale = mul(X, scalar.cast(scalar.size(tokens), F32))
    graph = m.output(m.pointwise(mul(X, 3.0), x), scaled := m.pointwise(scale, x))
    assert not EliminateDeadCode().run(graph)
    graph.outputs.remove(scaled)
    graph.conditions = [tokens > 1]
    assert EliminateDeadCode().run(graph)
    assert ops(graph) == ["pointwise", "cif", "pointwise"]
    graph.conditions = []
    assert EliminateDeadCode().run(graph)
    assert ops(graph) == ["pointwise"] and list(graph.dims) == ["B", "T"]
