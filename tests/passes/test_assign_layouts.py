"""Memory layouts: views cost nothing, kernels find what they need, copies say why."""

import pytest
from graphs import I64, Maker, X, add, check_left_alone, check_pass, mul, ops

from graphopt.ir.layout import dense, is_contiguous, layout_of
from graphopt.ir.ops import Attention, Expand, Gather, Matmul, Softmax
from graphopt.ir.verify import unwritten
from graphopt.passes.assign_layouts import AssignLayouts

BTC = ("B", "T", 8)


def assign(graph):
    AssignLayouts().run(graph)
    return graph


def copies(graph) -> list[str]:
    """Reasons of inserted copies."""
    return [r for n in graph.nodes for r in n.reasons if r.startswith("assign_layouts: copied")]


def test_rows_of_channels_in_the_midst_of_others_are_added_where_they_are() -> None:
    """As of what a transposed convolution leaves between cropped edges."""
    m = Maker()
    x = m.input("x", 1, "T", 4)
    y = m.permute(m.linear(x, 4), 0, 2, 1)
    t = m.shape("T")[0]
    cropped = m.slice(y, 2, 1, t - 2)
    z = m.conv(y, m.constant("w", 4, 4, 3), 1, 4, t - 2, residual0=cropped)
    graph = assign(m.output(z))
    assert copies(graph) == ["assign_layouts: copied for output: not memory of its own"]


def test_1_views_share_memory() -> None:
    m = Maker()
    x = m.input("x", *BTC)
    base = m.pointwise(mul(X, 2.0), x)
    views = [
        m.permute(base, 2, 0, 1),
        m.slice(base, 1, 1, m.shape("T")[0] - 1),
        m.reshape(base, "B", "T", 2, 4),
        m.op(Expand(shape=m.shape(*BTC)), m.slice(base, 1, 0, 1)),
    ]
    graph = assign(m.output(*(m.pointwise(mul(X, 3.0), v) for v in views)))
    t = m.shape("T")[0]
    at = [layout_of(v) for v in views]
    assert all(a.storage is base for a in at)
    assert at[0].strides == (1, 8 * t, 8)
    assert at[1].offset == 8 and at[1].strides == (8 * t, 8, 1)
    assert at[2].strides == (8 * t, 8, 4, 1)
    assert at[3].strides == (8 * t, 0, 1)
    assert len(copies(graph)) == 1  # of the transposed output


def test_1_reshape_that_strides_do_not_allow_is_copied() -> None:
    m = Maker()
    x = m.input("x", *BTC)
    flat = m.reshape(m.permute(x, 0, 2, 1), "B", 8 * m.shape("T")[0])
    graph = assign(m.output(m.pointwise(mul(X, 2.0), flat)))
    assert copies(graph) == ["assign_layouts: copied for reshape: its strides cannot be merged"]


def test_1_reshape_of_dense_memory_is_never_copied() -> None:
    m = Maker()
    x = m.input("x", *BTC)
    half = m.shape("T")[0] // 2  # sympy floor: T is even, which only the caller knows
    graph = assign(m.output(m.pointwise(mul(X, 2.0), m.reshape(x, "B", half, 2, 8))))
    assert not copies(graph)


def test_2_attention_and_convolution_order_their_results() -> None:
    m = Maker()
    q = m.input("q", "B", 2, "T", 8)
    y = m.op(Attention(1.0), q, q, q)
    x = m.input("x", "B", 4, "T")
    z = m.conv(x, m.constant("w", 6, 4, 3), "B", 6, "T", padding=(0, 1))
    assign(m.output(m.pointwise(mul(X, 2.0), y), m.pointwise(mul(X, 2.0), z)))
    assert layout_of(y).strides == dense(y, (0, 2, 1, 3)).strides
    assert layout_of(z).strides == dense(z, (0, 2, 1)).strides


def test_2_arithmetic_keeps_the_order_of_its_largest_operand() -> None:
    m = Maker()
    x, r = m.input("x", *BTC), m.input("r", "B", 8, "T")
    y = m.pointwise(add(), m.permute(x, 0, 2, 1), m.slice(r, 2, 0, 1), shape=("B", 8, "T"))
    assign(m.output(m.permute(m.pointwise(mul(X, 2.0), y), 0, 2, 1)))
    assert layout_of(y).strides == dense(y, (0, 2, 1)).strides


@pytest.mark.parametrize(
    "reader, why",
    [
        ("go.linear", "rows are not at equal distance"),
        ("go.norm", "rows are not at equal distance"),
        ("go.softmax", "rows are not at equal distance"),
        ("go.matmul", "it reads dense tensors"),
        ("go.depthwise", "the last axis has gaps"),
        ("go.attention", "the last axis has gaps"),
    ],
)
def test_3_copies_say_why(reader: str, why: str) -> None:
    m = Maker()
    if reader == "go.attention":
        x = m.permute(m.input("x", "B", 2, 8, "T"), 0, 1, 3, 2)
        y = m.op(Attention(1.0), x, x, x)
    else:
        x = m.permute(m.input("x", "B", 8, "T"), 0, 2, 1)
        if reader == "go.linear":
            y = m.linear(x, 4)
        elif reader == "go.norm":
            y = m.norm(x)
        elif reader == "go.softmax":
            y = m.op(Softmax(False), x)
        elif reader == "go.depthwise":
            y = m.depthwise(x)
        else:
            other = m.input("r", "B", 8, 3)
            y = m.op(Matmul(), x, other)
    graph = assign(m.output(m.pointwise(mul(X, 2.0), y)))
    assert copies(graph)[0] == f"assign_layouts: copied for {reader}: {why}"


def test_3_gathers_read_dense_tables_and_indices() -> None:
    m = Maker()
    words = m.slice(m.input("words", "B", 6, dtype=I64), 1, 1, 3)
    table = m.slice(m.input("table", 9, 8), 1, 2, 4)
    graph = assign(m.output(m.op(Gather(), table, words)))
    assert len(copies(graph)) == 2


def test_3_strided_rows_are_not_copied() -> None:
    m = Maker()
    x = m.slice(m.input("x", *BTC), 2, 3, 4)  # rows of 4 at a distance of 8
    graph = assign(m.output(m.linear(x, 4)))
    assert not copies(graph)


@pytest.mark.parametrize("kind", ["view", "input", "constant", "twice", "other_order"])
def test_3_outputs_are_dense_memory_of_their_own(kind: str) -> None:
    m = Maker()
    x = m.input("x", *BTC)
    y = m.pointwise(mul(X, 2.0), x)
    outputs = {
        "view": [m.permute(y, 0, 2, 1)],
        "input": [x],
        "constant": [m.constant("c", 4)],
        "twice": [y, y],
        "other_order": [m.pointwise(mul(X, 2.0), m.permute(x, 0, 2, 1))],
    }[kind]
    graph = assign(m.output(*outputs))
    assert copies(graph) == ["assign_layouts: copied for output: not memory of its own"]
    owners = [layout_of(v).storage for v in graph.outputs]
    assert owners == graph.outputs and len(set(owners)) == len(owners)
    assert all(is_contiguous(v) and v not in graph.inputs for v in graph.outputs)


def test_3_outputs_are_copied_as_soon_as_they_are_there() -> None:
    m = Maker()
    x = m.pointwise(mul(X, 2.0), m.input("x", *BTC))
    tail = m.slice(x, 2, 0, 3)
    graph = assign(m.output(tail, m.pointwise(mul(X, 3.0), m.input("y", *BTC))))
    assert ops(graph) == ["pointwise", "slice", "pointwise", "pointwise"]
    assert graph.nodes[2].output is graph.outputs[0]


def test_numbers_and_second_run(golden) -> None:
    m = Maker()
    x = m.input("x", *BTC)
    y = m.linear(m.permute(m.pointwise(mul(X, 2.0), x), 1, 0, 2), 4)
    z = m.op(Softmax(log=False), m.permute(y, 0, 2, 1))
    graph = m.output(z)
    golden("assign_layouts", check_pass(AssignLayouts(), graph))


def test_a_graph_with_layouts_is_left_alone() -> None:
    m = Maker()
    graph = assign(m.output(m.linear(m.input("x", *BTC), 4)))
    check_left_alone(AssignLayouts(), graph)
    assert ops(graph) == ["linear"]


def test_3_outputs_of_a_graph_without_nodes() -> None:
    m = Maker()
    x, c = m.input("x", "B", 4), m.constant("c", 3)
    graph = m.output(x, c, x)
    check_pass(AssignLayouts(), graph)
    assert len(copies(graph)) == 3 and not unwritten(graph)
