"""Steps that go through elements in order: scans, sorts, stores at indices, sizes in data."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.codegen.function import FunctionBuilder
from graphopt.codegen.kernel_calls import Emit
from graphopt.codegen.loops import copy_elements, memory_order
from graphopt.codegen.memory import Memory
from graphopt.ir import DType, Node, Value
from graphopt.ir.layout import layout_of
from graphopt.ir.op import Op
from graphopt.ir.ops import Nonzero, ReadSize, Scan, Scatter, Sort
from graphopt.ir.ops.found_sizes import OUT_OF_BOUNDS
from graphopt.ir.symbolic import product
from graphopt.kernels.scratch import NONZERO_PART

_TEMPLATE = "lines.c.j2"


def _lines(f: FunctionBuilder, x: Value, outputs: Sequence[Value], axis: int) -> dict[str, object]:
    """What every macro needs of the lines along an axis of values of one shape.

    Args:
        f: gets the sizes.
        x: what is read.
        outputs: what is written.
        axis: along which the lines run.
    """
    kept = [a for a in range(x.rank) if a != axis]
    strides = [layout_of(v).strides for v in (x, *outputs)]
    return {
        "count": f.size(product(x.shape[a] for a in kept)),
        "kind": x.dtype.c_type,
        "kept": [(f.size(x.shape[a]), [f.size(s[a]) for s in strides]) for a in reversed(kept)],
        "extent": f.size(x.shape[axis]),
        "steps": [f.size(s[axis]) for s in strides],
        "floating": x.dtype.is_float,
    }


def _scan(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """A task for each line; sums and products of floats run in double."""
    op, x, out = node.as_op(Scan), node.operands["x"], node.output
    f.pointer("x", x.dtype, memory.address(x))
    f.pointer("dst", out.dtype, memory.address(out), write=True)
    in_order = op.kind in ("max", "min", "argmax", "argmin")
    wide = "double" if x.dtype.is_float else "int64_t"
    f.loops(
        "scan",
        _TEMPLATE,
        **_lines(f, x, [out], op.axis),
        of=op.kind,
        total=x.dtype.c_type if in_order else wide,
        made=out.dtype.c_type,
        compare="<" if op.kind.endswith("min") else ">",
    )


def _sort(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """A task for each line, whose indices are sorted in place by what they stand for."""
    op, x = node.as_op(Sort), node.operands["x"]
    values, indices = node.outputs
    f.pointer("x", x.dtype, memory.address(x))
    f.pointer("dst", values.dtype, memory.address(values), write=True)
    f.pointer("order", indices.dtype, memory.address(indices), write=True)
    f.loops("sort", _TEMPLATE, **_lines(f, x, node.outputs, op.axis), descending=op.descending)


def _scatter(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Copies x on all threads; then one stores the elements in their order."""
    op, x, out = node.as_op(Scatter), node.operands["x"], node.output
    indices, src = node.operands["indices"], node.operands["src"]
    f.frame()
    f.pointer("x", x.dtype, memory.address(x))
    f.pointer("indices", indices.dtype, memory.address(indices))
    f.pointer("src", src.dtype, memory.address(src))
    f.pointer("dst", out.dtype, memory.address(out), write=True)
    f.line("{")
    copy_elements(f, x, "x", "dst", layout_of(out).strides, memory_order(out, memory))
    f.line("}")
    f.line("go_barrier(team);")
    f.loops(
        "scatter",
        _TEMPLATE,
        count=f.size(product(src.shape)),
        size=f.size(product(x.shape)),
        kind=x.dtype.c_type,
        of=op.kind,
        floating=x.dtype.is_float,
    )


def _nonzero(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Counts the true elements of each part of x, and then writes the indices part by part."""
    op, x = node.as_op(Nonzero), node.operands["x"]
    f.pointer("x", x.dtype, memory.address(x))
    f.pointer("dst", DType.I64, memory.address(node.output), write=True)
    f.pointer("before", DType.I64, memory.scratch(node), write=True)
    if op.dim:
        _computed_dim(op.dim, f, memory)
    f.loops(
        "nonzero",
        _TEMPLATE,
        count=f.size(product(x.shape)),
        part=NONZERO_PART,
        size="" if op.dim else f.size(op.size),
    )


def _read_size(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """One thread reads the number, which is checked; then all write the numbers below it."""
    op, x = node.as_op(ReadSize), node.operands["x"]
    f.pointer("x", x.dtype, memory.address(x))
    f.pointer("dst", DType.I64, memory.address(node.output), write=True)
    _computed_dim(op.dim, f, memory)
    most = f.size(op.bound) if op.is_cut else ""
    f.loops("read_size", _TEMPLATE, text=OUT_OF_BOUNDS, most=most)


def _computed_dim(dim: str, f: FunctionBuilder, memory: Memory) -> None:
    f.frame()
    f.computed_dim(memory.graph.computed_dims().index(dim))


LINES: dict[type[Op], Emit] = {
    Scan: _scan,
    Sort: _sort,
    Scatter: _scatter,
    Nonzero: _nonzero,
    ReadSize: _read_size,
}
