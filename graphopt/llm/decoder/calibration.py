"""Inputs of a decoder graph for calibration: windows of a text, each read from its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphopt.errors import CalibrationError, TokenRangeError
from graphopt.ir import Graph
from graphopt.ir.symbolic import evaluate

Array = np.ndarray[Any, Any]

_WINDOW = 512  # tokens that see each other


def calibration_inputs(graph: Graph, sequences: Sequence[Any], vocabulary: int) -> list[Array]:
    """Inputs for one run of a decoder (graphopt/llm/decoder/graph.py) on all windows at once.

    Args:
        graph: of the decoder.
        sequences: arrays of tokens, one behind the other; what fills no window of 512 is left
            out, unless it is all there is.
        vocabulary: number of tokens.

    Raises:
        CalibrationError: for something else than tokens, or none at all.
        TokenRangeError: for a token outside the vocabulary.
    """
    tokens = _tokens(sequences)
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocabulary:
        raise TokenRangeError(low if low < 0 else high, vocabulary)
    length = min(_WINDOW, len(tokens))
    count = len(tokens) // length
    windows = tokens[: count * length].reshape(count, length)
    extents = {"B": count, "T": length, "R": windows.size, "S": length}
    sizes = {info.symbol: extents[name] for name, info in graph.dims.items()}
    inputs = []
    for value in graph.inputs:
        shape = tuple(evaluate(extent, sizes) for extent in value.shape)
        inputs.append(np.zeros(shape, value.dtype.numpy))
    names = [value.name for value in graph.inputs]
    inputs[names.index("tokens")] = windows
    inputs[names.index("rows")] = np.arange(windows.size, dtype=np.int64)
    return inputs


def _tokens(sequences: Sequence[Any]) -> Array:
    """All tokens in one row."""
    if isinstance(sequences, str):
        raise CalibrationError("it is text; give its tokens")
    try:
        arrays = [np.asarray(sequence).reshape(-1) for sequence in sequences]
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"it holds no arrays of tokens ({error})") from error
    if not all(np.issubdtype(array.dtype, np.integer) for array in arrays if array.size):
        raise CalibrationError("it holds something else than integers; give tokens")
    tokens: Array = np.concatenate([np.zeros(0, np.int64), *arrays]).astype(np.int64)
    if not tokens.size:
        raise CalibrationError("it has no tokens")
    return tokens
