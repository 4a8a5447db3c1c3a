"""The step of a recurrent layer."""

from __future__ import annotations

from graphopt.codegen.function import Fields, FunctionBuilder
from graphopt.codegen.memory import Memory
from graphopt.ir import DType, Node
from graphopt.ir.layout import layout_of
from graphopt.ir.ops import Recurrent
from graphopt.ir.ops.recurrent import WEIGHTS
from graphopt.ir.ops.rows import PACKING


def emit_recurrent(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """Calls the kernel, with the GEMM of the format of the weights.

    Args:
        node: a `go.recurrent`.
        f: gets the parameters and the body.
        memory: where operands, results and scratch memory are.
    """
    op, given = node.as_op(Recurrent), node.operands
    gates, state = given["gates"], given["state"]
    y, *last = node.outputs
    batch, time = (0, 1) if op.batch_first else (1, 0)
    packing = PACKING[op.decided.rows]
    fields: Fields = {
        "batch": f.size(gates.shape[batch]),
        "time": f.size(gates.shape[time]),
        "directions": str(op.directions),
        "hidden": f.size(given.get("cell", state).shape[2]),
        "width": f.size(state.shape[2]),
        "cell_kind": f"GO_CELL_{op.kind.removeprefix('rnn_').upper()}",
        "pack": packing.KERNEL if packing else "NULL",
        "product": op.decided.kernel,
    }
    for role in ("gates", "state", "cell", "bias"):
        if role in given:
            fields[role] = f.pointer(role, DType.F32, memory.address(given[role]))
    if "lengths" in given:
        fields["lengths"] = f.pointer("lengths", DType.I64, memory.address(given["lengths"]))
    for role, scale in WEIGHTS.items():
        if role in given:
            rows, depth = given[role].shape
            packed = memory.weights.gemm(given[role], op.decided, scale=given.get(scale))
            fields[role] = f.pointer(role, None, memory.weight(packed))
            size = op.decided.packed_bytes(memory.weights.arch, rows, depth)
            fields[f"{role}_bytes"] = str(size // op.directions)
    for name, value in (("gates", gates), ("dst", y)):
        strides = layout_of(value).strides
        fields[f"{name}_stride"] = f"{{{f.size(strides[batch])}, {f.size(strides[time])}}}"
    made = zip(("dst", "last_state", "last_cell"), (y, *last), strict=False)
    for name, value in made:
        fields[name] = f.pointer(name, DType.F32, memory.address(value), write=True)
    fields["scratch"] = f.pointer("scratch", None, memory.scratch(node), write=True)
    f.call(node.kernel, "go_recurrent_args", fields)
