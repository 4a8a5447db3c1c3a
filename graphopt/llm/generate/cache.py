"""Keys and values of the tokens that a decoder has seen."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.dtype import DType
from graphopt.errors import CacheBusyError, RunError
from graphopt.runtime.fields import Size
from graphopt.runtime.process import Claim

Array = np.ndarray[Any, Any]

#: `mmap.MAP_NORESERVE`, which Python names from 3.13 on: addresses count as no memory.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


@dataclass(frozen=True)
class CacheShape:
    """What a cache of a decoder is made of.

    Attributes:
        dtype: of the elements: f32, bf16, or i8 with a scale per row and head
            (`graphopt.kernels.reference.quantize_heads`).
        layers: of the decoder.
        kv_heads: heads of key and value.
        head_dim: width of a head.
        context: largest number of rows of a sequence.
    """

    dtype: DType
    layers: Size
    kv_heads: Size
    head_dim: Size
    context: Size

    @property
    def row_bytes(self) -> int:
        """Memory of one token."""
        scale = 4 if self.dtype is DType.I8 else 0
        return 2 * self.layers * self.kv_heads * (self.head_dim * self.dtype.itemsize + scale)


class KeyValueCache:
    """Keys and values of some sequences, in memory that is there as far as it is written.

    The whole context is reserved as addresses; the operating system gives pages when they are
    first touched, so that a growing cache is never copied.

    Args:
        shape: of one sequence.
        sequences: how many are decoded together.

    Attributes:
        shape: of one sequence.
        array: [layers, 2, sequences, context, kv_heads, head_dim]; bf16 as uint16.
        scales: of i8, f32 [layers, 2, sequences, kv_heads, context]; None for other types.
        past: rows written of each sequence, i64.
        start: first row that belongs to each sequence, i64: rows before it are padding.
    """

    def __init__(self, shape: CacheShape, sequences: int = 1) -> None:
        self.shape = shape
        parts = (shape.layers, 2, sequences)
        self.array = _reserve(shape.dtype, (*parts, shape.context, shape.kv_heads, shape.head_dim))
        self.scales: Array | None = None
        if shape.dtype is DType.I8:
            self.scales = _reserve(DType.F32, (*parts, shape.kv_heads, shape.context))
        self.past: Array = np.zeros(sequences, np.int64)
        self.start: Array = np.zeros(sequences, np.int64)
        self._busy = Claim()

    @property
    def states(self) -> list[Array]:
        """The states of the graph, in their order."""
        return [self.array] if self.scales is None else [self.array, self.scales]

    @property
    def sequences(self) -> int:
        """Sequences that are decoded together."""
        return len(self.past)

    @property
    def context(self) -> int:
        """Rows of each sequence."""
        return self.shape.context

    @property
    def length(self) -> int:
        """Rows written of the longest sequence."""
        return int(self.past.max())

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps others out; CacheBusyError if another thread decodes with this cache."""
        if not self._busy.take():
            raise CacheBusyError
        try:
            yield
        finally:
            self._busy.give()

    def crop(self, length: int) -> None:
        """Forgets the rows from `length` on; a negative number forgets that many."""
        kept = self.past + length if length < 0 else np.minimum(self.past, length)
        self.past = np.maximum(kept, 0)

    def select(self, chosen: Sequence[int]) -> KeyValueCache:
        """A new cache whose sequence i is a copy of sequence `chosen[i]`.

        So a common beginning is computed once: `select([0] * 4)` gives four sequences that
        continue the first one.
        """
        made = KeyValueCache(self.shape, len(chosen))
        made._copy(self, chosen)
        return made

    def reorder(self, chosen: Sequence[int]) -> None:
        """Sequence i becomes what sequence `chosen[i]` was; there are as many as before."""
        self._copy(self, chosen)

    def __deepcopy__(self, memo: dict[int, Any]) -> KeyValueCache:
        """A cache of its own with the same rows."""
        return self.select(range(self.sequences))

    def _copy(self, source: KeyValueCache, chosen: Sequence[int]) -> None:
        picked, rows = list(chosen), source.length
        self.array[:, :, :, :rows] = source.array[:, :, picked, :rows]
        if self.scales is not None and source.scales is not None:
            self.scales[..., :rows] = source.scales[:, :, picked, :, :rows]
        self.past, self.start = source.past[picked], source.start[picked]


def _reserve(dtype: DType, shape: tuple[int, ...]) -> Array:
    """An array of zeros whose pages are there once they are touched."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    size = math.prod(shape) * dtype.itemsize
    try:
        memory = mmap.mmap(-1, size, flags=flags)
    except (OSError, OverflowError, ValueError) as error:
        raise RunError(f"no {size} bytes of addresses for keys and values ({error})") from error
    return np.frombuffer(memory, dtype.numpy).reshape(shape)
