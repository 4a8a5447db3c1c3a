"""Ops that quantize the rows they make."""

from graphs import BF16, F32, Maker, X, Y, check_left_alone, check_pass, mul, ops

from graphopt import scalar
from graphopt.ir import DType
from graphopt.passes.assign_layouts import AssignLayouts
from graphopt.passes.fuse_quantize import FuseQuantize


def quantize(m: Maker, x):
    rows = m.op("go.quantize_rows", [x], *x.shape, dtype=DType.I8)
    rows.packed = "qa8r"
    y = m.linear(rows, 16)
    m.graph.nodes[-1].attrs["scheme"] = "int8"
    return y


def test_norm_writes_quantized_rows(golden) -> None:
    m = Maker()
    graph = m.output(quantize(m, m.norm(m.input("x", "B", "T", 32))))
    golden("fuse_quantize", check_pass(FuseQuantize(), graph))
    assert ops(graph) == ["norm", "linear"]
    assert graph.nodes[0].attrs["writes"] == ("packed",)


def test_1_norm_writes_both_if_something_else_reads_the_rows() -> None:
    for reader in ("node", "output"):
        m = Maker()
        normed = m.norm(m.input("x", "B", "T", 32))
        y = quantize(m, normed)
        graph = m.output(y, m.pointwise(mul(X, 2.0), normed) if reader == "node" else normed)
        check_pass(FuseQuantize(), graph)
        assert graph.nodes[0].attrs["writes"] == ("dst", "packed")


def test_gate_is_quantized_by_the_loop_that_computes_it(golden) -> None:
    m = Maker()
    both = m.input("x", "B", "T", 64)
    gate, up = m.slice(both, 2, 0, 32), m.slice(both, 2, 32, 32)
    graph = m.output(quantize(m, m.pointwise(mul(scalar.apply("silu", X)), gate, up)))
    golden("fuse_quantize_gate", check_pass(FuseQuantize(), graph))
    assert ops(graph) == ["slice", "slice", "pointwise", "linear"]


def test_2_rows_that_something_else_reads_are_computed_once() -> None:
    for reader in ("node", "output"):
        m = Maker()
        x = m.pointwise(mul(X, 2.0), m.input("x", "B", 32))
        y = quantize(m, x)
        other = m.pointwise(mul(X, 3.0), x) if reader == "node" else x
        check_left_alone(FuseQuantize(), m.output(y, other))


def test_other_rows_are_left_alone() -> None:
    m = Maker()
    x = m.input("x", "B", 32)
    wide = mul(X, 2.0)
    rows = [
        x,
        m.pointwise(scalar.cast(wide, BF16), x),
        m.pointwise(scalar.cast(scalar.index(1), F32), shape=("B", 32)),
        m.op("go.softmax", [x], "B", 32, log=False),
    ]
    check_left_alone(FuseQuantize(), m.output(*(quantize(m, y) for y in rows)))


def test_operands_of_a_quantized_loop_run_along_its_rows() -> None:
    """A loop over rows would walk a transposed operand column by column."""
    m = Maker()
    x, scale = m.input("x", "B", 32, "T"), m.input("scale", "B", "T", 1)
    graph = m.output(quantize(m, m.pointwise(mul(X, Y), m.permute(x, 0, 2, 1), scale)))
    FuseQuantize().run(graph)
    AssignLayouts().run(graph)
    (copy, loop) = (n for n in graph.nodes if n.op == "go.pointwise")
    assert loop.inputs == [copy.output, scale]
    assert copy.reasons == ["assign_layouts: copied for go.pointwise: it computes row after row"]
