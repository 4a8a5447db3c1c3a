"""What every `go.*` op means, in numpy, in the fewest lines.

Floats are computed in f32 without any promise about rounding order; the promises are those of the
kernels. Quantized rows (`qa8r`) are held as the f32 numbers that they stand for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy

from graphopt.dtype import truncate
from graphopt.ir import DType, Node, Shape
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import evaluate
from graphopt.kernels import reference, reference_ops

Array = np.ndarray[Any, Any]
Sizes = Mapping[sympy.Symbol, int]

#: Packing of quantized rows.
QUANTIZED = "qa8r"
_erf = np.vectorize(math.erf, otypes=[np.float64])

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh,
    "erf": lambda x: _erf(x).astype(x.dtype),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_erf": lambda x: (0.5 * x * (1 + _erf(x / math.sqrt(2)))).astype(x.dtype),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "max": np.maximum,
    "min": np.minimum,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "where": np.where,
}


def widen(array: Array, dtype: DType) -> Array:
    """A stored array as numbers: bf16 bits become f32."""
    if dtype is not DType.BF16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)


def narrow(array: Array, dtype: DType) -> Array:
    """Numbers as stored; f32 is rounded to nearest even bf16."""
    if array.dtype.kind == "f" and not dtype.is_float and dtype is not DType.BOOL:
        return np.asarray(truncate(array, dtype))
    if dtype is not DType.BF16:
        return array.astype(dtype.numpy)
    rounded: Array = reference.bf16_from_f32(array).reshape(array.shape)
    return rounded


def evaluate_scalar(
    expr: Scalar, operands: list[Array], shape: tuple[int, ...], sizes: Sizes
) -> Any:
    """An element expression over whole (widened) operands."""
    if expr.op == "operand":
        return operands[expr.value]  # type: ignore[index]
    if expr.op == "const":
        return np.asarray(expr.value, np.float32 if expr.dtype is DType.BF16 else expr.dtype.numpy)
    if expr.op == "size":
        return np.int64(evaluate(expr.value, sizes))
    if expr.op == "index":
        axis: int = expr.value  # type: ignore[assignment]
        return np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    args = [evaluate_scalar(a, operands, shape, sizes) for a in expr.args]
    if expr.op == "cast":
        return widen(narrow(args[0], expr.dtype), expr.dtype)
    with np.errstate(all="ignore"):
        return FUNCTIONS[expr.op](*args)


def quantize_rows(x: Array) -> Array:
    """What is left of f32 rows after quantization."""
    rows = reference.quantize_rows(x.reshape(-1, x.shape[-1]))
    numbers = rows.scale[:, None] * (rows.q - rows.zp[:, None]).astype(np.float32)
    quantized: Array = numbers.reshape(x.shape)
    return quantized


def _shape(shape: Shape, sizes: Sizes) -> tuple[int, ...]:
    return tuple(evaluate(s, sizes) for s in shape)


def _pointwise(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    shape = _shape(node.output.shape, sizes)
    return np.broadcast_to(evaluate_scalar(node.attrs["expr"], arrays, shape, sizes), shape)


def _slice(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    axis, step = node.attrs["axis"], node.attrs["step"]
    start = evaluate(node.attrs["start"], sizes)
    stop = start + (evaluate(node.output.shape[axis], sizes) - 1) * step + 1
    part: Array = arrays[0][(slice(None),) * axis + (slice(start, stop, step),)]
    return part


def _pad(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    shape = _shape(node.output.shape, sizes)
    before = [evaluate(b, sizes) for b in node.attrs["before"]]
    out = np.full(shape, node.attrs["value"], arrays[0].dtype)
    out[tuple(slice(b, b + e) for b, e in zip(before, arrays[0].shape, strict=True))] = arrays[0]
    return out


_ACTIVATIONS = {"gelu_erf", "gelu_tanh", "relu", "silu", "sigmoid", "tanh"}


def _epilogue(node: Node, y: Array, arrays: list[Array]) -> Array:
    named = dict(zip(node.attrs.get("roles", ()), arrays, strict=False))
    if "bias" in named:
        y = y + named["bias"]
    activation = node.attrs.get("activation")
    if activation:
        y = FUNCTIONS[activation](y)
    if "factor" in named:
        y = y * named["factor"]
    for role in ("residual0", "residual1"):
        if role in named:
            y = y + named[role]
    return y


def _linear(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    weight, scheme = arrays[1], node.attrs.get("scheme")
    named = dict(zip(node.attrs.get("roles", ()), arrays, strict=False))
    if "scale" in named:
        weight = reference.dequantize(weight, named["scale"])
    elif scheme == "int8":
        channels = reference.quantize_channels(weight)
        weight = reference.dequantize(channels.q, channels.scale)
    elif scheme == "bf16":
        weight = widen(narrow(weight, DType.BF16), DType.BF16)
    return _epilogue(node, arrays[0] @ weight.T, arrays)


def _norm(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    x, named = arrays[0], dict(zip(node.attrs["roles"], arrays, strict=True))
    if not node.attrs["rms"]:
        x = x - x.mean(-1, keepdims=True)
    y: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(node.attrs["eps"]))
    if "weight" in named:
        y = y * named["weight"]
    return y + named["bias"] if "bias" in named else y


def _softmax(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    x = arrays[0]
    with np.errstate(invalid="ignore"):
        shifted = x - x.max(-1, keepdims=True, initial=-np.inf)
        total = np.exp(shifted).sum(-1, keepdims=True)
        y: Array = shifted - np.log(total) if node.attrs["log"] else np.exp(shifted) / total
    return y


def _attention(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    q, k, v = (a.swapaxes(1, 2) for a in arrays[:3])
    named = dict(zip(node.attrs["roles"], arrays, strict=True))
    y = reference_ops.attention(
        q,
        k,
        v,
        node.attrs["scale"],
        named.get("mask"),
        reference_ops.CAUSAL_FIRST if node.attrs["causal"] else reference_ops.SEES_ALL,
        node.attrs.get("replaces", False),
        node.attrs.get("unseen_zero", False),
    )
    return y.swapaxes(1, 2)


def _rope(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    """Rotates the query; rotated keys and the values go to the cache."""
    named = dict(zip(node.attrs["roles"], arrays, strict=True))
    cos, sin = (named[r][:, :, None] for r in ("cos", "sin"))

    def rotated(x: Array) -> Array:
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    layer = node.attrs["layer"]
    for part, new in enumerate((rotated(named["k"]), named["v"])):
        for b, past in enumerate(named["past"]):
            rows = slice(past, past + new.shape[1])
            if "scales" in named:
                heads = reference.quantize_heads(new[b])
                named["cache"][layer, part, b, rows] = heads.q
                named["scales"][layer, part, b, :, rows] = heads.scale.T
            else:
                named["cache"][layer, part, b, rows] = new[b]
    return rotated(named["q"])


def _cached_attention(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    """Causal attention of the new tokens to the rows of the cache from `start` on."""
    named = dict(zip(node.attrs["roles"], arrays, strict=True))
    q, past, start = (named[role] for role in ("q", "past", "start"))
    cache = named["cache"][node.attrs["layer"]].astype(np.float32)
    if "scales" in named:
        cache *= named["scales"][node.attrs["layer"]].swapaxes(2, 3)[..., None]
    keys, values = cache
    seen = []
    for b in range(len(q)):
        rows = slice(start[b], past[b] + q.shape[1])
        new, past_k, past_v = (a[None] for a in (q[b], keys[b, rows], values[b, rows]))
        scale, causal = node.attrs["scale"], reference_ops.CAUSAL_LAST
        seen.append(reference_ops.attention(new, past_k, past_v, scale, causal=causal)[0])
    return np.stack(seen)


def _depthwise(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    named = dict(zip(node.attrs["roles"], arrays, strict=True))
    src, weight = named["x"], named["weight"]
    u = src * named["mask_in"] if "mask_in" in named else src
    t_out = evaluate(node.output.shape[1], sizes)
    kernel, stride, dilation = weight.shape[0], node.attrs["stride"], node.attrs["dilation"]
    reach = (t_out - 1) * stride + (kernel - 1) * dilation + 1
    left = node.attrs["pad_left"]
    padded = np.zeros((u.shape[0], max(reach, left + u.shape[1]), u.shape[2]), np.float32)
    padded[:, left : left + u.shape[1]] = u
    y = np.zeros((u.shape[0], t_out, u.shape[2]), np.float32)
    for j in range(kernel):
        y += weight[j] * padded[:, j * dilation : j * dilation + (t_out - 1) * stride + 1 : stride]
    if "bias" in named:
        y = y + named["bias"]
    if node.attrs["identity"]:
        y = y + (u if node.attrs["identity"] == 1 else src)[:, :t_out]
    if "mask_out" in named:
        y = y * named["mask_out"]
    return y + named["residual"] if "residual" in named else y


def _conv(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    x, w = arrays[:2]
    if one_d := x.ndim == 3:
        x, w = x[:, :, None], w[:, :, None]
    (sh, sw), (ph, pw), (dh, dw) = (node.attrs[k] for k in ("stride", "padding", "dilation"))
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    span = ((w.shape[2] - 1) * dh + 1, (w.shape[3] - 1) * dw + 1)
    windows = np.lib.stride_tricks.sliding_window_view(x, span, (2, 3))[
        :, :, ::sh, ::sw, ::dh, ::dw
    ]
    groups = node.attrs["groups"]
    parts = [
        np.einsum("nchwij,ocij->nohw", a, b, optimize=True)
        for a, b in zip(np.split(windows, groups, 1), np.split(w, groups, 0), strict=True)
    ]
    y = np.concatenate(parts, 1)
    y = y[:, :, 0] if one_d else y
    channel_last = np.moveaxis(y, 1, -1)
    rest = [
        a if r in ("x", "weight", "bias") else np.moveaxis(a, 1, -1)
        for r, a in zip(node.attrs["roles"], arrays, strict=True)
    ]
    return np.moveaxis(_epilogue(node, channel_last, rest), -1, 1)


def _patches(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    x = arrays[0][:, None] if arrays[0].ndim == 3 else arrays[0]
    shape = _shape(node.output.shape, sizes)
    out_size = (1, shape[1]) if len(shape) == 3 else (shape[1], shape[2])
    geometry = (node.attrs[k] for k in ("stride", "dilation", "padding"))
    rows: Array = reference_ops.patches(x, node.attrs["taps"], out_size, *geometry).reshape(shape)
    return quantize_rows(rows) if node.output.packed == QUANTIZED else rows


def _reduce(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    x, kind, axes = arrays[0], node.attrs["kind"], node.attrs["axes"]
    if kind == "argmax":
        return np.asarray(np.argmax(x, axes[0], keepdims=True))
    if kind == "mean":
        count = math.prod(x.shape[a] for a in axes)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sum(x, axis=axes, keepdims=True) / np.asarray(count, x.dtype))
    if x.dtype == np.bool_:
        kind = {"max": "any", "min": "all"}.get(kind, kind)
    return np.asarray(getattr(np, kind)(x, axis=axes, keepdims=True))


def _gather(node: Node, arrays: list[Array], sizes: Sizes) -> Array:
    table, indices = arrays[:2]
    if "scheme" not in node.attrs:
        return np.asarray(table[indices])
    rows, where = np.unique(indices, return_inverse=True)
    if len(arrays) == 3:
        numbers = reference.dequantize(table[rows], arrays[2][rows])
    else:
        packed = reference.quantize_channels(table[rows])
        numbers = reference.dequantize(packed.q, packed.scale)
    return np.asarray(numbers[where.reshape(indices.shape)])


def _cif(node: Node, arrays: list[Array], sizes: Sizes) -> tuple[Array, ...]:
    hidden, alphas = arrays
    attrs = node.attrs
    return reference_ops.cif(hidden, alphas, attrs["threshold"], attrs["rule"], attrs["count"])


#: Op -> what computes its outputs (None: it has none) of a node, its operands and sizes.
OPERATIONS: dict[str, Callable[[Node, list[Array], Sizes], Array | tuple[Array, ...] | None]] = {
    "go.pointwise": _pointwise,
    "go.permute": lambda n, a, s: a[0].transpose(n.attrs["axes"]),
    "go.reshape": lambda n, a, s: a[0].reshape(_shape(n.output.shape, s)),
    "go.expand": lambda n, a, s: np.broadcast_to(a[0], _shape(n.output.shape, s)),
    "go.slice": _slice,
    "go.cat": lambda n, a, s: np.concatenate(a, n.attrs["axis"]),
    "go.pad": _pad,
    "go.gather": _gather,
    "go.linear": _linear,
    "go.matmul": lambda n, a, s: a[0] @ a[1],
    "go.quantize_rows": lambda n, a, s: quantize_rows(a[0]),
    "go.split_rows": lambda n, a, s: np.stack([a[0], a[0] - quantize_rows(a[0])], -2),
    "go.pack_rows": lambda n, a, s: a[0],
    "go.norm": _norm,
    "go.softmax": _softmax,
    "go.attention": _attention,
    "go.rope": _rope,
    "go.cached_attention": _cached_attention,
    "go.depthwise": _depthwise,
    "go.conv": _conv,
    "go.patches": _patches,
    "go.reduce": _reduce,
    "go.cif": _cif,
    "go.check": lambda n, a, s: None,
}
