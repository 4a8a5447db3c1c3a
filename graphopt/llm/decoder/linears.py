"""GEMMs with the matrices of a decoder, as nodes of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.ir import DType, Graph, Node, Origin, Shape, Value, constant, scalar
from graphopt.ir.loss import Loss
from graphopt.ir.op import Op
from graphopt.ir.ops import Gather, Linear, Permute, Pointwise, Reduce, Reshape
from graphopt.kernels import reference
from graphopt.kernels.formats import F32, INT8
from graphopt.llm.decoder.matrices import (
    AdaptedMatrix,
    BlockMatrix,
    ByteMatrix,
    Matrix,
    RotatedMatrix,
    dense,
    hadamard_factors,
)
from graphopt.passes.support.rounding import loss_of

Array = np.ndarray[Any, Any]

_REST = 32  # block length of what int8 leaves over


@dataclass(eq=False)
class Rows:
    """Rows in int8 as operands of a graph.

    Attributes:
        q: i8 [rows, columns].
        scale: f32 [rows].
        loss: of the numbers that came.
    """

    q: Value
    scale: Value
    loss: Loss


@dataclass(eq=False)
class Linears:
    """Writes GEMMs into a graph.

    Attributes:
        graph: receives the nodes.
        keep_blocks: multiply by the int4 values of a `BlockMatrix`; otherwise it becomes f32.
        keep_bytes: multiply by the int8 values of a `ByteMatrix`; otherwise it becomes f32.
        exact: where int8 has no room for what came, multiply by what is left, in int4, too.
    """

    graph: Graph
    keep_blocks: bool
    keep_bytes: bool
    exact: bool

    def emit(self, where: str, op: Op, *operands: Value, **named: Value | None) -> Value:
        """Appends a node with one output and returns it; see `Node.of`."""
        self.graph.nodes.append(Node.of(op, *operands, origin=Origin(where), shape=None, **named))
        return self.graph.nodes[-1].output

    def add(self, where: str, x: Value, y: Value) -> Value:
        """The sum of two f32 values of one shape.

        Args:
            where: place in the model.
            x: the first.
            y: the second.
        """
        expr = scalar.apply("add", scalar.operand(0, DType.F32), scalar.operand(1, DType.F32))
        return self.emit(where, Pointwise(expr, x.shape), x, y)

    def linear(
        self,
        where: str,
        x: Value,
        weight: Value,
        bias: Array | None = None,
        scale: Value | None = None,
        op: Linear | None = None,
    ) -> Value:
        """The product with a weight that is already a value of the graph.

        Args:
            where: place in the model.
            x: f32 [.., in].
            weight: [out, in]; f32, or i8 with scales.
            bias: f32 [out]; None for none.
            scale: of quantized weights, f32 [out] or bf16 [out, blocks]; None for f32.
            op: the op of the node; `Linear()` if None.

        Returns:
            f32 [.., out].
        """
        added = None if bias is None else constant(bias, f"{where}.bias")
        return self.emit(where, op or Linear(), x, weight, scale=scale, bias=added)

    def gemm(self, where: str, x: Value, matrix: Matrix, bias: Array | None = None) -> Value:
        """The product with any matrix.

        Args:
            where: place in the model.
            x: f32 [.., in].
            matrix: [out, in]; kept quantized as the attributes say, otherwise made f32.
            bias: f32 [out]; None for none.

        Returns:
            f32 [.., out].
        """
        if isinstance(matrix, ByteMatrix) and self.keep_bytes:
            return self._bytes(where, x, matrix, bias)
        if isinstance(matrix, BlockMatrix) and self.keep_blocks:
            return self._blocks(where, x, matrix, bias)
        if isinstance(matrix, AdaptedMatrix) and self.keep_blocks:
            y = self._blocks(where, x, matrix.base, bias)
            down = self._plain(f"{where}.down", x, matrix.down)
            return self.add(where, y, self._plain(f"{where}.up", down, matrix.up))
        if isinstance(matrix, RotatedMatrix) and self.keep_blocks:
            return self._blocks(where, self._rotated(where, x), matrix.base, bias)
        return self.linear(where, x, constant(dense(matrix), f"{where}.weight"), bias)

    def rows(self, matrix: Matrix, name: str) -> Rows:
        """A matrix with one scale per row: as it came if it has that, or rounded to it."""
        if isinstance(matrix, ByteMatrix) and matrix.scale.shape[1] == 1:
            q, scale, loss = matrix.q, matrix.scale[:, 0], Loss(0.0)
        else:
            whole = dense(matrix)
            channels = reference.quantize_channels(whole)
            q, scale = channels.q, channels.scale
            loss = loss_of(whole, reference.dequantize(q, scale))
        return Rows(constant(q, f"{name}.weight"), constant(scale, f"{name}.scale"), loss)

    def by_rows(self, where: str, x: Value, rows: Rows, bias: Array | None = None) -> Value:
        """The product with rows in int8.

        Args:
            where: place in the model.
            x: f32 [.., in].
            rows: i8 [out, in] with scales.
            bias: f32 [out]; None for none.

        Returns:
            f32 [.., out].
        """
        return self.linear(where, x, rows.q, bias, rows.scale, Linear(loss=rows.loss))

    def look_up(self, where: str, rows: Rows, indices: Value) -> Value:
        """Rows in int8 by index, as f32.

        Args:
            where: place in the model.
            rows: i8 [rows, columns] with scales.
            indices: i64, of any shape.

        Returns:
            f32 [.., columns], for indices [..].
        """
        return self.emit(where, Gather(INT8), rows.q, indices, rows.scale)

    def split(self, where: str, x: Value, matrix: Matrix, bias: Array | None = None) -> Value:
        """The product with rows in int8, plus that with what they leave over, in int4.

        The second is left out if nothing is left over, or `in` is no multiple of its block length.

        Args:
            where: place in the model.
            x: f32 [.., in].
            matrix: [out, in].
            bias: f32 [out]; None for none.

        Returns:
            f32 [.., out].
        """
        rows = self.rows(matrix, where)
        y = self.by_rows(where, x, rows, bias)
        if rows.loss.weights == 0 or rows.q.data is None or rows.q.data.shape[1] % _REST:
            return y
        assert rows.scale.data is not None
        rest = dense(matrix) - reference.dequantize(rows.q.data, rows.scale.data)
        blocks = reference.quantize_blocks_int4(rest, _REST)
        left = BlockMatrix(blocks.q, blocks.scale, None)
        whole = float(np.vdot(rest, rest)) / rows.loss.weights
        self.graph.nodes[-1].as_op(Linear).loss = Loss(
            float(np.square(rest - left.dense()).sum()) / whole
        )
        return self.add(where, y, self._blocks(f"{where}.rest", x, left, None))

    def _bytes(self, where: str, x: Value, matrix: ByteMatrix, bias: Array | None) -> Value:
        if self.exact:
            return self.split(where, x, matrix, bias)
        return self.by_rows(where, x, self.rows(matrix, where), bias)

    def _plain(self, where: str, x: Value, matrix: Array) -> Value:
        """A thin product that stays in f32."""
        return self.linear(where, x, constant(matrix, f"{where}.weight"), op=Linear(format=F32))

    def _blocks(self, where: str, x: Value, matrix: BlockMatrix, bias: Array | None) -> Value:
        """The product with `q`, plus that of the sums over blocks of the input with `least`."""
        scale = Value(DType.BF16, matrix.scale.shape, f"{where}.scale", data=matrix.scale)
        y = self.linear(where, x, constant(matrix.q, f"{where}.weight"), bias, scale)
        if matrix.least is None:
            return y
        count = matrix.least.shape[1]
        split: Shape = (*x.shape[:-1], count, matrix.q.shape[1] // count)
        blocks = self.emit(where, Reshape(split), x)
        sums = self.emit(where, Reduce("sum", (len(split) - 1,)), blocks)
        flat = self.emit(where, Reshape(split[:-1]), sums)
        return self.add(where, y, self._plain(f"{where}.least", flat, matrix.least))

    def _rotated(self, where: str, x: Value) -> Value:
        """The Hadamard transform of rows: products with its two factors, one along each axis."""
        width = x.shape[-1]
        assert isinstance(width, int)
        first, second = hadamard_factors(width)
        outer = x.shape[:-1]
        order = (*range(len(outer)), len(outer) + 1, len(outer))
        y = self.emit(where, Reshape((*outer, len(first), len(second))), x)
        for name, factor in (("second", second), ("first", first)):
            y = self._plain(f"{where}.hadamard.{name}", y, factor)
            y = self.emit(where, Permute(order), y)
        return self.emit(where, Reshape(x.shape), y)
