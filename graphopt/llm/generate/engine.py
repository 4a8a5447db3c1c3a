"""A compiled decoder with a cache: tokens in, logits out; numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphopt.errors import (
    ContextLengthError,
    EmptyInputError,
    InputRankError,
    InputShapeError,
    TokenRangeError,
)
from graphopt.llm.generate.cache import CacheShape, KeyValueCache

Array = np.ndarray[Any, Any]


class Engine:
    """Feeds tokens to a compiled decoder graph (graphopt/llm/decoder/graph.py).

    Args:
        run: runs the module on its inputs, in their order.
        vocabulary: number of tokens.
        cache: what caches are made of.
    """

    def __init__(
        self, run: Callable[[Sequence[Array]], list[Array]], vocabulary: int, cache: CacheShape
    ) -> None:
        self._run = run
        self.vocabulary = vocabulary
        self.cache_shape = cache

    def new_cache(self, sequences: int = 1) -> KeyValueCache:
        """An empty cache for sequences that are decoded together."""
        return KeyValueCache(self.cache_shape, sequences)

    def forward(self, tokens: Array, cache: KeyValueCache, rows: Array | None = None) -> Array:
        """Appends tokens to the sequences of a cache.

        Args:
            tokens: integers [sequences, new tokens].
            cache: what came before; it grows by the tokens, unless the call fails.
            rows: tokens whose logits are wanted, as sequence * new tokens + token; by default the
                last of each sequence.

        Returns:
            Logits f32 [rows, vocabulary].

        Raises:
            InputRankError, InputShapeError, EmptyInputError: for tokens of another shape.
            TokenRangeError: for a token outside the vocabulary.
            ContextLengthError: if the context is full; the cache is as before.
            CacheBusyError: if another thread uses the cache.
        """
        tokens = np.ascontiguousarray(tokens, np.int64)
        self._check(tokens, cache)
        count = tokens.shape[1]
        if rows is None:
            rows = np.arange(1, len(tokens) + 1, dtype=np.int64) * count - 1
        with cache.claimed():
            (logits,) = self._run([tokens, cache.past, cache.start, rows, *cache.states])
            cache.past = cache.past + count
        return logits

    def _check(self, tokens: Array, cache: KeyValueCache) -> None:
        if tokens.ndim != 2:
            raise InputRankError("tokens", ("sequences", "new tokens"), tokens.shape)
        if len(tokens) != cache.sequences:
            raise InputShapeError("tokens", 0, cache.sequences, len(tokens))
        for axis, size in enumerate(tokens.shape):
            if size == 0:
                raise EmptyInputError("tokens", axis)
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.vocabulary:
            raise TokenRangeError(low if low < 0 else high, self.vocabulary)
        self.check_room(cache, tokens.shape[1])

    @staticmethod
    def check_room(cache: KeyValueCache, count: int) -> None:
        """Raises ContextLengthError if `count` more tokens do not fit."""
        wanted = cache.length + count
        if wanted > cache.context:
            raise ContextLengthError(wanted, cache.context)
