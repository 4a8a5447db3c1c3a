"""Products with rows of a table: multiplied by the table where it is small."""

import pytest
from graphs import I64, Maker, X, check_left_alone, check_pass, mul, ops

from graphopt.ir.ops import Gather, Matmul
from graphopt.passes.eliminate_dead_code import EliminateDeadCode
from graphopt.passes.multiply_tables import MultiplyTables


def scores(m: Maker, rows: int = 5, axes=(0, 2, 1), again: bool = False):
    """Of positions: q [T, 3, 8] times rows of a table [.., 8] for every pair of T frames."""
    q, pairs = m.input("q", "T", 3, 8), m.input("pairs", "T", "T", dtype=I64)
    picked = m.op(Gather(), m.constant("table", rows, 8), indices=pairs)
    y = m.op(Matmul(), q, m.permute(picked, *axes))
    return m.output(y, *([m.pointwise(mul(X, 2.0), picked)] if again else []))


def test_few_rows_are_multiplied_once() -> None:
    graph = scores(Maker())
    assert ops(graph) == ["gather", "permute", "matmul"]
    check_pass(MultiplyTables(), graph, T=7)
    EliminateDeadCode().run(graph)
    assert ops(graph) == ["linear", "reshape", "pointwise"]


@pytest.mark.parametrize(
    "given",
    [{"rows": 6}, {"axes": (1, 2, 0)}, {"again": True}],
    ids=["more rows than are picked", "other axes", "rows that another reads"],
)
def test_left_alone(given) -> None:
    check_left_alone(MultiplyTables(), scores(Maker(), **given))
