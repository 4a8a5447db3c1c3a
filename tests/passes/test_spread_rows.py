"""Rows that would share a set of the cache get a gap, where every reader can do with one."""

from pathlib import Path

import pytest
from graphs import Maker, X, add, check_native, mul

from graphopt.codegen.memory import bytes_of
from graphopt.ir.layout import layout_of
from graphopt.ir.ops import Attention, Softmax
from graphopt.passes.assign_layouts import AssignLayouts
from graphopt.passes.spread_rows import SpreadRows


def spread(graph):
    AssignLayouts().run(graph)
    changed = SpreadRows().run(graph)
    assert not SpreadRows().run(graph)
    return changed


@pytest.mark.parametrize(("k", "step"), [(1024, 1040), (3072, 3088), (768, 768), (1025, 1025)])
def test_rows_of_whole_pages_get_a_gap(k, step) -> None:
    m = Maker()
    value = m.pointwise(mul(X, 2.0), m.input("x", "B", "T", k))
    graph = m.output(m.linear(value, 8))
    assert spread(graph) is (step != k)
    t = m.shape("T")[0]
    assert layout_of(value).strides == (step * t, step, 1)
    assert bytes_of(value, "x86_64") == 4 * step * t * m.shape("B")[0]


def test_views_of_it_follow() -> None:
    """Attention's result, read as rows of all heads."""
    m = Maker()
    value = m.pointwise(mul(X, 2.0), m.input("x", "B", "T", 8, 128))
    rows = m.reshape(value, "B", "T", 1024)
    spread(m.output(m.linear(rows, 8)))
    t = m.shape("T")[0]
    assert layout_of(value).strides == (1040 * t, 1040, 128, 1)
    assert layout_of(rows).strides == (1040 * t, 1040, 1)


def test_what_cannot_have_a_gap_is_left_alone() -> None:
    m = Maker()
    x = m.input("x", "B", "T", 1024)
    twice, flat, result = (m.pointwise(mul(X, c), x) for c in (2.0, 3.0, 4.0))
    joined = m.reshape(flat, "B", 1024 * m.shape("T")[0])  # strides could not say it
    dense = m.pointwise(mul(X, 5.0), x)
    outputs = [
        m.pointwise(mul(X, 2.0), twice),  # no product reads it
        m.linear(flat, 8),
        m.pointwise(mul(X, 2.0), joined),
        m.linear(result, 8),
        result,  # an output of the graph
        m.linear(x, 8),  # an input
        m.linear(dense, 8),
        m.op(Softmax(log=False), dense),
    ]
    graph = m.output(*outputs)
    assert spread(graph) is True  # of `dense`, whose other reader takes rows at any distance
    t = m.shape("T")[0]
    for value in (twice, flat, result):
        assert layout_of(value).strides == (1024 * t, 1024, 1)
    assert layout_of(dense).strides == (1040 * t, 1040, 1)


def test_kernels_and_loops_keep_to_gaps(tmp_path: Path) -> None:
    """What norm, product, loop, attention and convolution write, and read as rows or residual."""
    m = Maker()
    channels = m.conv(m.input("c", "B", 8, "T"), m.constant("taps", 1024, 8, 1), "B", 1024, "T")
    points = m.permute(channels, 0, 2, 1)
    x = m.input("x", "B", "T", 1024)
    normed = m.norm(x)
    first = m.linear(normed, 1024, name="first")
    second = m.pointwise(add(), m.linear(first, 1024, name="second"), normed)
    heads = [m.permute(m.reshape(v, "B", "T", 8, 128), 0, 2, 1, 3) for v in (first, second, first)]
    mixed = m.permute(m.op(Attention(scale=0.1), *heads), 0, 2, 1, 3)
    rows = m.reshape(mixed, "B", "T", 1024)
    graph = m.output(*(m.linear(v, 8, name=f"w{i}") for i, v in enumerate((rows, second, points))))
    # three products of a thousand terms
    check_native(graph, tmp_path, bound=1e-5, sizes=({"B": 2, "T": 13}, {"B": 1, "T": 1}))
    for value in (normed, first, second, rows, points):
        assert layout_of(value).strides[1] == 1040
