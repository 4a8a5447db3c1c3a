"""Matrices of a decoder as files hold them: in f32, or quantized, with what belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.kernels import reference

Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class BlockMatrix:
    """4 bits per value: value j of a row is `scale[b] * q[j] + least[b]`, b the block of j.

    The products with `least` are those of sums over blocks of the input: a second, thin matrix.

    Attributes:
        q: int8 [out, in] in [-8, 7].
        scale: bf16 bits [out, blocks]; a block has a multiple of 32 values.
        least: f32 [out, blocks]; None where there is none.
    """

    q: Array
    scale: Array
    least: Array | None

    def dense(self) -> Array:
        """The matrix in f32."""
        values = reference.dequantize(self.q, reference.f32_from_bf16(self.scale))
        if self.least is not None:
            values += np.repeat(self.least, self.q.shape[1] // self.least.shape[1], axis=1)
        return values


@dataclass(eq=False)
class ByteMatrix:
    """8 bits per value: value j of a row is `scale[b] * q[j]`, b the block of j.

    Attributes:
        q: int8 [out, in].
        scale: f32 [out, blocks]; one block is a scale per row.
    """

    q: Array
    scale: Array

    def dense(self) -> Array:
        """The matrix in f32."""
        return reference.dequantize(self.q, self.scale)


@dataclass(eq=False)
class AdaptedMatrix:
    """A matrix and a correction of low rank: Hu et al., "LoRA" (2021).

    Attributes:
        base: [out, in].
        down: f32 [rank, in].
        up: f32 [out, rank], with its factor.
    """

    base: BlockMatrix
    down: Array
    up: Array

    def dense(self) -> Array:
        """The matrix in f32."""
        dense: Array = self.base.dense() + self.up @ self.down
        return dense


@dataclass(eq=False)
class RotatedMatrix:
    """A matrix behind a Hadamard transform of its input.

    Liu et al., "SpinQuant: LLM Quantization with Learned Rotations" (2024), R4: outliers among
    the inputs of the last matrix of a layer are spread over all of them.

    Attributes:
        base: [out, in]; `in` is a power of two.
    """

    base: BlockMatrix

    def dense(self) -> Array:
        """The matrix in f32, with the transform multiplied into it."""
        out, width = self.base.q.shape
        first, second = hadamard_factors(width)
        rows = self.base.dense().reshape(out, len(first), len(second))
        dense: Array = (first @ (rows @ second)).reshape(out, width)
        return dense


Matrix = Array | BlockMatrix | ByteMatrix | AdaptedMatrix | RotatedMatrix


def dense(matrix: Matrix) -> Array:
    """Any matrix in f32 [out, in]."""
    return matrix if isinstance(matrix, np.ndarray) else matrix.dense()


def extents_of(matrix: Matrix) -> tuple[int, ...]:
    """Rows and columns, or what an array has for axes."""
    stored = matrix.base if isinstance(matrix, AdaptedMatrix | RotatedMatrix) else matrix
    array = stored if isinstance(stored, np.ndarray) else stored.q
    return tuple(array.shape)


def stack_rows(parts: Sequence[Matrix]) -> Matrix:
    """Rows of several matrices one after the other; f32 if they are not of one kind."""
    if len(parts) == 1:
        return parts[0]
    kinds = {type(part) for part in parts}
    if kinds == {BlockMatrix}:
        return _stack_blocks([part for part in parts if isinstance(part, BlockMatrix)])
    if kinds == {ByteMatrix}:
        given = [part for part in parts if isinstance(part, ByteMatrix)]
        if len({part.scale.shape[1] for part in given}) == 1:
            q, scale = (np.concatenate([getattr(p, n) for p in given]) for n in ("q", "scale"))
            return ByteMatrix(q, scale)
    if kinds == {AdaptedMatrix}:
        adapted = [part for part in parts if isinstance(part, AdaptedMatrix)]
        base = _stack_blocks([part.base for part in adapted])
        if isinstance(base, BlockMatrix):
            down = np.concatenate([part.down for part in adapted])
            return AdaptedMatrix(base, down, _block_diagonal([part.up for part in adapted]))
    return np.concatenate([dense(part) for part in parts])


def take_rows(matrix: Matrix, rows: Array) -> Matrix:
    """Rows of a matrix by number, in the order of the numbers."""

    def blocks(given: BlockMatrix) -> BlockMatrix:
        least = None if given.least is None else given.least[rows]
        return BlockMatrix(given.q[rows], given.scale[rows], least)

    if isinstance(matrix, BlockMatrix):
        return blocks(matrix)
    if isinstance(matrix, ByteMatrix):
        return ByteMatrix(matrix.q[rows], matrix.scale[rows])
    if isinstance(matrix, AdaptedMatrix):
        return AdaptedMatrix(blocks(matrix.base), matrix.down, matrix.up[rows])
    taken: Array = dense(matrix)[rows]
    return taken


def _stack_blocks(parts: list[BlockMatrix]) -> BlockMatrix | Array:
    forms = {(part.least is None, part.scale.shape[1]) for part in parts}
    if len(forms) > 1:
        return np.concatenate([part.dense() for part in parts])
    least = [part.least for part in parts if part.least is not None]
    return BlockMatrix(
        np.concatenate([part.q for part in parts]),
        np.concatenate([part.scale for part in parts]),
        np.concatenate(least) if least else None,
    )


def _block_diagonal(parts: list[Array]) -> Array:
    """Each part with columns of its own."""
    rows, columns = (sum(part.shape[axis] for part in parts) for axis in (0, 1))
    whole = np.zeros((rows, columns), np.float32)
    row = column = 0
    for part in parts:
        whole[row : row + part.shape[0], column : column + part.shape[1]] = part
        row, column = row + part.shape[0], column + part.shape[1]
    return whole


def hadamard_factors(width: int) -> tuple[Array, Array]:
    """Two orthogonal symmetric matrices whose Kronecker product is the transform of `width`.

    Sylvester's construction, H(2 n) = H(2) x H(n), over sqrt(width): f32 [a, a] and [b, b],
    a * b = width, a power of two.
    """
    assert width & (width - 1) == 0, "a power of two"
    bits = width.bit_length() - 1
    return _hadamard(bits // 2), _hadamard(bits - bits // 2)


def _hadamard(bits: int) -> Array:
    matrix: Array = np.ones((1, 1), np.float32)
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.sqrt(np.float32(1 << bits)), np.float32)
