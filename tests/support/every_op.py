"""A graph with a node of each op."""

import numpy as np
from graphs import F32, I64, Maker, add

from graphopt.ir import DimInfo, Graph, Node, scalar, symbolic
from graphopt.ir.ops import (
    Attention,
    CachedAttention,
    Cat,
    Check,
    Cif,
    Expand,
    Gather,
    GroupedMatmul,
    Im2col,
    Linear,
    Matmul,
    Nonzero,
    PackRows,
    Pad,
    Pointwise,
    Pool,
    ReadSize,
    Recurrent,
    Reduce,
    Rope,
    Scan,
    Scatter,
    Softmax,
    Sort,
    SplitRows,
)
from graphopt.ir.symbolic import found_symbol
from graphopt.kernels import formats


def every_op() -> Graph:
    """Nodes of two dozen values, all of them outputs."""
    m = Maker()
    x, lengths = m.input("x", "B", "T", 8), m.input("lengths", "B", dtype=I64)
    image, heads = m.input("image", "B", 4, 6, 5), m.input("heads", "B", 2, "T", 4)
    alphas = m.input("alphas", "B", "T")
    cache = m.input("cache", 1, 2, "B", 16, 2, 4)
    cache.is_state = True
    y = m.pointwise(add(), x, m.constant("c", 8))
    values = [
        m.quantized(m.norm(y), 16),
        m.linear(m.op(PackRows(), y), 16, name="v", op=Linear(format=formats.BF16)),
        m.linear(y, 8, name="u", op=Linear(activation="relu")),
        m.op(SplitRows(), y),
        m.op(Softmax(False), m.permute(y, 0, 2, 1)),
        m.op(Matmul(), y, m.permute(x, 0, 2, 1)),
        m.conv(image, m.constant("k", 4, 2, 3, 3), "B", 4, 4, 3, groups=2),
        m.depthwise(y, identity=1),
        m.quantized(m.op(Im2col((1, 3), (1, 1), (0, 1), (1, 1)), y), 16, name="p"),
        m.op(Attention(0.5), heads, heads, heads),
        m.op(Cat(2), y, x, m.slice(y, 2, 0, 4)),
        m.op(Pad((0, 0, 1), 0.0, (*y.shape[:2], 10)), y),
        m.op(Expand((*y.shape[:2], 8)), m.reshape(m.slice(y, 2, 0, 1), "B", "T", 1)),
        m.op(Gather(), m.constant("table", 9, 4), lengths),
        m.op(Reduce("sum", (1,)), y),
        m.op(
            GroupedMatmul(),
            m.reshape(y, symbolic.product(m.shape("B", "T")), 8),
            m.constant("experts", 2, 5, 8),
            m.constant("ends", data=np.array([1, 2])),
        ),
        m.op(Pool("mean", (*image.shape[:2], 3, 2)), image),
        m.op(Scan("sum", 1), y),
        m.op(Scatter("sum"), y, m.input("places", "B", dtype=I64), m.input("stored", "B")),
    ]
    row = scalar.load(0, F32, (scalar.check(scalar.operand(1, I64), 9), scalar.index(1)))
    values.append(
        m.op(Pointwise(row, m.shape("B", 4)), m.constant("table", 9, 4), m.reshape(lengths, "B", 1))
    )
    m.graph.nodes.append(Node.of(Check(1), m.op(Reduce("max", (0,)), lengths)))
    m.graph.nodes.append(Node.of(Sort(1, False), y))
    values += m.graph.nodes[-1].outputs
    q = m.permute(heads, 0, 2, 1, 3)
    angles = m.slice(q, 3, 0, 2)
    kept = {"past": lengths, "start": lengths, "cache": cache}
    turned = m.reshape(m.slice(angles, 2, 0, 1), "B", "T", 2)
    rotated = m.op(Rope(0), q, q, q, turned, turned, **kept)
    values.append(m.op(CachedAttention(0, 0.5), rotated, **kept))
    m.graph.nodes.append(Node.of(Cif(1.0, "integrate", "floor", "N"), y, alphas))
    state, weight = m.input("state", 2, "B", 5), m.constant("r", 96, 5)
    layer = Recurrent("gru", 2, batch_first=True)
    m.graph.nodes.append(Node.of(layer, m.linear(y, 96), weight, state, lengths=lengths))
    values += m.graph.nodes[-1].outputs
    positive = m.pointwise(scalar.apply("lt", scalar.const(0, F32), scalar.operand(0, F32)), y)
    values += [m.op(Nonzero(7), positive), m.op(Nonzero(found_symbol("N1"), "N1"), positive)]
    batch, time = m.shape("B", "T")
    values.append(m.op(ReadSize("N2", 8 * batch), m.op(Reduce("min", (0,)), lengths)))
    for name, bound in {"N": time, "N1": 8 * batch * time, "N2": 8 * batch}.items():
        m.graph.dims[name] = DimInfo(found_symbol(name), 3, (), bound=bound)
    return m.output(*values)
