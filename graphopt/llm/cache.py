"""Keys and values of the tokens that a decoder has seen."""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphopt.dtype import DType
from graphopt.errors import CacheBusyError

Array = np.ndarray[Any, Any]


class KeyValueCache:
    """Keys and values of some sequences, in memory that is there as far as it is written.

    The whole context is reserved as addresses; the operating system gives pages when they are
    first touched, so that a growing cache is never copied.

    Args:
        dtype: of the elements, f32 or bf16.
        layers: of the decoder.
        kv_heads: heads of key and value.
        head_dim: width of a head.
        sequences: how many are decoded together.
        context: rows of each.

    Attributes:
        array: [layers, 2, sequences, context, kv_heads, head_dim]; bf16 as uint16.
        past: rows written of each sequence, i64.
        start: first row that belongs to each sequence, i64: rows before it are padding.
    """

    def __init__(
        self, dtype: DType, layers: int, kv_heads: int, head_dim: int, sequences: int, context: int
    ) -> None:
        shape = (layers, 2, sequences, context, kv_heads, head_dim)
        self._memory = mmap.mmap(
            -1,
            math.prod(shape) * dtype.itemsize,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        )
        self.array: Array = np.frombuffer(self._memory, dtype.numpy).reshape(shape)
        self.past: Array = np.zeros(sequences, np.int64)
        self.start: Array = np.zeros(sequences, np.int64)
        self._busy = threading.Lock()

    @property
    def sequences(self) -> int:
        """Sequences that are decoded together."""
        return len(self.past)

    @property
    def context(self) -> int:
        """Rows of each sequence."""
        return int(self.array.shape[3])

    @property
    def length(self) -> int:
        """Rows written of the longest sequence."""
        return int(self.past.max())

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps others out; CacheBusyError if another thread decodes with this cache."""
        if not self._busy.acquire(blocking=False):
            raise CacheBusyError
        try:
            yield
        finally:
            self._busy.release()

    def crop(self, length: int) -> None:
        """Forgets the rows from `length` on; a negative number forgets that many."""
        kept = self.past + length if length < 0 else np.minimum(self.past, length)
        self.past = np.maximum(kept, 0)

    def reorder(self, chosen: Sequence[int]) -> None:
        """Sequence i becomes what sequence `chosen[i]` was."""
        rows = self.length
        moved = self.array[:, :, list(chosen), :rows]
        self.array[:, :, : len(chosen), :rows] = moved
        self.past, self.start = self.past[list(chosen)], self.start[list(chosen)]
