"""bf16: what is multiplied and stored narrow, and what must not be."""

import numpy as np
import pytest
from graphs import BF16, F32, Maker, X, add, check_left_alone, mul, ops, random_inputs

from graphopt.errors import WeightError
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Attention, Linear, Matmul
from graphopt.ir.printer import print_graph
from graphopt.ir.verify import verify
from graphopt.passes.lower_bf16 import LowerBf16
from graphopt.testing import BF16_RELATIVE, relative_error

BTC = ("B", "T", 16)


def lower(graph, gemm: bool = True) -> list[float]:
    """Relative errors of the outputs after the pass."""
    inputs = random_inputs(graph)
    before = run_graph(graph, inputs)
    assert LowerBf16(gemm).run(graph)
    verify(graph, "lower_bf16")
    errors = [relative_error(a, b) for a, b in zip(run_graph(graph, inputs), before, strict=True)]
    text = print_graph(graph, reasons=True)
    assert not LowerBf16(gemm).run(graph)
    assert print_graph(graph, reasons=True) == text
    return errors


def test_1_linears_and_2_storage(golden) -> None:
    m = Maker()
    y = m.linear(m.input("x", *BTC), 24)
    graph = m.output(m.linear(m.norm(y), 8, name="v"))
    errors = lower(graph)
    golden("lower_bf16", print_graph(graph))
    assert 1e-5 < errors[0] < 3 * BF16_RELATIVE  # two multiplications and a norm
    assert [n.output.dtype for n in graph.nodes] == [BF16, BF16, BF16, BF16, F32]


def test_1_only_if_the_gemm_is_bf16() -> None:
    m = Maker()
    graph = m.output(m.norm(m.linear(m.input("x", *BTC), 24)))
    lower(graph, gemm=False)
    assert ops(graph) == ["linear", "norm"] and graph.nodes[0].output.dtype is BF16


def test_1_int8_linears_are_left_alone() -> None:
    m = Maker()
    y = m.quantized(m.input("x", *BTC), 24)
    check_left_alone(LowerBf16(gemm=True), m.output(y))


def test_2_arithmetic_widens_what_it_reads() -> None:
    m = Maker()
    y = m.linear(m.input("x", *BTC), 8)
    graph = m.output(m.pointwise(add(mul(X, 2.0), X), y))
    (error,) = lower(graph, gemm=False)
    assert 0 < error < BF16_RELATIVE and graph.nodes[0].output.dtype is BF16


def test_2_views_become_narrow_too() -> None:
    m = Maker()
    y = m.slice(m.reshape(m.linear(m.input("x", *BTC), 8), "B", "T", 2, 4), 2, 0, 1)
    graph = m.output(m.pointwise(mul(X, 2.0), y))
    lower(graph, gemm=False)
    assert [n.output.dtype for n in graph.nodes] == [BF16, BF16, BF16, F32]


def attention(m: Maker, sources) -> None:
    heads = [m.permute(m.reshape(v, "B", "T", 2, 8), 0, 2, 1, 3) for v in sources]
    y = m.op(Attention(0.3), *heads)
    m.output(m.pointwise(mul(X, 2.0), y))


def test_2_query_key_and_value_together() -> None:
    m = Maker()
    x = m.input("x", *BTC)
    attention(m, [m.linear(x, 16, name=n) for n in "qkv"])
    lower(m.graph)
    (node,) = (n for n in m.graph.nodes if isinstance(n.op, Attention))
    assert [v.dtype for v in (*node.inputs, node.output)] == [BF16] * 4


def test_query_stays_f32_beside_f32_keys() -> None:
    m = Maker()
    x = m.input("x", *BTC)
    attention(m, [m.linear(x, 16), x, m.linear(x, 16, name="v")])
    lower(m.graph)
    (node,) = (n for n in m.graph.nodes if isinstance(n.op, Attention))
    assert [v.dtype for v in node.inputs] == [F32] * 3
    assert any("beside an f32 tensor" in r for n in m.graph.nodes for r in n.reasons)


def test_one_mixed_attention_keeps_the_other_f32_too() -> None:
    m = Maker()
    x = m.input("x", *BTC)
    shared = m.linear(x, 16, name="k")
    q = m.linear(x, 16, name="q")
    outputs = []
    for sources in ((q, shared, shared), (x, shared, shared)):
        attention(m, sources)
        outputs += m.graph.outputs
    m.output(*outputs)
    lower(m.graph)
    nodes = [n for n in m.graph.nodes if isinstance(n.op, Attention)]
    assert {v.dtype for n in nodes for v in n.inputs} == {F32}


def test_the_residual_stream_is_left_in_f32() -> None:
    m = Maker()
    x = m.input("x", *BTC)
    first = m.linear(x, 16, name="a")
    m.graph.nodes[-1].operands["residual0"] = x
    second = m.linear(first, 16, name="b")
    m.graph.nodes[-1].operands["residual0"] = first
    graph = m.output(m.pointwise(mul(X, 2.0), second))
    lower(graph)
    linears = [n for n in graph.nodes if isinstance(n.op, Linear)]
    assert [n.output.dtype for n in linears] == [F32, BF16]
    assert "lower_bf16: kept f32: residual stream" in linears[0].reasons


@pytest.mark.parametrize("reader", ["output", "matmul", "view_of_output"])
def test_outputs_and_f32_readers_keep_values_f32(reader: str) -> None:
    m = Maker()
    y = m.linear(m.input("x", 4, 16), 4)
    if reader == "matmul":
        graph = m.output(m.op(Matmul(), y, m.constant("r", 4, 4)))
    elif reader == "view_of_output":
        graph = m.output(m.permute(y, 1, 0))
    else:
        graph = m.output(y)
    check_left_alone(LowerBf16(gemm=False), graph)


def test_a_weight_that_is_not_finite_is_refused_by_name() -> None:
    m = Maker()
    graph = m.output(m.linear(m.input("x", *BTC), 16, name="heavy"))
    graph.nodes[0].inputs[1].data[0, 0] = np.inf
    with pytest.raises(WeightError, match="'heavy'"):
        LowerBf16(gemm=True).run(graph)
