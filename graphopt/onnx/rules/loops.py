"""Loops of few turns, whose bodies are imported once for each."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import sympy

from graphopt.ir import DType
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.known import Tensor
from graphopt.onnx.rules.table import Table, merged, since
from graphopt.passes.lowering.builder import Unsupported

_MOST_TURNS = 64
_MOST_NODES = 4096
"""Of all turns together."""


def _loop(c: Call) -> list[Tensor]:
    body = c.required("body")
    count, going = c.given(0), c.given(1)
    turns = _MOST_TURNS + 1 if count is None else max(_whole(count, "a number of turns"), 0)
    going = Tensor.known([1], DType.BOOL) if going is None else going
    carried = [c.tensor(i) for i in range(2, c.count)]
    scanned: list[list[Tensor]] = [[] for _ in range(c.results - len(carried))]
    number = 0
    while number < turns and _whole(going, "an end of a loop"):
        _check_size(body, number + 1, turns if count is not None else 0)
        given = [Tensor.known(number, DType.I64), going, *carried]
        going, *results = _turn(c, body, given, 1 + len(carried) + len(scanned))
        carried = results[: len(carried)]
        for made, result in zip(scanned, results[len(carried) :], strict=True):
            made.append(result)
        number += 1
    return [*carried, *(stacked(c, made, 0) for made in scanned)]


def _check_size(body: onnx.GraphProto, turn: int, turns: int) -> None:
    count = max(turn, turns)
    if count > _MOST_TURNS or count * len(body.node) > _MOST_NODES:
        many = f"{turns} turns" if turns else "an unknown number of turns"
        raise Unsupported(f"a loop of {many} of {len(body.node)} nodes")


def _whole(tensor: Tensor, what: str) -> int:
    """The only element of a tensor that is known."""
    known = tensor.elements
    if known is None:
        raise Unsupported(f"{what} that data decide")
    if known.size != 1:
        raise Malformed(f"{what} of {known.size} elements")
    element = known.reshape(()).item()
    if isinstance(element, sympy.Basic):
        raise Unsupported(f"{what} that sizes decide ({element})")
    return int(element)


def _turn(c: Call, body: onnx.GraphProto, given: Sequence[Tensor], results: int) -> list[Tensor]:
    if len(body.input) != len(given):
        raise Malformed(f"{len(given)} operands of a body with {len(body.input)} inputs")
    made = c.branch(body, given)
    if len(made) != results:
        raise Malformed(f"{len(made)} results of a body, of which {results} are read")
    return made


def stacked(c: Call, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Tensors of one shape along a new axis.

    Args:
        c: the node.
        parts: at least one.
        axis: of the result.
    """
    if not parts:
        raise Unsupported("results of a loop without turns")
    values = [part.value(c.b) for part in parts]
    dtype, shape = values[0].dtype, values[0].shape
    for value in values[1:]:
        if value.dtype is not dtype or value.rank != len(shape):
            raise Malformed("results of turns that do not fit")
        for mine, its in zip(shape, value.shape, strict=True):
            c.require_equal(mine, its, "results of turns")
    at = c.axis(axis, len(shape) + 1)
    out = (*shape[:at], len(values), *shape[at:])
    return Tensor.of(c.aten("stack", (dtype, out), tensors=values, dim=at)[0])


def _scan(c: Call) -> list[Tensor]:
    body, count = c.required("body"), c.required("num_scan_inputs")
    states = c.count - count
    if states < 0 or count < 1 or c.results < states:
        raise Malformed(f"{count} of {c.count} inputs are scanned")
    outputs = c.results - states
    axes, backward = (_each(c, f"scan_input_{name}", count) for name in ("axes", "directions"))
    out_axes, out_backward = (
        _each(c, f"scan_output_{name}", outputs) for name in ("axes", "directions")
    )
    carried = [c.tensor(i) for i in range(states)]
    scanned = [c.x(states + i) for i in range(count)]
    places = [c.axis(a, x.rank) for a, x in zip(axes, scanned, strict=True)]
    extents = [x.shape[a] for a, x in zip(places, scanned, strict=True)]
    for extent in extents[1:]:
        c.require_equal(extents[0], extent, "what is scanned")
    length = extents[0]
    if not isinstance(length, int):
        raise Unsupported(f"a scan along {length} elements")
    _check_size(body, 0, length)
    made: list[list[Tensor]] = [[] for _ in range(outputs)]
    for turn in range(length):
        given = []
        for x, axis, turned in zip(scanned, places, backward, strict=True):
            part = c.b.slice(x, axis, length - 1 - turn if turned else turn, 1)
            shape = (*x.shape[:axis], *x.shape[axis + 1 :])
            given.append(Tensor.of(c.b.reshape(part, shape)))
        results = _turn(c, body, [*carried, *given], states + outputs)
        carried = results[:states]
        for parts, result in zip(made, results[states:], strict=True):
            parts.append(result)
    return [
        *carried,
        *(
            stacked(c, parts[::-1] if turned else parts, axis)
            for parts, axis, turned in zip(made, out_axes, out_backward, strict=True)
        ),
    ]


def _each(c: Call, name: str, count: int) -> list[int]:
    found = c.attr(name) or [0] * count
    if len(found) != count:
        raise Malformed(f"{len(found)} of {count} {name}")
    return list(found)


RULES: Table = merged(since(1, Loop=_loop), since(9, Scan=_scan))
