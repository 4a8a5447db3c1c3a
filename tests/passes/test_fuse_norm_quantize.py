"""Norms that quantize their own rows."""

from graphs import Maker, X, check_left_alone, check_pass, mul, ops

from graphopt.ir import DType
from graphopt.passes.fuse_norm_quantize import FuseNormQuantize


def quantize(m: Maker, x):
    rows = m.op("go.quantize_rows", [x], *x.shape, dtype=DType.I8)
    rows.packed = "qa8r"
    y = m.linear(rows, 16)
    m.graph.nodes[-1].attrs["scheme"] = "int8"
    return y


def test_norm_writes_quantized_rows(golden) -> None:
    m = Maker()
    graph = m.output(quantize(m, m.norm(m.input("x", "B", "T", 32))))
    golden("fuse_norm_quantize", check_pass(FuseNormQuantize(), graph))
    assert ops(graph) == ["norm", "linear"]
    assert graph.nodes[0].attrs["writes"] == ("packed",)


def test_norm_writes_both_if_something_else_reads_the_rows() -> None:
    for reader in ("node", "output"):
        m = Maker()
        normed = m.norm(m.input("x", "B", "T", 32))
        y = quantize(m, normed)
        graph = m.output(y, m.pointwise(mul(X, 2.0), normed) if reader == "node" else normed)
        check_pass(FuseNormQuantize(), graph)
        assert graph.nodes[0].attrs["writes"] == ("dst", "packed")


def test_rows_of_other_nodes_are_left_alone() -> None:
    m = Maker()
    x = m.pointwise(mul(X, 2.0), m.input("x", "B", 32))
    check_left_alone(FuseNormQuantize(), m.output(quantize(m, x)))
