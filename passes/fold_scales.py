"""Multiplies scales of channels into the weights before them, and adds shifts to the bias.

    %1 = go.conv(%x, weight=%w)
    %2 = go.pointwise(%1, %s, %t,                  ->   %2 = go.conv(%x, weight=%w', bias=%t)
                      expr=add(mul(x0, x1), x2))

for constants %s and %t with a number for each channel, or one for all: a batch norm, a layer scale,
a bias that was added by itself. Numbers are folded in float64 and rounded once.
Left alone: weights that something else reads too, or that came quantized; what lies behind an
activation or an addition of another tensor; results that are not finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.ir import DType, Graph, Node, constant
from graphopt.ir.ops import Conv, Depthwise, Linear, Pointwise
from graphopt.ir.ops.contractions import is_finished
from graphopt.ir.ops.elements import FUNCTIONS
from graphopt.ir.scalar import Scalar
from graphopt.passes.base import Pass
from graphopt.passes.support.pattern import Neighbours

Array = np.ndarray[Any, Any]
#: What is read as `scale * x + shift`, of numbers or of one for each channel; without x, None.
_Affine = tuple[Array | None, Array]


class FoldScales(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """Follows each product as far as its weights can take in what comes."""
        modified = False
        around = Neighbours(graph)
        for node in list(graph.nodes):
            if not isinstance(node.op, Linear | Conv | Depthwise) or not _is_open(node, around):
                continue
            while (follower := around.only_user(node.output, Pointwise)) is not None:
                found = _affine_of(node, follower)
                if found is None or not _fold(node, *found):
                    break
                node.decide(self.name, "its weights hold the scales that came behind it")
                around.absorb(node, follower)
                graph.nodes.remove(follower)
                modified = True
        return modified


def _is_open(node: Node, around: Neighbours) -> bool:
    """Whether nothing but a bias follows the sums yet, and weights are its own."""
    weight, bias = node.operands["weight"], node.operands.get("bias")
    return (
        not is_finished(node)
        and "scale" not in node.operands
        and weight.data is not None
        and weight.dtype is DType.F32
        and around.is_private(weight)
        and (bias is None or bias.data is not None)
    )


def _affine_of(node: Node, follower: Node) -> tuple[Array, Array] | None:
    """Scale and shift of each channel."""
    x, out = node.output, follower.output
    if out.shape != x.shape or out.dtype is not DType.F32:
        return None
    axis = 1 if isinstance(node.op, Conv) else x.rank - 1
    channels = x.shape[axis]
    assert isinstance(channels, int), "weights have known sizes"
    leaves: list[_Affine] = []
    for value in follower.inputs:
        if value is x:
            leaves.append((np.ones(()), np.zeros(())))
            continue
        own = axis - (x.rank - value.rank)
        others = [e for a, e in enumerate(value.shape) if a != own]
        if value.data is None or value.dtype is not DType.F32 or any(e != 1 for e in others):
            return None
        data = value.data.astype(np.float64).reshape(-1)
        leaves.append((None, data if data.size == channels else data.reshape(())))
    with np.errstate(all="ignore"):
        found = _affine(follower.as_op(Pointwise).expr, leaves)
    if found is None:
        return None
    scale, shift = found
    if scale is None:
        return None
    return np.broadcast_to(scale, channels), np.broadcast_to(shift, channels)


def _affine(expr: Scalar, leaves: list[_Affine]) -> _Affine | None:
    """The expression as scale and shift, or None if it is more than that."""
    if expr.dtype is not DType.F32:
        return None
    if expr.op == "operand":
        return leaves[expr.value]  # type: ignore[index]
    if expr.op == "const":
        return None, np.asarray(expr.value, np.float64)
    parts = [_affine(arg, leaves) for arg in expr.args]
    given = [part for part in parts if part is not None]
    if len(given) < len(parts) or not parts or expr.op not in FUNCTIONS:
        return None
    scales, shifts = [scale for scale, _ in given], [shift for _, shift in given]
    with_x = [i for i, scale in enumerate(scales) if scale is not None]
    function = FUNCTIONS[expr.op]
    if not with_x:
        return None, function(*shifts)
    if expr.op in ("add", "sub", "neg"):
        zero = np.zeros(())
        return function(*(zero if s is None else s for s in scales)), function(*shifts)
    if expr.op not in ("mul", "div") or len(with_x) == 2 or (expr.op == "div" and with_x == [1]):
        return None
    (place,) = with_x
    scale, by = scales[place], shifts[1 - place]
    assert scale is not None
    return function(scale, by), function(shifts[place], by)


def _fold(node: Node, scale: Array, shift: Array) -> bool:
    """Gives the node new weights and a bias; False if they would not be finite."""
    weight, bias = node.operands["weight"], node.operands.get("bias")
    assert weight.data is not None
    along = (-1,) if isinstance(node.op, Depthwise) else (-1, *[1] * (weight.rank - 1))
    added = 0.0 if bias is None or bias.data is None else bias.data.astype(np.float64)
    with np.errstate(all="ignore"):
        weights = (weight.data * scale.reshape(along)).astype(np.float32)
        shifts = (added * scale + shift).astype(np.float32)
    if not (np.isfinite(weights).all() and np.isfinite(shifts).all()):
        return False
    node.operands["weight"] = constant(weights, weight.name)
    if bias is not None or shifts.any():
        name = bias.name if bias is not None else f"{weight.name}.shift"
        node.operands["bias"] = constant(shifts, name)
    return True
