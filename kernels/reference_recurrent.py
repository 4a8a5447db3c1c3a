"""What go_recurrent computes, in numpy, in whatever precision its operands have.

Units of a layer come in blocks of 16, those missing in the last one filled with zeros. What the
gates of a block get lies together: [block][gate][16]. Gates are in torch's order, input, forget,
cell and output of an LSTM, reset, update and new of a GRU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

UNITS = 16
"""Of a block."""

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""Kinds of layers, and how many gates a unit has."""


def arranged(kind: str, rows: Array) -> Array:
    """What torch has as [gates * hidden, ...], in blocks of units [gates * padded, ...]."""
    gates = GATES[kind]
    hidden, rest = len(rows) // gates, rows.shape[1:]
    whole = np.zeros((gates, padded(hidden), *rest), rows.dtype)
    whole[:, :hidden] = rows.reshape(gates, hidden, *rest)
    blocks = whole.reshape(gates, -1, UNITS, *rest).swapaxes(0, 1)
    return np.ascontiguousarray(blocks).reshape(gates * padded(hidden), *rest)


def recurrent(
    kind: str,
    gates: Array,
    weight: Array,
    bias: Array | None,
    state: Array,
    cell: Array | None,
    lengths: Array | None = None,
    projection: Array | None = None,
    rounded: Callable[[Array], Array] = np.asarray,
) -> tuple[Array, Array, Array | None]:
    """A layer over all steps, in both directions if there are two.

    Args:
        kind: of `GATES`.
        gates: what the inputs give [batch, time, directions, columns], `arranged`.
        weight: of the recurrent product [directions, columns, width].
        bias: of that product [directions, columns].
        state: of which it starts [directions, batch, width].
        cell: of an LSTM [directions, batch, hidden], as state.
        lengths: steps of each item [batch]; behind them states stay, and results are zero.
        projection: of an LSTM's output [directions, padded width, hidden].
        rounded: what becomes of the rows of a product before it.

    Returns:
        Results [batch, time, directions, width], the last state and the last cell.
    """
    batch, time, directions, _ = gates.shape
    hidden = state.shape[2] if cell is None else cell.shape[2]
    state, cell = state.copy(), None if cell is None else cell.copy()
    results = np.zeros((batch, time, directions, state.shape[2]), gates.dtype)
    for d in range(directions):
        for t in range(time) if d == 0 else range(time)[::-1]:
            product = rounded(state[d]) @ weight[d].T
            product = product if bias is None else product + bias[d]
            c = None if cell is None else cell[d]
            new, c = _step(kind, _apart(kind, gates[:, t, d]), _apart(kind, product), state[d], c)
            new, c = new[:, :hidden], None if c is None else c[:, :hidden]
            if projection is not None:
                new = (rounded(new) @ projection[d].T)[:, : state.shape[2]]
            going = np.ones(batch, bool) if lengths is None else t < lengths
            state[d] = np.where(going[:, None], new, state[d])
            results[:, t, d] = np.where(going[:, None], new, 0)
            if cell is not None:
                cell[d] = np.where(going[:, None], c, cell[d])
    return results, state, cell


def _apart(kind: str, columns: Array) -> list[Array]:
    """For each gate [batch, padded units]."""
    parts = columns.reshape(len(columns), -1, GATES[kind], UNITS)
    return [parts[:, :, g].reshape(len(columns), -1) for g in range(GATES[kind])]


def _step(
    kind: str, x: list[Array], p: list[Array], state: Array, cell: Array | None
) -> tuple[Array, Array | None]:
    """State and cell after a step, of padded units."""
    before = _widened(state if cell is None else cell, x[0].shape[1])
    if kind == "lstm":
        i, f, g, o = (a + b for a, b in zip(x, p, strict=True))
        after = _sigmoid(f) * before + _sigmoid(i) * np.tanh(g)
        return _sigmoid(o) * np.tanh(after), after
    if kind == "gru":
        r, z = _sigmoid(x[0] + p[0]), _sigmoid(x[1] + p[1])
        new = np.tanh(x[2] + r * p[2])
        return new + z * (before - new), None
    y = x[0] + p[0]
    return (np.tanh(y) if kind == "rnn_tanh" else np.maximum(y, 0)), None


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def padded(size: int) -> int:
    """A size in whole blocks of units."""
    return -(-size // UNITS) * UNITS


def _widened(rows: Array, width: int) -> Array:
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
