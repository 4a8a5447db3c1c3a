"""Layers that read their own result of the step before: LSTM, GRU and plain ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphopt.dtype import DType
from graphopt.ir.graph import Node, Value
from graphopt.ir.numbers import narrow, quantize_rows, widen
from graphopt.ir.op import F32_ONLY, F32_OR_BF16, Array, Op, Operand, Operands, Sizes, Strides
from graphopt.kernels.formats import F32, Format
from graphopt.kernels.reference_recurrent import GATES, padded, recurrent

if TYPE_CHECKING:
    from graphopt.ir.cost import Call

#: Operands with weights, and those with their scales.
WEIGHTS = {"weight": "scale", "projection": "projection_scale"}


@dataclass
class Recurrent(Op):
    """A recurrent layer over time, forward or in both directions.

    `gates` is what the inputs give, [batch, time, directions * columns] or, without `batch_first`,
    [time, batch, ...]; `weight` [directions * columns, width] is multiplied by the state of the
    step before, and `bias` added. Columns are as `kernels/reference_recurrent.py` arranges them.
    `state` is [directions, batch, width], `cell`, of an LSTM, [directions, batch, hidden]. An LSTM
    with a `projection` [directions * padded width, hidden] multiplies its output by it. Steps of an
    item behind its `lengths` [batch] leave states as they are and give zero.

    Attributes:
        kind: one of `GATES`.
        directions: 1, or 2 for a second one that goes back in time.
        batch_first: order of the first two axes of gates and result.
        format: of the weights; None until a pass decides, which is f32.

    Results: [batch, time, directions * width] in the order of gates, the last state and, of an
    LSTM, the last cell. The states are quantized before each product, as rows of a linear are.
    """

    kind: str
    directions: int
    batch_first: bool
    format: Format | None = None

    NAME = "go.recurrent"
    OPERANDS = (
        Operand("gates", Strides.DENSE_LAST, dtypes=F32_ONLY),
        Operand("weight"),
        Operand("state", Strides.DENSE, dtypes=F32_ONLY),
        Operand("cell", Strides.DENSE, optional=True, dtypes=F32_ONLY),
        Operand("bias", optional=True, dtypes=F32_ONLY),
        Operand("lengths", Strides.DENSE, optional=True, dtypes=frozenset({DType.I64})),
        Operand("projection", optional=True),
        Operand("scale", optional=True, dtypes=F32_OR_BF16),
        Operand("projection_scale", optional=True, dtypes=F32_OR_BF16),
    )
    KERNEL = "go_recurrent"

    @property
    def decided(self) -> Format:
        """The format; f32 while none is decided."""
        return self.format or F32

    def results(self, given: Operands) -> list[Value]:
        state = given["state"]
        width = self.directions * state.shape[2]
        results = [Value(DType.F32, (*given["gates"].shape[:2], width))]
        return results + [Value(DType.F32, v.shape) for v in (state, given.get("cell")) if v]

    def problem(self, node: Node) -> str | None:
        given = node.operands
        gates, weight, state = (given[name] for name in ("gates", "weight", "state"))
        if self.kind not in GATES or self.directions not in (1, 2):
            return f"a layer {self.kind} in {self.directions} directions"
        if (gates.rank, weight.rank, state.rank) != (3, 2, 3) or not weight.is_constant:
            return f"gates of {gates.shape}, a weight of {weight.shape}, a state of {state.shape}"
        if (self.kind == "lstm") != ("cell" in given):
            return f"a layer {self.kind} {'with' if 'cell' in given else 'without'} a cell"
        hidden = given.get("cell", state).shape[2]
        columns = self.directions * GATES[self.kind] * padded(hidden)
        if weight.shape != (columns, state.shape[2]) or gates.shape[2] != columns:
            return f"{columns} columns, and weights of {weight.shape}, gates of {gates.shape}"
        batch = gates.shape[0 if self.batch_first else 1]
        if any(v.shape[:2] != (self.directions, batch) for v in _states(given)):
            return f"states of {[v.shape for v in _states(given)]} of a batch of {batch}"
        if "bias" in given and given["bias"].shape != (columns,):
            return f"a bias of {given['bias'].shape} beside {columns} columns"
        if "lengths" in given and given["lengths"].shape != (batch,):
            return f"lengths of {given['lengths'].shape} of a batch of {batch}"
        return self._projection_problem(given, hidden)

    def _projection_problem(self, given: Operands, hidden: object) -> str | None:
        state, scaled = given["state"], self.decided.scaled
        if "projection" in given:
            projection = given["projection"]
            wanted = (self.directions * padded(state.shape[2]), hidden)
            if self.kind != "lstm" or projection.shape != wanted or not projection.is_constant:
                return f"a projection of {projection.shape} of a layer {self.kind}"
        elif state.shape[2] != hidden:
            return f"a state of {state.shape} of {hidden} units"
        for role, scale in WEIGHTS.items():
            if (scaled and role in given) != (scale in given):
                return f"{role} of {self.decided} {'with' if scale in given else 'without'} scales"
        return None

    def evaluate(self, node: Node, given: dict[str, Array], sizes: Sizes) -> list[Array]:
        gates = given["gates"] if self.batch_first else given["gates"].swapaxes(0, 1)
        weights = {
            role: self._apart(self.decided.dense(given[role], given.get(scale)))
            for role, scale in WEIGHTS.items()
            if role in given
        }
        bias = given.get("bias")
        y, state, cell = recurrent(
            self.kind,
            gates.reshape(*gates.shape[:2], self.directions, gates.shape[2] // self.directions),
            weights["weight"],
            None if bias is None else self._apart(bias),
            given["state"],
            given.get("cell"),
            given.get("lengths"),
            weights.get("projection"),
            self._rounded,
        )
        y = y.reshape(*y.shape[:2], -1)
        results = [y if self.batch_first else y.swapaxes(0, 1), state]
        return results if cell is None else [*results, cell]

    def _apart(self, rows: Array) -> Array:
        return rows.reshape(self.directions, -1, *rows.shape[1:])

    def _rounded(self, rows: Array) -> Array:
        """The left operand of a product, as its kernel packs it."""
        if self.decided.rows == "bf16":
            return widen(narrow(rows, DType.BF16), DType.BF16)
        return quantize_rows(rows) if self.decided.rows else rows

    def macs(self, node: Node, call: Call) -> int:
        steps = call.size(*node.operands["gates"].shape[:2])
        held = [node.operands[role] for role in WEIGHTS if role in node.operands]
        return steps * sum(call.size(*weight.shape) for weight in held)

    def operand_bytes(self, node: Node, name: str, call: Call) -> int:
        if name in WEIGHTS.values():
            return 0  # counted with the weights
        if name not in WEIGHTS:
            return super().operand_bytes(node, name, call)
        n, k = node.operands[name].shape
        return self.decided.packed_bytes(call.arch, n, k)


def _states(given: Operands) -> list[Value]:
    return [given[role] for role in ("state", "cell") if role in given]
