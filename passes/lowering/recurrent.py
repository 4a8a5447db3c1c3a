"""Recurrent layers, the products of all inputs as a linear and an op for the steps; cells."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.ir import DType, Node, Value, constant, scalar, symbolic
from graphopt.ir.ops import Cat, Linear, Recurrent
from graphopt.ir.scalar import Scalar
from graphopt.kernels.reference_recurrent import Array, arranged, padded
from graphopt.passes.lowering.builder import Builder, Unsupported, require_f32
from graphopt.passes.lowering.schema import Lowering, Rule, rules


@dataclass(frozen=True)
class _Cell:
    """Weights of one direction of a layer, as torch has them."""

    inputs: Array
    states: Array
    input_bias: Array | None
    state_bias: Array | None
    projection: Array | None


def _cells(weights: Sequence[Value], count: int, biases: bool) -> list[_Cell]:
    """Those of a number of directions, in torch's order."""
    if any(w.data is None for w in weights):
        raise Unsupported("a recurrent layer with weights computed at run time")
    each = len(weights) // count
    cells = []
    for first in range(0, len(weights), each):
        inputs, states, *rest = (w.data for w in weights[first : first + each])
        added = (rest.pop(0), rest.pop(0)) if biases else (None, None)
        assert inputs is not None and states is not None
        cells.append(_Cell(inputs, states, *added, rest[0] if rest else None))
    return cells


def _recurrent(b: Builder) -> list[Value]:
    x, weights, states = b.tensor("x"), b.arg("weights"), b.arg("states")
    require_f32("a recurrent layer", x, *states, *weights)
    kind, layers, batch_first = b.arg("kind"), b.arg("layers"), b.arg("batch_first")
    directions, lengths = 2 if b.arg("bidirectional") else 1, b.arg("lengths")
    cells = _cells(weights, layers * directions, b.arg("biases"))
    last: list[list[Value]] = [[] for _ in states]
    for layer in range(layers):
        first = layer * directions
        held = cells[first : first + directions]
        name = weights[len(weights) // layers * layer].name
        own = [b.slice(state, 0, first, directions) for state in states]
        op = Recurrent(kind, directions, batch_first)
        inputs, steps = _inputs(kind, held, name), _steps(kind, held, name)
        gates = b.emit(Linear(), x, inputs["weight"], bias=inputs.get("bias"))
        operands = [gates, steps["weight"], *own]
        rest = [steps.get(role) for role in ("bias", "projection")]
        node = Node.of(
            op, *operands, origin=b.node.origin, bias=rest[0], lengths=lengths, projection=rest[1]
        )
        b.nodes.append(node)
        x, *after = node.outputs
        for values, value in zip(last, after, strict=True):
            values.append(value)
    return [x, *(b.emit(Cat(0), *values) if layers > 1 else values[0] for values in last)]


def _inputs(kind: str, cells: list[_Cell], name: str) -> dict[str, Value]:
    """Weight and bias of the product of the inputs."""
    given = {"weight": np.concatenate([arranged(kind, c.inputs) for c in cells])}
    biases = [
        c.input_bias + np.where(_apart(kind, c.state_bias), 0, c.state_bias)
        for c in cells
        if c.input_bias is not None and c.state_bias is not None
    ]
    if biases:
        given["bias"] = np.concatenate([arranged(kind, v.astype(np.float32)) for v in biases])
    return {role: constant(data, f"{name}.{role}") for role, data in given.items()}


def _steps(kind: str, cells: list[_Cell], name: str) -> dict[str, Value]:
    """Weights of the recurrent product, and what of its bias is not added beside the inputs."""
    given = {"weight": np.concatenate([arranged(kind, c.states) for c in cells])}
    biases = [
        np.where(_apart(kind, c.state_bias), c.state_bias, 0)
        for c in cells
        if c.state_bias is not None and kind == "gru"
    ]
    if biases:
        given["bias"] = np.concatenate([arranged(kind, v.astype(np.float32)) for v in biases])
    projections = [c.projection for c in cells if c.projection is not None]
    if projections:
        rows = [np.pad(p, ((0, padded(len(p)) - len(p)), (0, 0))) for p in projections]
        given["projection"] = np.concatenate(rows)
    return {role: constant(data, f"{name}.states.{role}") for role, data in given.items()}


def _apart(kind: str, bias: Array) -> Array:
    """Which numbers have a factor before they meet the inputs: those of a GRU's new gate."""
    return np.arange(len(bias)) >= len(bias) * (2 if kind == "gru" else 3) // 3


def _lstm_cell(b: Builder) -> list[Value]:
    state, cell = b.arg("hx")
    require_f32("an LSTM cell", cell)
    products = [_gates(b, v, 4) for v in _cell_products(b, state)]
    sums = [scalar.apply("add", *_at(2 * i, 2)) for i in range(3)]
    i, f, g = (scalar.apply(name, v) for name, v in zip(_LSTM_FUNCTIONS, sums, strict=True))
    kept = scalar.apply("mul", f, scalar.operand(6, DType.F32))
    *inner, outer = ([x, h] for x, h in zip(*products, strict=True))
    operands = [*itertools.chain(*inner), cell]
    after = b.pointwise(scalar.apply("add", kept, scalar.apply("mul", i, g)), operands, cell.shape)
    shown = scalar.apply("tanh", scalar.operand(2, DType.F32))
    y = scalar.apply("mul", scalar.apply("sigmoid", scalar.apply("add", *_at(0, 2))), shown)
    return [b.pointwise(y, [*outer, after], cell.shape), after]


def _gru_cell(b: Builder) -> Value:
    state = b.tensor("hx")
    x, h = _cell_products(b, state)
    (xr, xz, xn), (hr, hz, hn), before = _at(0, 3), _at(3, 3), scalar.operand(6, DType.F32)
    r, z = (scalar.apply("sigmoid", scalar.apply("add", *g)) for g in ((xr, hr), (xz, hz)))
    new = scalar.apply("tanh", scalar.apply("add", xn, scalar.apply("mul", r, hn)))
    y = scalar.apply("add", new, scalar.apply("mul", z, scalar.apply("sub", before, new)))
    return b.pointwise(y, [*_gates(b, x, 3), *_gates(b, h, 3), state], state.shape)


def _plain_cell(function: str) -> Lowering:
    def rule(b: Builder) -> Value:
        state = b.tensor("hx")
        x, h = _cell_products(b, state)
        y = scalar.apply(function, scalar.apply("add", *_at(0, 2)))
        return b.pointwise(y, [x, h], state.shape)

    return rule


def _cell_products(b: Builder, state: Value) -> tuple[Value, Value]:
    """What the input and the state give to all gates."""
    x, weights = b.tensor("input"), (b.tensor("w_ih"), b.tensor("w_hh"))
    biases = (b.arg("b_ih"), b.arg("b_hh"))
    require_f32("a recurrent cell", x, state, *weights, *biases)
    if not all(weight.is_constant for weight in weights):
        raise Unsupported("a recurrent cell with weights computed at run time")
    inputs = zip((x, state), weights, biases, strict=True)
    given, held = (b.emit(Linear(), v, weight, bias=bias) for v, weight, bias in inputs)
    return given, held


def _gates(b: Builder, products: Value, count: int) -> list[Value]:
    extent = symbolic.floor_div(products.shape[1], count)
    return [b.slice(products, 1, symbolic.product((g, extent)), extent) for g in range(count)]


def _at(first: int, count: int) -> list[Scalar]:
    return [scalar.operand(first + i, DType.F32) for i in range(count)]


_LSTM_FUNCTIONS = ("sigmoid", "sigmoid", "tanh")
_CELL = "(Tensor input, {hx}, Tensor w_ih, Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None)"
_STATE = _CELL.format(hx="Tensor hx") + " -> Tensor"

RULES: dict[str, Rule] = {
    **rules(
        _recurrent,
        "graphopt::recurrent(Tensor x, Tensor[] states, Tensor[] weights, Tensor? lengths, "
        "str kind, bool biases, SymInt layers, bool bidirectional, bool batch_first) -> Tensor[]",
    ),
    **rules(_lstm_cell, f"aten::lstm_cell{_CELL.format(hx='Tensor[] hx')} -> (Tensor, Tensor)"),
    **rules(_gru_cell, f"aten::gru_cell{_STATE}"),
    **rules(_plain_cell("tanh"), f"aten::rnn_tanh_cell{_STATE}"),
    **rules(_plain_cell("relu"), f"aten::rnn_relu_cell{_STATE}"),
}
