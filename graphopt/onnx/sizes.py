"""Arithmetic on tensors that are made of sizes: exact, with expressions over the dims.

It is tried before the rule of an op, where some input is made of sizes and all are known. What it
does not know becomes nodes, by the rule.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sympy

from graphopt.ir import DType
from graphopt.ir.symbolic import ceil_div, floor_div, is_non_negative, simplify
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.known import MOST_KNOWN, Array, Tensor
from graphopt.onnx.tensors import DTYPES

_EXACT = 1 << 24
"""Whole numbers up to this are exact in f32."""


def sizes_of(call: Call, given: Sequence[Tensor | None]) -> Tensor | None:
    """The output of a node as sizes; None if it is not followed."""
    function = _FUNCTIONS.get(call.node.op_type)
    if call.node.domain not in ("", "ai.onnx") or function is None or call.results != 1:
        return None
    there = [t for t in given if t is not None]
    if not any(t.is_symbolic for t in there) or any(t.elements is None for t in there):
        return None
    arrays = [t.elements for t in there if t.elements is not None]
    made = function(call, arrays, there)
    if made is None:
        return None
    found, dtype = made
    elements = np.empty((), object)
    elements[()] = found  # numpy gives a lone element as itself
    elements = found if isinstance(found, np.ndarray) else elements
    if elements.size > MOST_KNOWN:
        return None
    if dtype.is_float:
        for element in elements.flat:
            if isinstance(element, sympy.Expr) and element.free_symbols:
                call.require(sympy.Le(element, _EXACT))
    return Tensor.known(_simplified(elements), dtype)


_Made = tuple[Array, DType] | None
_Function = Callable[[Call, list[Array], list[Tensor]], _Made]


def _simplified(elements: Array) -> Array:
    made = np.empty(elements.shape, object)
    for place, element in np.ndenumerate(elements):
        made[place] = _plain(element)
    return made


def _plain(element: Any) -> Any:
    if element is sympy.true or element is sympy.false:
        return int(bool(element))
    if isinstance(element, sympy.Rational) or not isinstance(element, sympy.Basic):
        return int(element) if element == int(element) else element
    return simplify(element) if isinstance(element, sympy.Expr) else element


def _each(of: Callable[..., Any], *arrays: Array) -> Array:
    """A function of elements of arrays that broadcast."""
    spread = np.broadcast_arrays(*arrays)
    made = np.empty(spread[0].shape, object)
    for place in np.ndindex(*spread[0].shape):
        made[place] = of(*(a[place] for a in spread))
    return made


def _arithmetic(of: Callable[[Any, Any], Any]) -> _Function:
    return lambda call, arrays, there: (_each(of, *arrays), there[0].dtype)


def _quotient(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    if there[0].dtype.is_float:
        return _each(lambda a, b: sympy.sympify(a) / b, *arrays), there[0].dtype
    if not all(is_non_negative(e) for a in arrays for e in a.flat) or (arrays[1] == 0).any():
        return None
    return _each(floor_div, *arrays), there[0].dtype


def _remainder(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    if there[0].dtype.is_float or not all(is_non_negative(e) for a in arrays for e in a.flat):
        return None
    call.harmless("fmod")
    return _each(lambda a, b: sympy.Mod(a, b), *arrays), there[0].dtype


def _rounded(of: Callable[[Any], Any]) -> _Function:
    return lambda call, arrays, there: (_each(of, *arrays), there[0].dtype)


def _cast(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    dtype = DTYPES.get(call.attr("to"))
    if dtype not in (DType.I64, DType.I32, DType.F32, DType.F64, DType.BOOL):
        return None
    (array,) = arrays
    if there[0].dtype.is_float and not dtype.is_float:
        if dtype is DType.BOOL or not all(_never_negative(e) for e in array.flat):
            return None
        array = _each(sympy.floor, array)
    if dtype is DType.BOOL:
        array = _each(lambda e: e if isinstance(e, sympy.logic.boolalg.Boolean) else _truth(e),
                      array)  # fmt: skip
    return array, dtype


def _never_negative(element: Any) -> bool:
    return bool(element >= 0) if not isinstance(element, sympy.Basic) else is_non_negative(element)


def _truth(element: Any) -> Any:
    if isinstance(element, sympy.Basic) and not element.is_number:
        return 1 if element.is_positive else sympy.Ne(element, 0)
    return int(element != 0)


def _comparison(of: Callable[[Any, Any], Any]) -> _Function:
    def compared(a: Any, b: Any) -> Any:
        return of(sympy.sympify(a), sympy.sympify(b))

    return lambda call, arrays, there: (_each(compared, *arrays), DType.BOOL)


def _decided(array: Array) -> bool:
    return not any(isinstance(e, sympy.Basic) and not e.is_number for e in array.flat)


def _logic(of: Callable[..., Any]) -> _Function:
    def function(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
        if not all(map(_decided, arrays)):
            return None
        return _each(lambda *given: int(of(*map(bool, given))), *arrays), DType.BOOL

    return function


def _where(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    if not _decided(arrays[0]):
        return None
    return _each(lambda c, a, b: a if bool(c) else b, *arrays), there[1].dtype


def _axes_given(call: Call, there: list[Tensor]) -> list[int] | None:
    axes = call.attr("axes")
    if axes is None and len(there) > 1:
        return [int(a) for a in call.numbers(1, "axes").reshape(-1)]  # type: ignore[union-attr]
    return axes  # type: ignore[no-any-return]


def _squeeze(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    axes = _axes_given(call, there)
    found = None if axes is None else tuple(call.axes(axes, there[0].rank))
    return np.squeeze(arrays[0], found), there[0].dtype


def _unsqueeze(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    axes = _axes_given(call, there) or []
    found = call.axes(axes, there[0].rank + len(axes))
    return np.expand_dims(arrays[0], tuple(found)), there[0].dtype


def _concat(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    return np.concatenate(arrays, call.axis(call.required("axis"), there[0].rank)), there[0].dtype


def _gather(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    if there[1].data is None:
        return None
    axis = call.axis(call.attr("axis", 0), there[0].rank)
    indices, extent = there[1].data, arrays[0].shape[axis]
    if ((indices < -extent) | (indices >= extent)).any():
        raise Malformed(f"an index beyond the {extent} elements of axis {axis}")
    return np.take(arrays[0], indices, axis), there[0].dtype


def _slice(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    if any(t.data is None for t in there[1:]):
        return None
    given = [call.attr("starts"), call.attr("ends"), call.attr("axes"), None]
    if len(there) > 1:
        given = [None if (n := call.numbers(i, "bounds")) is None else n.reshape(-1).tolist()
                 for i in range(1, 5)]  # fmt: skip
    starts, ends, axes, steps = given
    if starts is None or ends is None:
        raise Malformed("it lacks starts or ends")
    axes = call.axes(axes if axes is not None else range(len(starts)), there[0].rank)
    cut: list[Any] = [slice(None)] * there[0].rank
    for number, axis in enumerate(axes):
        step = int(steps[number]) if steps else 1
        if step == 0:
            raise Malformed("a step of 0")
        start, end = int(starts[number]), int(ends[number])
        extent = arrays[0].shape[axis]
        cut[axis] = slice(start, None if step < 0 and end < -extent else end, step)
    return arrays[0][tuple(cut)], there[0].dtype


def _reshape(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    if there[1].data is None or (there[1].data == 0).any():
        return None
    call.harmless("allowzero")
    return arrays[0].reshape([int(n) for n in there[1].data]), there[0].dtype


def _flat_axes(call: Call, array: Array, there: list[Tensor]) -> tuple[tuple[int, ...], bool]:
    axes = _axes_given(call, there)
    rank = array.ndim
    found = tuple(range(rank)) if not axes else tuple(call.axes(axes, rank))
    return found, bool(call.attr("keepdims", 1))


def _reduce(of: Callable[[list[Any]], Any]) -> _Function:
    def function(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
        axes, keep = _flat_axes(call, arrays[0], there)
        call.harmless("noop_with_empty_axes")
        kept = [a for a in range(arrays[0].ndim) if a not in axes]
        moved = arrays[0].transpose([*kept, *axes])
        shape = tuple(arrays[0].shape[a] for a in kept)
        rows = moved.reshape((int(np.prod(shape, dtype=int)), -1))
        made = np.array([None] * len(rows), object)
        for number, row in enumerate(rows):
            made[number] = of(list(row))
        full = [1 if a in axes else e for a, e in enumerate(arrays[0].shape)]
        return made.reshape(full if keep else shape), there[0].dtype

    return function


def _product(items: list[Any]) -> Any:
    total: Any = 1
    for item in items:
        total = total * item
    return total


def _range(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    start, limit, step = (a.reshape(()).item() for a in arrays)
    if isinstance(step, sympy.Basic) or not step:
        return None
    count = simplify(ceil_div(simplify(sympy.sympify(limit) - start), step))
    if not isinstance(count, int) or count > MOST_KNOWN or count < 1:
        return None
    made = np.empty(count, object)
    made[:] = [start + i * step for i in range(count)]
    return made, there[0].dtype


def _expand(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    if there[1].data is None:
        return None
    shape = np.broadcast_shapes(arrays[0].shape, tuple(int(n) for n in there[1].data))
    return np.broadcast_to(arrays[0], shape), there[0].dtype


def _tile(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    if there[1].data is None or there[1].data.size != arrays[0].ndim:
        return None
    return np.tile(arrays[0], [int(n) for n in there[1].data]), there[0].dtype


def _transpose(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    return arrays[0].transpose(call.attr("perm")), there[0].dtype


def _identity(call: Call, arrays: list[Array], there: list[Tensor]) -> _Made:
    return arrays[0], there[0].dtype


def _of_many(of: Callable[..., Any]) -> _Function:
    return lambda call, arrays, there: (_each(of, *arrays), there[0].dtype)


_FUNCTIONS: dict[str, _Function] = {
    "Add": _arithmetic(operator.add),
    "Sub": _arithmetic(operator.sub),
    "Mul": _arithmetic(operator.mul),
    "Div": _quotient,
    "Mod": _remainder,
    "Neg": _rounded(operator.neg),
    "Floor": _rounded(sympy.floor),
    "Ceil": _rounded(sympy.ceiling),
    "Max": _of_many(sympy.Max),
    "Min": _of_many(sympy.Min),
    "Cast": _cast,
    "Equal": _comparison(sympy.Eq),
    "Greater": _comparison(sympy.Gt),
    "GreaterOrEqual": _comparison(sympy.Ge),
    "Less": _comparison(sympy.Lt),
    "LessOrEqual": _comparison(sympy.Le),
    "And": _logic(lambda a, b: a and b),
    "Or": _logic(lambda a, b: a or b),
    "Not": _logic(lambda a: not a),
    "Where": _where,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Reshape": _reshape,
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(sum),
    "ReduceMax": _reduce(lambda items: sympy.Max(*items)),
    "ReduceMin": _reduce(lambda items: sympy.Min(*items)),
    "Range": _range,
    "Expand": _expand,
    "Tile": _tile,
    "Transpose": _transpose,
    "Identity": _identity,
}

FOLLOWED = frozenset({*_FUNCTIONS, "ConstantOfShape"})
"""Ops that give sizes of sizes."""
