"""Scales and shifts of channels, inside of weights and biases."""

import numpy as np
import pytest
from graphs import Maker, X, add, check_left_alone, check_pass, mul, ops

from graphopt.ir import DType, Value, scalar
from graphopt.ir.scalar import operand
from graphopt.passes.fold_scales import FoldScales
from graphopt.testing import FP32_RELATIVE

BTC = ("B", "T", 8)


def product(m: Maker, kind: str, x: Value) -> Value:
    """Of x [B, T, 8], with its 8 channels where a convolution has them."""
    if kind == "conv":
        return m.conv(x, m.constant("w", 8, 5, 3), "B", 8, 8, padding=(0, 1))
    return m.depthwise(x) if kind == "depthwise" else m.linear(x, 8, bias=kind == "biased")


@pytest.mark.parametrize("kind", ["linear", "biased", "conv", "depthwise"])
def test_batch_norm_in_one_expression_or_several(kind: str) -> None:
    m = Maker()
    shape = (8, 1) if kind == "conv" else (8,)
    x = m.input("x", "B", 5, 8) if kind == "conv" else m.input("x", *BTC)
    mean, weight, shift = (m.constant(n, *shape) for n in ("mean", "weight", "shift"))
    spread = m.constant("var", data=np.linspace(0.5, 2, 8, dtype=np.float32).reshape(shape))
    y, mu, var, gain = (operand(i, DType.F32) for i in range(4))
    normal = (y - mu) * scalar.apply("rsqrt", var + 1e-5) / 2.0 * gain
    y = m.pointwise(normal, product(m, kind, x), mean, spread, weight)
    y = m.pointwise(-X, m.pointwise(add(), shift, y))
    check_pass(FoldScales(), m.output(y), FP32_RELATIVE)
    assert ops(m.graph) == [{"biased": "linear"}.get(kind, kind)]
    assert "bias" in m.graph.nodes[0].operands


def test_a_scale_alone_brings_no_bias() -> None:
    m = Maker()
    y = m.pointwise(mul(X, 0.5), m.linear(m.input("x", *BTC), 8, bias=False))
    check_pass(FoldScales(), m.output(y), FP32_RELATIVE)
    assert ops(m.graph) == ["linear"] and "bias" not in m.graph.nodes[0].operands


@pytest.mark.parametrize(
    "why", ["square", "inverse", "tensor", "rows", "infinite", "shared", "read twice", "table"]
)
def test_what_is_left_alone(why: str) -> None:
    m = Maker()
    y = m.linear(m.input("x", "B", 5, 8), 8)
    two = operand(1, DType.F32)
    if why == "square":
        z = m.pointwise(X * X, y)
    elif why == "inverse":
        z = m.pointwise(1.0 / X, y)
    elif why == "tensor":
        z = m.pointwise(X * two, y, m.input("s", "B", 5, 8))
    elif why == "rows":
        z = m.pointwise(X * two, y, m.constant("s", 5, 1))
    elif why == "infinite":
        z = m.pointwise(X * two, y, m.constant("s", data=np.full(8, np.inf, np.float32)))
    elif why == "table":
        weight = m.graph.nodes[0].operands["weight"]
        read = m.pointwise(X * 2.0, weight)
        z = m.pointwise(X * two, y, m.constant("s", 8))
        check_left_alone(FoldScales(), m.output(z, read))
        return
    else:
        z = m.pointwise(X * two, y, m.constant("s", 8))
        if why == "shared":
            z = m.pointwise(add(), z, m.op(m.graph.nodes[0].op, *m.graph.nodes[0].inputs))
        else:
            z = m.pointwise(add(), z, y)
    graph = m.output(z)
    check_left_alone(FoldScales(), graph)
