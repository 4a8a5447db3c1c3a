"""LSTM, GRU and RNN: the recurrent layers of torch, whose gates come in another order."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.ir import Dim, DType, Value, constant
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.rules.table import Rule, Table, merged, since
from graphopt.passes.lowering.builder import Unsupported, filled

_ORDERS = {"lstm": (0, 2, 3, 1), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}
"""Of torch's gates, the places in ONNX: i o f c, and z r h."""
_FUNCTIONS = {"lstm": ["Sigmoid", "Tanh", "Tanh"], "gru": ["Sigmoid", "Tanh"], "rnn": ["Tanh"]}


def _layer(kind: str) -> Rule:
    def rule(c: Call) -> list[Value]:
        x, weights, states = c.x(0), c.x(1), c.x(2)
        bias, lengths, first = c.optional(3), c.optional(4), c.optional(5)
        cell = c.optional(6) if kind == "lstm" else None
        if kind == "lstm" and c.optional(7) is not None:
            raise Unsupported("peepholes")
        kind_of = _kind(c, kind, weights.shape[0])
        direction = c.attr("direction", "forward")
        count = 2 if direction == "bidirectional" else 1
        hidden = states.shape[-1]
        if direction not in ("forward", "reverse", "bidirectional"):
            raise Malformed(f"the direction {direction}")
        if c.attr("hidden_size", hidden) != hidden or weights.shape[0] != count:
            raise Malformed(f"weights of the shape {weights.shape} for {count} directions")
        if any(v is not None and v.data is None for v in (weights, states, bias)):
            raise Unsupported("weights that are computed")
        front = bool(c.attr("layout", 0))
        steps, batch = (x.shape[1], x.shape[0]) if front else (x.shape[0], x.shape[1])
        backward = direction == "reverse"
        if lengths is not None and not _whole(lengths, steps):
            raise Unsupported("sequences of different lengths")
        names = ("h", "c") if kind == "lstm" else ("h",)
        given_states = [
            _state(c, v, front, (count, batch, hidden))
            for v, _ in zip((first, cell), names, strict=False)
        ]
        if backward:
            x = _flipped(c, x, 1 if front else 0)
        arguments: dict[str, Any] = {
            "x": x,
            "states": given_states,
            "weights": _weights(kind_of, weights, states, bias, count),
            "lengths": None,
            "kind": kind_of,
            "biases": bias is not None,
            "layers": 1,
            "bidirectional": count == 2,
            "batch_first": front,
        }
        rows = (batch, steps) if front else (steps, batch)
        wide = count * hidden if isinstance(hidden, int) else None
        if wide is None:
            raise Unsupported("a width that varies")
        outs = [(DType.F32, (*rows, wide)), *[(DType.F32, (count, batch, hidden))] * len(names)]
        y, *last = c.aten("graphopt.recurrent", *outs, **arguments)
        y = _flipped(c, y, 1 if front else 0) if backward else y
        y = c.b.reshape(y, (*rows, count, hidden))
        y = y if front else c.b.permute(y, (0, 2, 1, 3))
        last = [c.b.permute(v, (1, 0, 2)) for v in last] if front else last
        return [y, *last][: max(c.results, 1)]

    return rule


def _whole(lengths: Value, steps: Dim) -> bool:
    """Whether all sequences have all steps."""
    return (
        lengths.data is not None and isinstance(steps, int) and bool((lengths.data == steps).all())
    )


def _kind(c: Call, kind: str, directions: Dim) -> str:
    """Which layer of torch it is."""
    if c.attr("clip") is not None:
        raise Unsupported("states that are clipped")
    if c.attr("input_forget", 0):
        raise Unsupported("coupled gates")
    if kind == "gru" and not c.attr("linear_before_reset", 0):
        raise Unsupported("a GRU that resets before its product (linear_before_reset = 0)")
    given = [str(f) for f in c.attr("activations") or []]
    c.harmless("activation_alpha", "activation_beta")
    if not given:
        return "rnn_tanh" if kind == "rnn" else kind
    lowered = [f.lower() for f in given]
    default = [f.lower() for f in _FUNCTIONS[kind]]
    count = len(given) // len(default)
    if lowered == default * count and count == directions:
        return "rnn_tanh" if kind == "rnn" else kind
    if kind == "rnn" and set(lowered) == {"relu"}:
        return "rnn_relu"
    raise Unsupported(f"the activations {', '.join(given)}")


def _state(c: Call, value: Value | None, front: bool, shape: tuple[Dim, ...]) -> Value:
    """The first state [directions, batch, hidden], zeros if it is not given."""
    if value is None:
        return filled(shape, 0.0, DType.F32, c.b)
    return c.b.permute(value, (1, 0, 2)) if front else value


def _flipped(c: Call, x: Value, axis: int) -> Value:
    return c.aten("flip", (x.dtype, x.shape), self=x, dims=[axis])[0]


def _weights(
    kind: str, weights: Value, states: Value, bias: Value | None, count: int
) -> list[Value]:
    """Weights of torch's layer, direction by direction."""
    order = _ORDERS[kind]

    def gates(array: Any) -> Value:
        parts = np.split(array, len(order))
        return constant(np.concatenate([parts[i] for i in order]).astype(np.float32))

    made: list[Value] = []
    assert weights.data is not None and states.data is not None
    for number in range(count):
        made += [gates(weights.data[number]), gates(states.data[number])]
        if bias is not None:
            assert bias.data is not None
            made += [gates(half) for half in np.split(bias.data[number], 2)]
    return made


RULES: Table = merged(since(7, LSTM=_layer("lstm"), GRU=_layer("gru"), RNN=_layer("rnn")))
