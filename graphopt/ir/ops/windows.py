"""Ops that read windows of an image, each channel by itself: pooling."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.dtype import DType
from graphopt.ir.graph import Dim, Node, Shape, Value
from graphopt.ir.op import HIDDEN, Array, Op, Operand, Operands, Sizes
from graphopt.ir.ops.views import sized
from graphopt.ir.symbolic import evaluate

POOLS = ("max", "mean", "argmax")


@dataclass
class Pool(Op):
    """The largest or the mean of the elements in each window of x [batch, channels, spatial axes].

    Windows are of one size, or (`adaptive`) as torch cuts an axis into as many as the result has:
    from floor(i * size / count) to ceil((i + 1) * size / count).

    Attributes:
        kind: max, mean, or argmax: the index of the largest in row-major order of the spatial axes.
        shape: of the result.
        window: taps of a window per spatial axis; empty for adaptive ones.
        stride: distance of windows.
        padding: elements in front of the first; no window begins behind the elements.
        dilation: distance of taps.
        padding_counts: whether a mean counts elements of the padding, as zeros.
        divisor: what a sum is divided by, in place of the number of elements.
    """

    kind: str
    shape: Shape = field(metadata=HIDDEN)
    window: tuple[Dim, ...] = ()
    stride: tuple[Dim, ...] = ()
    padding: tuple[Dim, ...] = ()
    dilation: tuple[int, ...] = ()
    padding_counts: bool = False
    divisor: int = 0

    NAME = "go.pool"
    OPERANDS = (Operand("x"),)

    @property
    def adaptive(self) -> bool:
        """Whether windows are as torch cuts an axis."""
        return not self.window

    def results(self, given: Operands) -> list[Value]:
        return [Value(DType.I64 if self.kind == "argmax" else given["x"].dtype, self.shape)]

    def problem(self, node: Node) -> str | None:
        x = node.operands["x"]
        if self.kind not in POOLS:
            return f"there is no pooling {self.kind}"
        if x.rank < 3 or len(self.shape) != x.rank or self.shape[:2] != x.shape[:2]:
            return f"pooling of {x.shape} to {self.shape}"
        if not x.dtype.is_float and self.kind == "mean":
            return f"means of {x.dtype.value}"
        given = [len(v) for v in (self.window, self.stride, self.padding, self.dilation)]
        return None if given in ([0] * 4, [x.rank - 2] * 4) else "windows of other axes"

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        x = given["x"]
        counts = sized(self.shape, sizes)[2:]
        axes = range(len(counts))
        taps = [self._taps(a, counts[a], x.shape[2 + a], sizes) for a in axes]
        at: list[Any] = []
        there = np.ones((), bool)
        for a, (places, inside, _) in enumerate(taps):
            spread = [1] * (2 * len(counts))
            spread[a], spread[len(counts) + a] = places.shape
            at.append(places.reshape(spread))
            there = there & inside.reshape(spread)
        values = x[(slice(None), slice(None), *at)]
        tap_axes = tuple(range(2 + len(counts), values.ndim))
        if self.kind == "mean":
            total = np.where(there, values, 0).sum(tap_axes, dtype=x.dtype)
            number = there.sum(tuple(a - 2 for a in tap_axes))
            if self.padding_counts:
                number = math.prod(
                    size.reshape([-1 if a == b else 1 for b in axes])
                    for a, (_, _, size) in enumerate(taps)
                )
            number = self.divisor or number
            with np.errstate(invalid="ignore"):
                return [np.where(there.any(tuple(a - 2 for a in tap_axes)), total / number, 0)
                        .astype(x.dtype)]  # fmt: skip
        least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        values = np.where(there, values, np.asarray(least, x.dtype))
        if self.kind == "max":
            return [values.max(tap_axes)]
        return [self._argmax(x, at, there, values)]

    def _taps(self, axis: int, count: int, extent: int, sizes: Sizes) -> tuple[Array, Array, Array]:
        """Places [count, taps] along an axis, which of them there are, and sizes of windows."""
        i = np.arange(count)
        if self.adaptive:
            first, stop = i * extent // count, -(-(i + 1) * extent // count)
            step, size = 1, stop - first
        else:
            window, stride, padding = (
                evaluate(v[axis], sizes) for v in (self.window, self.stride, self.padding)
            )
            step = self.dilation[axis]
            first = i * stride - padding
            stop = np.full(count, extent)
            size = np.minimum(first + window, extent + padding) - first
        most = int(size.max(initial=0)) if self.adaptive else window
        places = first[:, None] + step * np.arange(most)
        inside = (places >= 0) & (places < stop[:, None])
        return np.clip(places, 0, max(extent - 1, 0)), inside, size

    @staticmethod
    def _argmax(x: Array, at: list[Array], there: Array, values: Array) -> Array:
        """The first of the largest; the last NaN, as in torch."""
        flat = np.zeros((), np.int64)
        for places, extent in zip(at, x.shape[2:], strict=True):
            flat = flat * extent + places
        spatial = len(at)
        shape = values.shape[: 2 + spatial]
        rows, index = values.reshape(*shape, -1), np.broadcast_to(flat, there.shape)
        index = np.broadcast_to(index.reshape(*index.shape[:spatial], -1), rows.shape)
        inside = np.broadcast_to(there.reshape(*there.shape[:spatial], -1), rows.shape)
        first = np.argmax(inside & (rows == rows.max(-1, keepdims=True)), -1)
        last_nan = rows.shape[-1] - 1 - np.argmax(np.isnan(rows[..., ::-1]), -1)
        chosen = np.where(np.isnan(rows).any(-1), last_nan, first)
        return np.asarray(np.take_along_axis(index, chosen[..., None], -1)[..., 0])
