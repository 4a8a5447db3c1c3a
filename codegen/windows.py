"""Steps that read windows of an image: pooling."""

from __future__ import annotations

import math

import numpy as np

from graphopt.codegen.function import FunctionBuilder
from graphopt.codegen.kernel_calls import Emit
from graphopt.codegen.loops import memory_order
from graphopt.codegen.memory import Memory
from graphopt.codegen.scalar_c import literal
from graphopt.ir import Node, Value
from graphopt.ir.layout import layout_of
from graphopt.ir.op import Op
from graphopt.ir.ops import Pool
from graphopt.ir.symbolic import product


def _pool(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """A task for each row of the result in memory.

    Where rows are channels, all of a row is folded tap by tap, in vectors; else element by element.
    """
    op, x, out = node.as_op(Pool), node.operands["x"], node.output
    f.pointer("x", x.dtype, memory.address(x))
    f.pointer("dst", out.dtype, memory.address(out), write=True)
    order = memory_order(out, memory)
    inner = next((a for a in reversed(order) if out.shape[a] != 1), order[-1])
    outer = [a for a in order if a != inner]
    read, written = layout_of(x).strides, layout_of(out).strides
    least = -math.inf if x.dtype.is_float else int(np.iinfo(x.dtype.numpy).min)
    f.loops(
        "pool",
        "windows.c.j2",
        rows=f.size(product(out.shape[a] for a in outer)),
        width=f.size(out.shape[inner]),
        kind=x.dtype.c_type,
        made=out.dtype.c_type,
        outer=[
            (a, f.size(out.shape[a]), None if a > 1 else f.size(read[a]), f.size(written[a]))
            for a in reversed(outer)
        ],
        inner=inner,
        steps=(f.size(read[inner]), f.size(written[inner])),
        windows=[_window(f, op, x, axis) for axis in range(2, x.rank)],
        of=op.kind,
        floating=x.dtype.is_float,
        first=literal(0 if op.kind == "mean" else least, x.dtype),
        divisor=op.divisor,
        padding_counts=op.padding_counts,
        by_channel=inner < 2 and op.kind != "argmax",
    )


def _window(f: FunctionBuilder, op: Pool, x: Value, axis: int) -> dict[str, object]:
    """C of what decides the windows along an axis of x."""
    found: dict[str, object] = {
        "axis": axis,
        "extent": f.size(x.shape[axis]),
        "step": f.size(layout_of(x).strides[axis]),
        "adaptive": op.adaptive,
        "dilation": 1,
    }
    if op.adaptive:
        return found | {"count": f.size(op.shape[axis])}
    i = axis - 2
    names = ("window", "stride", "padding", "dilation")
    return found | {name: f.size(getattr(op, name)[i]) for name in names}


WINDOWS: dict[type[Op], Emit] = {Pool: _pool}
