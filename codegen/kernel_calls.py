"""Steps that are one call of a kernel: fill its argument struct from the node."""

from __future__ import annotations

from collections.abc import Callable

from graphopt.codegen.cif import emit_cif
from graphopt.codegen.experts import emit_grouped_matmul
from graphopt.codegen.function import Fields, FunctionBuilder
from graphopt.codegen.memory import Memory
from graphopt.codegen.recurrent import emit_recurrent
from graphopt.codegen.scalar_c import literal
from graphopt.ir import DType, Node, Shape, Value
from graphopt.ir.layout import broadcast_strides, channel_rows, layout_of, row_stride
from graphopt.ir.op import Op
from graphopt.ir.ops import (
    Attention,
    Cif,
    Conv,
    Depthwise,
    GroupedMatmul,
    Im2col,
    Linear,
    Matmul,
    Norm,
    PackRows,
    QuantizeRows,
    Recurrent,
    Softmax,
    SplitRows,
)
from graphopt.ir.symbolic import contiguous_strides, product
from graphopt.kernels.scratch import quantized_result_stride

#: Emits the C function of a node: the builder gets its parameters and its body, the memory says
#: where operands, results and scratch memory are.
Emit = Callable[[Node, FunctionBuilder, Memory], None]


def _dtype(value: Value) -> str:
    return f"GO_{value.dtype.name}"


def _strides(f: FunctionBuilder, strides: Shape) -> str:
    return "{" + ", ".join(f.size(s) for s in strides) + "}"


def _read(f: FunctionBuilder, memory: Memory, name: str, value: Value) -> str:
    return f.pointer(name, None, memory.address(value))


def _optional(f: FunctionBuilder, memory: Memory, node: Node, role: str) -> str | None:
    value = node.operands.get(role)
    return None if value is None else f.pointer(role, DType.F32, memory.address(value))


def _rows(value: Value) -> tuple[object, object]:
    """Number of rows and their distance."""
    stride = row_stride(value.shape, layout_of(value).strides)
    if stride is None:
        raise ValueError("rows are not at equal distance; assign_layouts should have copied")
    return product(value.shape[:-1]), stride


def _row_fields(f: FunctionBuilder, memory: Memory, name: str, value: Value, write: bool) -> Fields:
    pointer = f.pointer(name, None, memory.address(value), write)
    _, stride = _rows(value)
    return {
        name: pointer,
        f"{name}_stride": f.size(stride),
        f"{name}_dtype": _dtype(value),
    }


def _epilogue(
    node: Node,
    op: Linear | Conv,
    f: FunctionBuilder,
    memory: Memory,
    row: Callable[[Value], object],
) -> Fields:
    fields: Fields = {}
    if (bias := _optional(f, memory, node, "bias")) is not None:
        fields["bias"] = bias
    if op.activation:
        fields["activation"] = f"GO_ACT_{op.activation.upper()}"
    if (factor := node.operands.get("factor")) is not None:
        fields["factor"] = _read(f, memory, "factor", factor)
        fields["factor_stride"] = f.size(row(factor))
        fields["factor_dtype"] = _dtype(factor)
    residuals = [node.operands[r] for r in ("residual0", "residual1") if r in node.operands]
    if residuals:
        names = [_read(f, memory, f"residual{i}", v) for i, v in enumerate(residuals)]
        steps = [f.size(row(v)) for v in residuals]
        fields["residual"] = "{" + ", ".join(names) + "}"
        fields["residual_stride"] = "{" + ", ".join(steps) + "}"
        fields["residual_dtype"] = "{" + ", ".join(map(_dtype, residuals)) + "}"
    if op.last:
        fields["last"] = f"GO_ACT_{op.last.upper()}"
    if op.slope:
        fields["slope"] = literal(op.slope, DType.F32)
    return fields


def _linear(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    op, x, weight = node.as_op(Linear), node.operands["x"], node.operands["weight"]
    n, k = weight.shape
    fields: Fields = {"m": f.size(product(x.shape[:-1])), "n": str(n), "k": str(k)}
    if x.packed:
        fields["lhs"] = _read(f, memory, "lhs", x)
    else:
        row = _row_fields(f, memory, "lhs", x, write=False)
        fields["lhs"], fields["lhs_stride"] = row["lhs"], row["lhs_stride"]
    if op.group:
        fields["group"] = str(op.group)
    scale = node.operands.get("scale")
    packed = memory.weight(memory.weights.gemm(weight, op.decided, op.group, scale))
    fields["rhs"] = f.pointer("rhs", None, packed)
    fields |= _linear_result(node, f, memory, n)
    fields["epilogue"] = _epilogue(node, op, f, memory, lambda v: _rows(v)[1])
    if not fields["epilogue"]:
        fields["epilogue"] = {"bias": "NULL"}
    f.call(node.kernel, "go_gemm_args", fields)


def _linear_result(node: Node, f: FunctionBuilder, memory: Memory, n: int) -> Fields:
    """Where the rows of n results go: to memory, or through scratch memory into panels."""
    if not node.output.packed:
        return _row_fields(f, memory, "dst", node.output, write=True)
    return {
        "dst": f.pointer("scratch", None, memory.scratch(node), write=True),
        "dst_stride": str(quantized_result_stride(n)),
        "dst_dtype": "GO_F32",
        "packed": f.pointer("packed", None, memory.address(node.output), write=True),
    }


def _pack(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    x = node.operands["x"]
    fields: Fields = {"m": f.size(product(x.shape[:-1])), "k": f.size(x.shape[-1])}
    fields |= _row_fields(f, memory, "src", x, write=False)
    fields["dst"] = f.pointer("dst", None, memory.address(node.output), write=True)
    f.call(node.kernel, "go_pack_lhs_args", fields)


def _norm(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    op, x = node.as_op(Norm), node.operands["x"]
    fields: Fields = {"rows": f.size(product(x.shape[:-1])), "cols": f.size(x.shape[-1])}
    fields |= _row_fields(f, memory, "src", x, write=False)
    for role in ("weight", "bias"):
        if (name := _optional(f, memory, node, role)) is not None:
            fields[role] = name
    fields["eps"] = literal(op.eps, DType.F32)
    fields["rms"] = str(int(op.rms))
    for written, value in zip(op.writes, node.outputs, strict=True):
        if written == "packed":
            fields["packed"] = f.pointer("packed", None, memory.address(value), write=True)
        else:
            fields |= _row_fields(f, memory, "dst", value, write=True)
    f.call(node.kernel, "go_norm_args", fields)


def _softmax(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    x = node.operands["x"]
    fields: Fields = {"rows": f.size(product(x.shape[:-1])), "cols": f.size(x.shape[-1])}
    fields |= _row_fields(f, memory, "src", x, write=False)
    fields["log"] = str(int(node.as_op(Softmax).log))
    fields |= _row_fields(f, memory, "dst", node.output, write=True)
    f.call(node.kernel, "go_softmax_args", fields)


def _attention(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    op, (q, k, v) = node.as_op(Attention), (node.operands[r] for r in ("q", "k", "v"))
    fields: Fields = {
        "batch": f.size(q.shape[0]),
        "heads": f.size(q.shape[1]),
        "kv_heads": f.size(k.shape[1]),
        "tq": f.size(q.shape[2]),
        "tk": f.size(k.shape[2]),
        "dim": f.size(q.shape[3]),
        "dim_v": f.size(v.shape[3]),
        "scale": literal(op.scale, DType.F32),
        "causal": "GO_CAUSAL_FIRST" if op.causal else "GO_SEES_ALL",
        "replaces": str(int(op.replaces)),
        "unseen_zero": str(int(op.unseen_zero)),
        "dtype": _dtype(q),
    }
    for name, value in (("q", q), ("k", k), ("v", v)):
        fields[name] = _read(f, memory, name, value)
        fields[f"{name}_stride"] = _strides(f, _batch_time_head(value))
    mask = node.operands.get("mask")
    if mask is not None:
        fields["mask"] = f.pointer("mask", DType.F32, memory.address(mask))
        fields["mask_stride"] = _strides(f, broadcast_strides(mask, 4))
    fields["dst"] = f.pointer("dst", None, memory.address(node.output), write=True)
    fields["dst_stride"] = _strides(f, _batch_time_head(node.output))
    fields["dst_dtype"] = _dtype(node.output)
    fields["scratch"] = f.pointer("scratch", None, memory.scratch(node), write=True)
    f.call(node.kernel, "go_attention_args", fields)


def _batch_time_head(value: Value) -> Shape:
    """Strides of the axes batch, time, head of a value [batch, head, time, dim]."""
    batch, head, time, _ = layout_of(value).strides
    return (batch, time, head)


def _depthwise(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    op, x, weight = node.as_op(Depthwise), node.operands["x"], node.operands["weight"]
    out = node.output
    fields: Fields = {
        "batch": f.size(x.shape[0]),
        "t_in": f.size(x.shape[1]),
        "t_out": f.size(out.shape[1]),
        "channels": f.size(x.shape[2]),
        "kernel": f.size(weight.shape[0]),
        "stride": str(op.stride),
        "dilation": str(op.dilation),
        "pad_left": f.size(op.pad_left),
        "src": _read(f, memory, "src", x),
        "src_stride": _strides(f, layout_of(x).strides[:2]),
        "src_dtype": _dtype(x),
        "weight": f.pointer("weight", DType.F32, memory.address(weight)),
        "identity": str(op.identity),
    }
    if (bias := _optional(f, memory, node, "bias")) is not None:
        fields["bias"] = bias
    if op.activation:
        fields["activation"] = f"GO_ACT_{op.activation.upper()}"
    for role in ("mask_in", "mask_out"):
        mask = node.operands.get(role)
        if mask is not None:
            fields[role] = f.pointer(role, DType.F32, memory.address(mask))
            fields[f"{role}_stride"] = _strides(f, broadcast_strides(mask, 3)[:2])
    residual = node.operands.get("residual")
    if residual is not None:
        fields["residual"] = _read(f, memory, "residual", residual)
        fields["residual_stride"] = _strides(f, layout_of(residual).strides[:2])
        fields["residual_dtype"] = _dtype(residual)
    fields["dst"] = f.pointer("dst", None, memory.address(out), write=True)
    fields["dst_stride"] = _strides(f, layout_of(out).strides[:2])
    fields["dst_dtype"] = _dtype(out)
    f.call(node.kernel, "go_depthwise_args", fields, op.serial)


def _window(
    op: Conv | Im2col, x: Shape, out: Shape, taps: tuple[object, object]
) -> dict[str, object]:
    """Sizes of a convolution's window, from shapes with the channels first."""
    pairs = {
        ("in_h", "in_w"): _height_width(x),
        ("out_h", "out_w"): _height_width(out),
        ("kh", "kw"): taps,
        ("stride_h", "stride_w"): op.stride,
        ("dilation_h", "dilation_w"): op.dilation,
        ("pad_top", "pad_left"): op.padding,
    }
    return {n: s for names, sizes in pairs.items() for n, s in zip(names, sizes, strict=True)}


def _conv(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    op, x, weight = node.as_op(Conv), node.operands["x"], node.operands["weight"]
    out = node.output
    sizes = {
        "batch": x.shape[0],
        "groups": op.groups,
        "in_c": x.shape[1],
        "out_c": out.shape[1],
        **_window(op, x.shape, out.shape, _height_width(weight.shape)),
        "tile_rows": op.tile_rows,
        "tile_cols": op.tile_cols,
    }
    fields: Fields = {name: f.size(size) for name, size in sizes.items()}
    weights = memory.weights
    packed = weights.winograd(weight) if op.winograd else weights.conv(weight, op.groups)
    fields |= {
        "src": _read(f, memory, "src", x),
        "src_stride": _strides(f, _batch_height_width(x)),
        "src_dtype": _dtype(x),
        "rhs": f.pointer("rhs", None, memory.weight(packed)),
        "dst": f.pointer("dst", None, memory.address(out), write=True),
        "dst_stride": _strides(f, _batch_height_width(out)),
        "dst_dtype": _dtype(out),
        "scratch": f.pointer("scratch", None, memory.scratch(node), write=True),
    }
    epilogue = _epilogue(node, op, f, memory, channel_rows)
    if epilogue:
        fields["epilogue"] = epilogue
    f.call(node.kernel, "go_conv_args", fields, op.serial)


def _im2col(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    op, x, out = node.as_op(Im2col), node.operands["x"], node.output
    channels_first = (0, x.rank - 1, *range(1, x.rank - 1))
    x_shape, out_shape = (tuple(v.shape[a] for a in channels_first) for v in (x, out))
    sizes = {
        "batch": x.shape[0],
        "channels": x.shape[-1],
        **_window(op, x_shape, out_shape, op.taps),
    }
    fields: Fields = {name: f.size(size) for name, size in sizes.items()}
    strides = layout_of(x).strides
    fields |= {
        "src": _read(f, memory, "src", x),
        "src_stride": _strides(f, strides[:3] if x.rank == 4 else (strides[0], 0, strides[1])),
        "src_dtype": _dtype(x),
        "dst": f.pointer("dst", None, memory.address(out), write=True),
        "scratch": f.pointer("scratch", None, memory.scratch(node), write=True),
    }
    f.call(node.kernel, "go_im2col_args", fields)


def _height_width(shape: Shape) -> tuple[object, object]:
    return (1, shape[2]) if len(shape) == 3 else (shape[2], shape[3])


def _batch_height_width(value: Value) -> Shape:
    strides = layout_of(value).strides
    if value.rank == 3:
        return (strides[0], 0, strides[2])
    return (strides[0], strides[2], strides[3])


def _matmul(node: Node, f: FunctionBuilder, memory: Memory) -> None:
    """One GEMM per matrix of the batch; the right operand is packed first."""
    left, right = node.operands["left"], node.operands["right"]
    out = node.output
    m, k = left.shape[-2:]
    n = right.shape[-1]
    f.pointer("left", DType.F32, memory.address(left))
    f.pointer("right", DType.F32, memory.address(right))
    f.pointer("scratch", DType.F32, memory.scratch(node), write=True)
    f.pointer("dst", DType.F32, memory.address(out), write=True)
    batch, m_, n_, k_ = (f.size(s) for s in (product(left.shape[:-2]), m, n, k))
    assert layout_of(out).strides == contiguous_strides(out.shape)
    f.line(f"for (int64_t b = 0; b < {batch}; b++) {{")
    f.line(f"    go_pack_right(team, right + b * {k_} * {n_}, {k_}, {n_}, scratch);")
    f.line("    go_barrier(team);")
    f.call(
        node.kernel,
        "go_gemm_args",
        {
            "m": m_,
            "n": n_,
            "k": k_,
            "lhs": f"left + b * {m_} * {k_}",
            "lhs_stride": k_,
            "rhs": "scratch",
            "dst": f"dst + b * {m_} * {n_}",
            "dst_stride": n_,
            "dst_dtype": _dtype(out),
        },
    )
    f.line("go_barrier(team);")
    f.line("}")


CALLS: dict[type[Op], Emit] = {
    Linear: _linear,
    QuantizeRows: _pack,
    PackRows: _pack,
    SplitRows: _pack,
    Norm: _norm,
    Softmax: _softmax,
    Attention: _attention,
    Depthwise: _depthwise,
    Conv: _conv,
    Im2col: _im2col,
    Matmul: _matmul,
    GroupedMatmul: emit_grouped_matmul,
    Cif: emit_cif,
    Recurrent: emit_recurrent,
}
