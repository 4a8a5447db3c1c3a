"""Element-wise ops, casts, and tensors made from nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphopt.ir import DType, Value, scalar
from graphopt.ir.scalar import Scalar
from graphopt.passes.lowering.builder import Builder, Unsupported, filled
from graphopt.passes.lowering.operands import Operands, compute_type
from graphopt.passes.lowering.promotion import promoted
from graphopt.passes.lowering.schema import Lowering, Rule, rules


def _unary(op: str) -> Lowering:
    def rule(b: Builder) -> Value:
        operands = Operands(b)
        return operands.emit(scalar.apply(op, operands.read(b.tensor())))

    return rule


_OF_BOOL = {"add": "or", "mul": "and", "max": "or", "min": "and"}


def _binary(op: str, swap: bool = False) -> Lowering:
    def rule(b: Builder) -> Value:
        operands, dtype = Operands(b), compute_type(b)
        left = operands.read(b.arg("self"))
        right = operands.read(b.arg("other"))
        alpha = b.arg("alpha", 1)
        if swap:
            left, right = right, left
        if alpha != 1:
            right = scalar.apply("mul", right, operands.leaf(alpha, dtype))
        of_type = _OF_BOOL.get(op, op) if left.dtype is DType.BOOL else op
        return operands.emit(scalar.apply(of_type, left, right))

    return rule


def _comparison(op: str) -> Lowering:
    def rule(b: Builder) -> Value:
        operands = Operands(b)
        sides = [b.arg("self"), b.arg("other")]
        dtype = promoted(sides)
        return operands.emit(scalar.apply(op, *(operands.leaf(side, dtype) for side in sides)))

    return rule


def _where(b: Builder) -> Value:
    operands = Operands(b)
    condition = operands.leaf(b.arg("condition"), DType.BOOL)
    chosen = [operands.read(b.arg(name)) for name in ("self", "other")]
    return operands.emit(scalar.apply("where", condition, *chosen))


def _masked_fill(b: Builder) -> Value:
    operands = Operands(b)
    x = operands.read(b.tensor())
    mask = operands.leaf(b.tensor("mask"), DType.BOOL)
    return operands.emit(scalar.apply("where", mask, operands.read(b.arg("value")), x))


def _clamp(low: str, high: str) -> Lowering:
    """Arguments of the bounds, either of which may be missing."""

    def rule(b: Builder) -> Value:
        operands = Operands(b)
        x = operands.read(b.tensor())
        for op, bound in (("max", b.arg(low)), ("min", b.arg(high))):
            if bound is not None:
                x = scalar.apply(op, x, operands.read(bound))
        return operands.emit(x)

    return rule


def _gelu(b: Builder) -> Value | list[Value]:
    op = "gelu_tanh" if b.arg("approximate") == "tanh" else "gelu_erf"
    return _unary(op)(b)


def _glu(b: Builder) -> Value:
    x, out = b.tensor(), b.node.output
    axis = b.arg("dim", -1) % x.rank
    half = out.shape[axis]
    parts = [b.slice(x, axis, start, half) for start in (0, half)]
    operands = Operands(b)
    value, gate = (operands.read(p) for p in parts)
    return operands.emit(scalar.apply("mul", value, scalar.apply("sigmoid", gate)))


def _copy(b: Builder) -> Value:
    out = b.node.output
    return b.expand(b.cast(b.tensor("src"), out.dtype), out.shape)


def _cast(b: Builder) -> Value:
    return b.cast(b.tensor(), b.node.output.dtype)


def _arange(b: Builder) -> Value:
    out = b.node.output
    start, step = b.arg("start", 0), b.arg("step", 1)
    wide = DType.F64 if out.dtype.is_float else DType.I64
    if wide is DType.I64 and any(isinstance(number, float | Scalar) for number in (start, step)):
        raise Unsupported("whole numbers in steps that are none")
    operands = Operands(b)
    value = scalar.cast(scalar.index(0), wide)
    if step != 1:
        value = scalar.apply("mul", value, operands.leaf(step, wide))
    if start != 0:
        value = scalar.apply("add", value, operands.leaf(start, wide))
    return operands.emit(value)


def _fill(argument: str) -> Lowering:
    """A tensor of the number that an argument is, which may be a size."""

    def rule(b: Builder) -> Value:
        out, number = b.node.output, b.arg(argument)
        if isinstance(number, int | float) and (out.dtype.is_float or math.isfinite(number)):
            return filled(out.shape, number, out.dtype, b)
        operands = Operands(b)
        return operands.emit(operands.leaf(number, out.dtype))

    return rule


def _fill_with(number: int) -> Lowering:
    return lambda b: filled(b.node.output.shape, number, b.node.output.dtype, b)


_UNARY = sorted((scalar.TRANSCENDENTAL - {"atan2", "gelu_erf", "gelu_tanh"}) | {"neg", "relu"})
_MADE = "ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None"
_LIKE = f"{_MADE}, MemoryFormat? memory_format=None"


def _of_two(op: str, extra: str = "") -> tuple[str, str]:
    """Schemas of a function of a tensor and a tensor or number."""
    return (
        f"aten::{op}.Tensor(Tensor self, Tensor other{', *' if extra else ''}{extra}) -> Tensor",
        f"aten::{op}.Scalar(Tensor self, Scalar other{extra}) -> Tensor",
    )


def _comparisons() -> dict[str, Rule]:
    others = {"ne": "not_equal", "lt": "less", "le": "less_equal"}
    others |= {"gt": "greater", "ge": "greater_equal"}
    names = {**{op: op for op in sorted(scalar.COMPARISONS)}, **{n: op for op, n in others.items()}}
    made: dict[str, Rule] = {}
    for name, op in names.items():
        made |= rules(_comparison(op), *_of_two(name))
    return made


def _filled(name: str, number: int) -> dict[str, Rule]:
    """`zeros` and `ones`, in three ways."""
    return rules(
        _fill_with(number),
        f"aten::{name}(SymInt[] size, *, {_MADE}) -> Tensor",
        f"aten::{name}_like(Tensor self, *, {_LIKE}) -> Tensor",
        f"aten::new_{name}(Tensor self, SymInt[] size, *, {_MADE}) -> Tensor",
        implied="size self",
    )


def _each(lower: Sequence[tuple[str, Lowering]], schema: str) -> dict[str, Rule]:
    """Rules of ops whose schemas differ in `{op}` alone."""
    made: dict[str, Rule] = {}
    for op, rule in lower:
        made |= rules(rule, schema.format(op=op))
    return made


_WITH_ALPHA = ", Scalar alpha=1"
_TO = "bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None"
RULES: dict[str, Rule] = {
    **_each([(op, _unary(op)) for op in _UNARY], "aten::{op}(Tensor self) -> Tensor"),
    **rules(_binary("add"), *_of_two("add", _WITH_ALPHA)),
    **rules(_binary("sub"), *_of_two("sub", _WITH_ALPHA)),
    **rules(_binary("sub", swap=True), *_of_two("rsub", _WITH_ALPHA)),
    **rules(_binary("sub"), *_of_two("subtract", _WITH_ALPHA)),
    **rules(_binary("mul"), *_of_two("mul"), *_of_two("multiply")),
    **_comparisons(),
    **_each(
        [
            ("maximum", _binary("max")),
            ("minimum", _binary("min")),
            ("max.other", _binary("max")),
            ("min.other", _binary("min")),
        ],
        "aten::{op}(Tensor self, Tensor other) -> Tensor",
    ),
    **rules(
        _where,
        "aten::where.self(Tensor condition, Tensor self, Tensor other) -> Tensor",
        "aten::where.ScalarOther(Tensor condition, Tensor self, Scalar other) -> Tensor",
        "aten::where.ScalarSelf(Tensor condition, Scalar self, Tensor other) -> Tensor",
        "aten::where.Scalar(Tensor condition, Scalar self, Scalar other) -> Tensor",
    ),
    **rules(
        _masked_fill,
        "aten::masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor",
        "aten::masked_fill.Tensor(Tensor self, Tensor mask, Tensor value) -> Tensor",
    ),
    **rules(
        _clamp("min", "max"),
        "aten::clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor",
        "aten::clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor",
        "aten::clip(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor",
        "aten::clip.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor",
        "aten::clamp_min(Tensor self, Scalar min) -> Tensor",
        "aten::clamp_min.Tensor(Tensor self, Tensor min) -> Tensor",
        "aten::clamp_max(Tensor self, Scalar max) -> Tensor",
        "aten::clamp_max.Tensor(Tensor self, Tensor max) -> Tensor",
    ),
    **rules(
        _clamp("min_val", "max_val"),
        "aten::hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor",
    ),
    **rules(_gelu, 'aten::gelu(Tensor self, *, str approximate="none") -> Tensor'),
    **rules(_glu, "aten::glu(Tensor self, int dim=-1) -> Tensor"),
    **rules(
        _cast,
        f"aten::to.device(Tensor self, Device device, ScalarType dtype, {_TO}) -> Tensor",
        f"aten::to.dtype(Tensor self, ScalarType dtype, {_TO}) -> Tensor",
        f"aten::to.dtype_layout(Tensor self, *, {_MADE}, {_TO}) -> Tensor",
        f"aten::to.other(Tensor self, Tensor other, {_TO}) -> Tensor",
        f"aten::_to_copy(Tensor self, *, {_MADE}, bool non_blocking=False, "
        "MemoryFormat? memory_format=None) -> Tensor",
        "aten::type_as(Tensor self, Tensor other) -> Tensor",
        implied="other",
    ),
    **rules(
        _arange,
        f"aten::arange(Scalar end, *, {_MADE}) -> Tensor",
        f"aten::arange.start(Scalar start, Scalar end, *, {_MADE}) -> Tensor",
        f"aten::arange.start_step(Scalar start, Scalar end, Scalar step=1, *, {_MADE}) -> Tensor",
        implied="end",
    ),
    **rules(
        _fill("fill_value"),
        f"aten::full(SymInt[] size, Scalar fill_value, *, {_MADE}) -> Tensor",
        f"aten::full_like(Tensor self, Scalar fill_value, *, {_LIKE}) -> Tensor",
        implied="size self",
    ),
    **rules(
        _fill("value"),
        "aten::fill.Scalar(Tensor self, Scalar value) -> Tensor",
        "aten::fill.Tensor(Tensor self, Tensor value) -> Tensor",
        implied="self",
    ),
    **rules(_fill_with(0), "aten::zero(Tensor self) -> Tensor", implied="self"),
    **rules(
        _copy,
        "aten::copy(Tensor self, Tensor src, bool non_blocking=False) -> Tensor",
        implied="self",
    ),
    **_filled("zeros", 0),
    **_filled("ones", 1),
    # Whatever lies in new memory is right; the same each time is better.
    **rules(
        _fill_with(0),
        f"aten::empty.memory_format(SymInt[] size, *, {_LIKE}) -> Tensor",
        f"aten::empty_like(Tensor self, *, {_LIKE}) -> Tensor",
        f"aten::new_empty(Tensor self, SymInt[] size, *, {_MADE}) -> Tensor",
        implied="size self",
    ),
    **rules(_fill("s"), f"aten::scalar_tensor(Scalar s, *, {_MADE}) -> Tensor"),
}
