"""Ops that multiply: matrices, convolutions, and the windows that make one of the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from graphopt.dtype import DType
from graphopt.ir.graph import Dim, Node, Shape, Value
from graphopt.ir.loss import Loss
from graphopt.ir.numbers import QUANTIZED, quantize_rows
from graphopt.ir.op import (
    F32_ONLY,
    F32_OR_BF16,
    HIDDEN,
    Array,
    Op,
    Operand,
    Operands,
    Sizes,
    Strides,
)
from graphopt.ir.ops.elements import evaluate_scalar
from graphopt.ir.ops.views import sized
from graphopt.ir.scalar import activated, operand
from graphopt.ir.symbolic import evaluate, floor_div, product, simplify
from graphopt.kernels import arguments, reference_ops, winograd
from graphopt.kernels.formats import F32, Format

if TYPE_CHECKING:
    from graphopt.ir.cost import Call

#: What kernels can apply to a result before they store it.
ACTIVATIONS = arguments.ACTIVATIONS[1:]  # without none
#: Operands that are added to a result, in the order in which they are.
RESIDUALS = ("residual", "residual0", "residual1")


def _epilogue(strides: Strides) -> tuple[Operand, ...]:
    """What a kernel reads to finish its result.

    + bias, activation, * factor, + residuals, another activation, in this order.
    """
    return (
        Operand("bias", optional=True, dtypes=F32_ONLY),
        *(
            Operand(name, strides, optional=True, bf16=True, dtypes=F32_OR_BF16)
            for name in ("factor", "residual0", "residual1")
        ),
    )


def is_finished(node: Node) -> bool:
    """Whether the kernel of a contraction does more to its sums than to add a bias."""
    op = node.op
    assert isinstance(op, Linear | Conv | Depthwise)
    later = {"factor", "mask_out", *RESIDUALS} & set(node.operands)
    last = op.identity if isinstance(op, Depthwise) else op.last
    return bool(later or op.activation or last)


def _finished(y: Array, given: Mapping[str, Array], op: Linear | Conv) -> Array:
    if "bias" in given:
        y = y + given["bias"]
    if op.activation:
        y = _activated(op.activation, y, op.slope)
    if "factor" in given:
        y = y * given["factor"]
    for role in ("residual0", "residual1"):
        if role in given:
            y = y + given[role]
    return _activated(op.last, y, op.slope) if op.last else y


def _activated(name: str, y: Array, slope: float = 0.0) -> Array:
    expr = activated(name, operand(0, DType.F32), slope)
    return np.asarray(evaluate_scalar(expr, [y], y.shape, {}))


def _activation_problem(*activations: str | None) -> str | None:
    unknown = (a for a in activations if a not in (None, *ACTIVATIONS))
    return next((f"no activation {a}" for a in unknown), None)


@dataclass
class Linear(Op):
    """x [.., k] times weight [n, k] transposed, finished as follows.

    + bias, activation, * factor, + residuals, last.

    Attributes:
        activation: one of `ACTIVATIONS`.
        last: one of them, behind the residuals.
        slope: of leaky_relu.
        format: of the weights (kernels/formats.py); None until a pass decides, which is f32.
        group: of int4, values along k that share a scale; 0 for a scale per channel.
        loss: what rounding the weights lost.

    Weights that came quantized are i8, with scales f32 [n] or bf16 [n, k / group]. If the result is
    packed, the kernel quantizes its rows.
    """

    activation: str | None = None
    last: str | None = None
    slope: float = 0.0
    format: Format | None = None
    group: int = 0
    loss: Loss | None = field(metadata=HIDDEN, default=None)

    NAME = "go.linear"
    OPERANDS = (
        Operand("x", Strides.ROWS),
        Operand("weight"),
        Operand("scale", optional=True, dtypes=F32_OR_BF16),
        *_epilogue(Strides.ROWS),
    )
    STORES_BF16 = True
    PACKS = frozenset({QUANTIZED})

    @property
    def decided(self) -> Format:
        """The format; f32 while none is decided."""
        return self.format or F32

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.F32, (*given["x"].shape[:-1], given["weight"].shape[0]))]

    def problem(self, node: Node) -> str | None:
        x, weight, bias = (node.operands.get(name) for name in ("x", "weight", "bias"))
        assert x is not None and weight is not None
        if weight.rank != 2 or not weight.is_constant:
            return "its weight is no constant matrix"
        if x.rank == 0 or x.shape[-1] != weight.shape[1]:
            return f"rows of {x.shape[-1:]} beside a weight of {weight.shape}"
        if bias is not None and bias.shape != weight.shape[:1]:
            return f"a bias of {bias.shape} beside a weight of {weight.shape}"
        if self.format is not None:
            if x.packed != self.format.rows:
                return f"{self.format} of rows packed as {x.packed or 'nothing'}"
            if self.format.scaled != ("scale" in node.operands):
                return (
                    f"weights of {self.format} {'without' if self.format.scaled else 'with'} scales"
                )
        return _activation_problem(self.activation, self.last)

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        weight = self.decided.dense(given["weight"], given.get("scale"))
        y = _finished(given["x"] @ weight.T, given, self)
        return [quantize_rows(y) if node.output.packed else y]

    def macs(self, node: Node, call: Call) -> int:
        return call.size(*node.output.shape, node.operands["weight"].shape[1])

    def operand_bytes(self, node: Node, name: str, call: Call) -> int:
        if name == "scale":
            return 0  # counted with the blocks
        if name != "weight":
            return super().operand_bytes(node, name, call)
        n, k = node.operands["weight"].shape
        return self.decided.packed_bytes(call.arch, n, k, self.group)

    def kernel(self, node: Node) -> str:
        return self.decided.kernel


@dataclass
class Matmul(Op):
    """left [.., m, k] times right [.., k, n], both computed at run time."""

    NAME = "go.matmul"
    OPERANDS = (
        Operand("left", Strides.DENSE, dtypes=F32_ONLY),
        Operand("right", Strides.DENSE, dtypes=F32_ONLY),
    )
    KERNEL = "go_gemm_f32"

    def results(self, given: Operands) -> list[Value]:
        left, right = given["left"], given["right"]
        return [Value(DType.F32, (*left.shape[:-1], right.shape[-1]))]

    def problem(self, node: Node) -> str | None:
        left, right = node.operands["left"].shape, node.operands["right"].shape
        if len(left) < 2 or len(left) != len(right):
            return f"matrices of {left} and {right}"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        return [given["left"] @ given["right"]]

    def macs(self, node: Node, call: Call) -> int:
        return call.size(*node.output.shape, node.operands["left"].shape[-1])


@dataclass
class Conv(Op):
    """Convolution of x [batch, channels, (height,) width], then what `Linear` does to its result.

    Attributes:
        stride: (height, width), as padding and dilation; height is 1, 0 and 1 of one without it.
        padding: zeros on both sides.
        dilation: distance of the taps.
        groups: of channels.
        behind: how many more zeros are behind the image than before it, likewise; also fewer.
        activation: one of `ACTIVATIONS`.
        last: one of them, behind the residuals.
        slope: of leaky_relu.
        serial: whether one thread runs it.
        tile_rows: output positions of a task, at most; 0 until a pass decides.
        tile_cols: output channels of a task, at most.
        winograd: whether it multiplies transformed tiles (kernels/winograd.py), which are the
            positions of its tasks.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    behind: tuple[int, int] = (0, 0)
    activation: str | None = None
    last: str | None = None
    slope: float = 0.0
    serial: bool = False
    tile_rows: int = 0
    tile_cols: int = 0
    winograd: bool = False

    NAME = "go.conv"
    OPERANDS = (
        Operand("x", Strides.CHANNELS, bf16=True, dtypes=F32_OR_BF16),
        Operand("weight", dtypes=F32_ONLY),
        *_epilogue(Strides.CHANNELS_INNERMOST),
    )
    KERNEL = "go_conv"
    STORES_BF16 = True

    @property
    def decided(self) -> Format:
        """The format of the weights, always f32."""
        return F32

    def results(self, given: Operands) -> list[Value]:
        x, weight = given["x"].shape, given["weight"].shape
        geometry = zip(x[2:], weight[2:], *self._pairs(len(x)), strict=True)
        extents = (positions(*along) for along in geometry)
        return [Value(DType.F32, (x[0], weight[0], *extents))]

    def _pairs(self, rank: int) -> tuple[tuple[int, ...], ...]:
        axes = rank - 2
        pairs = (self.stride, self.padding, self.dilation, self.behind)
        return tuple(pair[-axes:] for pair in pairs)

    def problem(self, node: Node) -> str | None:
        x, weight = node.operands["x"], node.operands["weight"]
        if x.rank not in (3, 4) or weight.rank != x.rank:
            return f"a convolution of {x.shape} with {weight.shape}"
        inner, outer = weight.shape[1], weight.shape[0]
        if inner * self.groups != x.shape[1] or outer % self.groups:
            return f"{self.groups} groups of {inner} channels, of {x.shape[1]}, to {outer}"
        if self.winograd and (why := self.winograd_problem(weight.shape)):
            return f"Winograd's convolution where {why}"
        return _activation_problem(self.activation, self.last)

    def winograd_problem(self, weight: Shape) -> str | None:
        """Why no `go_winograd` can run it; None if one can.

        Args:
            weight: shape of its weight.
        """
        if weight[2:] != (winograd.TAPS, winograd.TAPS):
            return "filters are not 3 x 3"
        if (*self.stride, *self.dilation, self.groups) != (1, 1, 1, 1, 1):
            return "stride, dilation and groups are not all 1"
        if weight[1] % winograd.CHANNELS:
            return f"{weight[1]} channels are no multiple of {winograd.CHANNELS}"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x, w = given["x"], given["weight"]
        if one_d := x.ndim == 3:
            x, w = x[:, :, None], w[:, :, None]
        (sh, sw), (ph, pw), (dh, dw) = self.stride, self.padding, self.dilation
        behind = (ph + self.behind[0], pw + self.behind[1])
        x = np.pad(x, ((0, 0), (0, 0), (ph, behind[0]), (pw, behind[1])))
        span = ((w.shape[2] - 1) * dh + 1, (w.shape[3] - 1) * dw + 1)
        windows = np.lib.stride_tricks.sliding_window_view(x, span, (2, 3))
        windows = windows[:, :, ::sh, ::sw, ::dh, ::dw]
        parts = [
            np.einsum("nchwij,ocij->nohw", a, b, optimize=True)
            for a, b in zip(
                np.split(windows, self.groups, 1), np.split(w, self.groups, 0), strict=True
            )
        ]
        y = np.concatenate(parts, 1)
        y = y[:, :, 0] if one_d else y
        rest = {
            role: a if role == "bias" else np.moveaxis(a, 1, -1)
            for role, a in given.items()
            if role not in ("x", "weight")
        }
        return [np.moveaxis(_finished(np.moveaxis(y, 1, -1), rest, self), -1, 1)]

    def macs(self, node: Node, call: Call) -> int:
        return call.size(*node.output.shape, *node.operands["weight"].shape[1:])

    def operand_bytes(self, node: Node, name: str, call: Call) -> int:
        if name != "weight" or not self.winograd:
            return super().operand_bytes(node, name, call)
        outer, inner = node.operands[name].shape[:2]
        return F32.packed_bytes(call.arch, outer, winograd.VALUES * inner)

    def kernel(self, node: Node) -> str:
        return "go_winograd" if self.winograd else self.KERNEL


def positions(
    extent: Dim, taps: Dim, stride: int, padding: int, dilation: int, behind: int = 0
) -> Dim:
    """Where a window fits: the formula of torch.nn.Conv2d.

    Args:
        extent: of the image.
        taps: of a window.
        stride: of windows.
        padding: zeros on both sides.
        dilation: distance of the taps.
        behind: more zeros behind the image.
    """
    last = simplify(extent + 2 * padding + behind - dilation * (taps - 1) - 1)
    return simplify(floor_div(last, stride) + 1)


@dataclass
class Depthwise(Op):
    """Convolution along time of x [batch, time, channels], one filter [taps, channels] a channel.

    y = (sum of the taps over u, + bias, activation, + identity) * mask_out + residual, for
    u = x * mask_in.

    Attributes:
        stride: along time.
        dilation: distance of the taps.
        pad_left: zeros before the first frame.
        length: frames of the result; what is read behind the last frame is zero.
        identity: what is added to the sum: 0 nothing, 1 u, 2 x.
        activation: one of `ACTIVATIONS`.
        serial: whether one thread runs it.
    """

    stride: int
    dilation: int
    pad_left: Dim
    length: Dim = field(metadata=HIDDEN)
    identity: int = 0
    activation: str | None = None
    serial: bool = False

    NAME = "go.depthwise"
    OPERANDS = (
        Operand("x", Strides.DENSE_LAST, bf16=True, dtypes=F32_OR_BF16),
        Operand("weight", dtypes=F32_ONLY),
        Operand("bias", optional=True, dtypes=F32_ONLY),
        Operand("mask_in", optional=True, dtypes=F32_ONLY),
        Operand("mask_out", optional=True, dtypes=F32_ONLY),
        Operand("residual", Strides.DENSE_LAST, optional=True, bf16=True, dtypes=F32_OR_BF16),
    )
    KERNEL = "go_depthwise"
    STORES_BF16 = True

    def results(self, given: Operands) -> list[Value]:
        batch, _, channels = given["x"].shape
        return [Value(DType.F32, (batch, self.length, channels))]

    def problem(self, node: Node) -> str | None:
        x, weight = node.operands["x"], node.operands["weight"]
        if x.rank != 3 or weight.rank != 2 or weight.shape[1] != x.shape[2]:
            return f"filters of {weight.shape} for {x.shape}"
        if self.identity not in (0, 1, 2) or (self.identity and self.stride != 1):
            return f"identity {self.identity} at a stride of {self.stride}"
        return _activation_problem(self.activation)

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        src, weight = given["x"], given["weight"]
        u = src * given["mask_in"] if "mask_in" in given else src
        t_out, left = evaluate(self.length, sizes), evaluate(self.pad_left, sizes)
        taps, stride, dilation = weight.shape[0], self.stride, self.dilation
        reach = (t_out - 1) * stride + (taps - 1) * dilation + 1
        padded = np.zeros((u.shape[0], max(reach, left + u.shape[1]), u.shape[2]), np.float32)
        padded[:, left : left + u.shape[1]] = u
        y = np.zeros((u.shape[0], t_out, u.shape[2]), np.float32)
        for j in range(taps):
            first = j * dilation
            y += weight[j] * padded[:, first : first + (t_out - 1) * stride + 1 : stride]
        if "bias" in given:
            y = y + given["bias"]
        if self.identity:
            y = y + (u if self.identity == 1 else src)[:, :t_out]
        if self.activation:
            y = _activated(self.activation, y)
        if "mask_out" in given:
            y = y * given["mask_out"]
        return [y + given["residual"] if "residual" in given else y]

    def macs(self, node: Node, call: Call) -> int:
        return call.size(*node.output.shape, node.operands["weight"].shape[0])


@dataclass
class Im2col(Op):
    """The windows of a convolution as rows, of x [batch, (height,) width, channels].

    Attributes:
        taps: (height, width) of a window, as stride, padding and dilation.
        stride: of windows.
        padding: zeros on both sides.
        dilation: distance of the taps.
        behind: how many more zeros are behind the image than before it; also fewer.

    Rows have the taps' channels one after the other; the kernel may pack them for a product.
    Quantized ones share a range in a line of an image in which windows overlap.
    """

    taps: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    behind: tuple[int, int] = (0, 0)

    NAME = "go.im2col"
    OPERANDS = (Operand("x", Strides.DENSE_LAST, bf16=True, dtypes=F32_OR_BF16),)
    PACKS = frozenset({QUANTIZED, "bf16"})

    @property
    def windows(self) -> reference_ops.Geometry:
        """Taps, stride and dilation."""
        return reference_ops.Geometry(self.taps, self.stride, self.dilation)

    def results(self, given: Operands) -> list[Value]:
        batch, *extents, channels = given["x"].shape
        axes = len(extents)
        pairs = (self.taps, self.stride, self.padding, self.dilation, self.behind)
        geometry = zip(extents, *(pair[-axes:] for pair in pairs), strict=True)
        found = (positions(*along) for along in geometry)
        return [Value(DType.F32, (batch, *found, product((*self.taps, channels))))]

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x = given["x"][:, None] if given["x"].ndim == 3 else given["x"]
        shape = sized(node.output.shape, sizes)
        out_size = (1, shape[1]) if len(shape) == 3 else (shape[1], shape[2])
        geometry = (self.stride, self.dilation, self.padding)
        rows: Array = reference_ops.im2col(x, self.taps, out_size, *geometry).reshape(shape)
        if node.output.packed != QUANTIZED:
            return [rows]
        return [quantize_rows(rows, max(1, out_size[1]) if self.windows.shares_lines else 1)]

    def kernel(self, node: Node) -> str:
        return f"go_im2col_{node.output.packed}"


def doubled(shape: Shape) -> Shape:
    """The shape of rows and of what they leave over."""
    return (*shape[:-1], 2, shape[-1])
