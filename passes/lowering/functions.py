"""Element-wise functions that are short expressions of others."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from graphopt.ir import DType, Value
from graphopt.ir.scalar import Scalar, activated, apply, cast, const
from graphopt.passes.lowering.builder import Builder, Unsupported, filled
from graphopt.passes.lowering.operands import Operands
from graphopt.passes.lowering.schema import Lowering, Rule, rules

Formula = Callable[..., Scalar]


def where(condition: Scalar, chosen: Scalar, other: Scalar | float) -> Scalar:
    """One of two, of the type of the first.

    Args:
        condition: bool.
        chosen: where the condition holds.
        other: elsewhere.
    """
    beside = other if isinstance(other, Scalar) else const(other, chosen.dtype)
    return apply("where", condition, chosen, beside)


def equal(x: Scalar, other: Scalar | float) -> Scalar:
    """Whether two are equal; a number has the type of the first."""
    return apply("eq", x, other if isinstance(other, Scalar) else const(other, x.dtype))


def differs(x: Scalar, other: Scalar | float) -> Scalar:
    """Whether two are not equal."""
    return apply("ne", x, other if isinstance(other, Scalar) else const(other, x.dtype))


def is_nan(x: Scalar) -> Scalar:
    """Whether a float is no number."""
    return apply("ne", x, x)


def formula(of: Formula, *arguments: str, **numbers: float | None) -> Lowering:
    """A rule of a formula.

    Args:
        of: makes an expression of those of the arguments and of the numbers.
        arguments: tensors or numbers, read in the type in which torch computes.
        numbers: by name of the argument, which must be a number: its default.
    """

    def rule(b: Builder) -> Value:
        operands = Operands(b)
        read = [operands.read(b.arg(name)) for name in arguments]
        given = {name: b.arg(name, default) for name, default in numbers.items()}
        for name, value in given.items():
            if value is not None and not isinstance(value, int | float):
                raise Unsupported(f"{name} that depends on sizes")
        return operands.emit(of(*read, **given))

    return rule


def test(of: Formula, *arguments: str, whole: bool | None = None) -> Lowering:
    """A rule of a formula that asks something of tensors in their own type.

    Args:
        of: makes an expression of those of the arguments.
        arguments: tensors.
        whole: what is true of whole numbers; None to ask the formula.
    """

    def rule(b: Builder) -> Value:
        tensors = [b.tensor(name) for name in arguments]
        if whole is not None and not tensors[0].dtype.is_float:
            return filled(b.node.output.shape, whole, DType.BOOL, b)
        operands = Operands(b)
        return operands.emit(of(*(operands.leaf(x, x.dtype) for x in tensors)))

    return rule


# Of one number.


def _sign(x: Scalar) -> Scalar:
    if x.dtype is DType.BOOL:
        return x
    return cast(x > 0, x.dtype) - cast(x < 0, x.dtype)


def _abs(x: Scalar) -> Scalar:
    return apply("abs", x) if x.dtype.is_float else where(x < 0, -x, x)


def _rounded(op: str) -> Formula:
    """Whole numbers are what they are."""
    return lambda x: apply(op, x) if x.dtype.is_float else x


def _round_to(x: Scalar, decimals: int) -> Scalar:
    if not x.dtype.is_float:
        raise Unsupported("decimals of whole numbers")
    scale = const(10.0 ** abs(decimals), x.dtype)
    if decimals >= 0:
        return apply("round", x * scale) / scale
    return apply("round", x / scale) * scale


def _softplus(x: Scalar, beta: float = 1, threshold: float = 20) -> Scalar:
    scaled = x * beta
    return where(scaled > threshold, x, apply("log1p", apply("exp", scaled)) / beta)


def _mish(x: Scalar) -> Scalar:
    return x * apply("tanh", apply("log1p", apply("exp", x)))


def _elu(x: Scalar, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Scalar:
    grown = apply("expm1", x * input_scale) * (alpha * scale)
    return where(x <= 0, grown, x * scale)


def _selu(x: Scalar) -> Scalar:
    return _elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def _celu(x: Scalar, alpha: float) -> Scalar:
    return _elu(x, alpha, 1, 1 / alpha)


def _hardshrink(x: Scalar, lambd: float) -> Scalar:
    return where(apply("and", x >= -lambd, x <= lambd), const(0, x.dtype), x)


def _softshrink(x: Scalar, lambd: float) -> Scalar:
    return where(x > lambd, x - lambd, where(x < -lambd, x + lambd, x * 0))


def _threshold(x: Scalar, threshold: float, value: float) -> Scalar:
    return where(x <= threshold, const(value, x.dtype), x)


def _leaky_relu(x: Scalar, negative_slope: float) -> Scalar:
    return where(x > 0, x, x * negative_slope)


def _rrelu(x: Scalar, lower: float, upper: float, training: bool) -> Scalar:
    if training:
        raise Unsupported("random slopes of rrelu in training mode")
    return _leaky_relu(x, (lower + upper) / 2)


def _log_sigmoid(x: Scalar) -> Scalar:
    tail = apply("log1p", apply("exp", -apply("abs", x)))
    return apply("min", x, const(0, x.dtype)) - tail


def _logit(x: Scalar, eps: float | None) -> Scalar:
    if eps is not None:
        x = where(x < eps, const(eps, x.dtype), where(x > 1 - eps, const(1 - eps, x.dtype), x))
    return apply("log", x / (1 - x))


def _nan_to_num(
    x: Scalar, nan: float | None, posinf: float | None, neginf: float | None, most: float
) -> Scalar:
    if not x.dtype.is_float:
        return x
    y = where(equal(x, -math.inf), const(-most if neginf is None else neginf, x.dtype), x)
    y = where(equal(x, math.inf), const(most if posinf is None else posinf, x.dtype), y)
    return where(is_nan(x), const(nan or 0.0, x.dtype), y)


#: The largest finite numbers.
_MOST = {
    DType.F32: float(np.finfo(np.float32).max),
    DType.F64: float(np.finfo(np.float64).max),
    DType.BF16: 3.3895313892515355e38,
    DType.F16: 65504.0,
}


def _nan_to_num_rule(b: Builder) -> Value:
    most = _MOST.get(b.node.output.dtype, 0.0)
    of = formula(
        lambda x, **given: _nan_to_num(x, most=most, **given),
        "self",
        nan=None,
        posinf=None,
        neginf=None,
    )
    return of(b)  # type: ignore[return-value]


def _signbit(x: Scalar) -> Scalar:
    if not x.dtype.is_float:
        return const(False, DType.BOOL) if x.dtype is DType.BOOL else x < 0
    return apply("copysign", const(1, x.dtype), x) < 0


def _sinc(x: Scalar) -> Scalar:
    angle = x * math.pi
    return where(equal(x, 0), const(1, x.dtype), apply("sin", angle) / angle)


def _entropy(x: Scalar) -> Scalar:
    inside = where(x > 0, -x * apply("log", x), where(equal(x, 0), x * 0, -math.inf))
    return where(is_nan(x), x, inside)


# Of two numbers, or more.


def _floor_quotient(x: Scalar, y: Scalar, narrow: Formula) -> Scalar:
    """As torch: of floats the floor of the exact quotient, with the signs of C at zeros."""
    if not x.dtype.is_float:
        y = _divisor(y)
        rest = apply("rest", x, y)
        below = apply("and", differs(rest, 0), apply("ne", rest < 0, y < 0))
        return apply("quotient", x, y) - cast(below, x.dtype)
    rest = apply("rest", x, y)
    below = apply("and", differs(rest, 0), apply("ne", y < 0, rest < 0))
    exact = narrow(narrow(x - rest) / y)
    exact = where(below, narrow(exact - 1), exact)
    floor = apply("floor", exact)
    near = where(exact - floor > 0.5, floor + 1, floor)
    zero = apply("copysign", const(0, x.dtype), x / y)
    return where(equal(y, 0), x / y, where(equal(exact, 0), zero, near))


def _modulo(x: Scalar, y: Scalar) -> Scalar:
    """The remainder with the sign of the divisor."""
    y = _divisor(y)
    rest = apply("rest", x, y)
    other = apply("and", differs(rest, 0), apply("ne", y < 0, rest < 0))
    return where(other, rest + y, rest)


def _rest(x: Scalar, y: Scalar) -> Scalar:
    """The remainder with the sign of what is divided."""
    return apply("rest", x, _divisor(y))


def _divisor(y: Scalar) -> Scalar:
    """Whole numbers that are no constants are checked; torch raises an error for 0."""
    if y.dtype.is_float or (y.op == "const" and y.value != 0):
        return y
    return apply("nonzero", y)


def _true_quotient(x: Scalar, y: Scalar, narrow: Formula) -> Scalar:
    return x / y


def _truncated_quotient(x: Scalar, y: Scalar, narrow: Formula) -> Scalar:
    if x.dtype.is_float:
        return apply("trunc", narrow(x / y))
    return apply("quotient", x, _divisor(y))


_QUOTIENTS = {None: _true_quotient, "trunc": _truncated_quotient, "floor": _floor_quotient}


def _divide(b: Builder) -> Value:
    return _quotient(_QUOTIENTS[b.arg("rounding_mode")])(b)  # type: ignore[return-value]


def _quotient(of: Formula) -> Lowering:
    """A rule for a quotient. Of tensors of 16 bits torch rounds every step to their type."""

    def rule(b: Builder) -> Value:
        operands, other, out = Operands(b), b.arg("other"), b.node.output.dtype

        def narrow(x: Scalar) -> Scalar:
            steps = out.is_half and isinstance(other, Value) and other.rank > 0
            return cast(cast(x, out), x.dtype) if steps else x

        return operands.emit(of(operands.read(b.arg("self")), operands.read(other), narrow))

    return rule


def _pow(x: Scalar, y: Scalar) -> Scalar:
    if x.dtype is DType.BOOL:
        raise Unsupported("powers of bool")
    exponent = y.value if y.op == "const" else None
    if exponent == 0:
        return const(1, x.dtype)
    if exponent in (1, 2, 3):
        return x if exponent == 1 else x * x if exponent == 2 else x * x * x
    if x.dtype.is_float:
        if exponent in (0.5, -0.5):
            return apply("sqrt" if exponent > 0 else "rsqrt", x)
        if exponent in (-1, -2):
            return 1 / x if exponent == -1 else 1 / (x * x)
    if x.op == "const" and x.value == 2 and x.dtype.is_float:
        return apply("exp2", y)
    return apply("pow", x, y)


def _lerp(x: Scalar, end: Scalar, weight: Scalar) -> Scalar:
    way = end - x
    return where(apply("abs", weight) < 0.5, x + weight * way, end - way * (1 - weight))


def _addcmul(x: Scalar, one: Scalar, other: Scalar, value: float) -> Scalar:
    return x + one * value * other


def _addcdiv(x: Scalar, one: Scalar, other: Scalar, value: float) -> Scalar:
    return x + one / other * value


def _hypot(x: Scalar, y: Scalar) -> Scalar:
    if x.dtype is not DType.F32:
        raise Unsupported(f"hypot of {x.dtype.value}")
    wide = [cast(side, DType.F64) for side in (x, y)]
    root = cast(apply("sqrt", wide[0] * wide[0] + wide[1] * wide[1]), DType.F32)
    infinite = [equal(apply("abs", side), math.inf) for side in (x, y)]
    return where(apply("or", *infinite), const(math.inf, DType.F32), root)


def _xlogy(x: Scalar, y: Scalar) -> Scalar:
    product = where(equal(x, 0), const(0, x.dtype), x * apply("log", y))
    return where(is_nan(y), y, product)


def _logaddexp(exp: str, log: Formula) -> Formula:
    def of(x: Scalar, y: Scalar) -> Scalar:
        both = apply("and", equal(apply("abs", x), math.inf), equal(x, y))
        tail = log(apply(exp, -apply("abs", x - y)))
        return where(both, x, apply("max", x, y) + tail)

    return of


def _heaviside(x: Scalar, values: Scalar) -> Scalar:
    return where(equal(x, 0), values, cast(x > 0, x.dtype))


def _ignoring_nan(op: str) -> Formula:
    def of(x: Scalar, y: Scalar) -> Scalar:
        if not x.dtype.is_float:
            return apply(op, x, y)
        return where(is_nan(x), y, where(is_nan(y), x, apply(op, x, y)))

    return of


def _prelu(b: Builder) -> Value:
    """One slope for each channel, the second axis; of the kernel, slopes that broadcast."""
    x, weight = b.tensor(), b.tensor("weight")
    if b.node.op.name == "aten.prelu" and weight.rank == 1:
        shape = (weight.shape[0], *[1] * (x.rank - 2)) if x.rank > 1 else ()
        weight = b.reshape(weight, shape)
    operands = Operands(b)
    value, slope = operands.read(x), operands.read(weight)
    return operands.emit(where(value > 0, value, slope * value))


# Bits of whole numbers, and truth values.

_LOGIC: dict[str, Formula] = {
    "and": lambda x, y: apply("and", x, y),
    "or": lambda x, y: apply("or", x, y),
    "xor": lambda x, y: apply("ne", x, y),
    "not": lambda x: apply("not", x),
}


def _bitwise(op: str) -> Formula:
    def of(*args: Scalar) -> Scalar:
        dtype = args[0].dtype
        return _LOGIC[op](*args) if dtype is DType.BOOL else apply(f"bit_{op}", *args)

    return of


def _logical(op: str, *arguments: str) -> Lowering:
    def rule(b: Builder) -> Value:
        operands = Operands(b)
        args = [operands.leaf(b.arg(name), DType.BOOL) for name in arguments]
        return operands.emit(_LOGIC[op](*args))

    return rule


def _shifted(op: str) -> Formula:
    """A shift by less than 0 or by all bits leaves none of them, but those of the sign."""

    def of(x: Scalar, y: Scalar) -> Scalar:
        if x.dtype.is_float or x.dtype is DType.BOOL:
            raise Unsupported(f"a shift of {x.dtype.value}")
        bits = 8 * x.dtype.itemsize
        inside = apply("and", y >= 0, y < bits)
        if op == "shift_left":
            return where(inside, apply(op, x, y), 0)
        if x.dtype is DType.U8:
            return where(inside, apply(op, x, y), 0)
        return apply(op, x, where(inside, y, bits - 1))

    return of


def _each(names: str, lower: Lowering, schema: str = "(Tensor self) -> Tensor") -> dict[str, Rule]:
    """A rule for operators of several names and one schema."""
    return rules(lower, *(f"aten::{name}{schema}" for name in names.split()))


def _of_two(
    names: str,
    lower: Lowering,
    forms: str = "Tensor Scalar",
    right: str = "other",
) -> dict[str, Rule]:
    """Rules for functions of two: overloads by name, of which `forms` says what is a tensor."""
    kinds = {
        "": ("Tensor self", f"Tensor {right}"),
        "Tensor": ("Tensor self", f"Tensor {right}"),
        "Scalar": ("Tensor self", f"Scalar {right}"),
        "Scalar_Tensor": ("Scalar self", f"Tensor {right}"),
        "Tensor_Scalar": ("Tensor self", f"Scalar {right}"),
        "Tensor_Tensor": ("Tensor self", f"Tensor {right}"),
        "Scalar_Other": ("Tensor self", f"Scalar {right}"),
        "Scalar_Self": ("Scalar self", f"Tensor {right}"),
        "other_scalar": ("Tensor self", f"Scalar {right}"),
        "self_scalar": ("Scalar self", f"Tensor {right}"),
        "of_scalar": ("Scalar self", f"Tensor {right}"),
    }
    made: dict[str, Rule] = {}
    for name in names.split():
        for form in forms.split(" "):
            left, other = kinds[form]
            suffix = {"": "", "of_scalar": ".Scalar"}.get(form, f".{form}")
            made |= rules(lower, f"aten::{name}{suffix}({left}, {other}) -> Tensor")
    return made


_MODE = ", *, str? rounding_mode) -> Tensor"
_FUNCTIONS: dict[str, Formula] = {
    "abs absolute": _abs,
    "sign sgn": _sign,
    "floor": _rounded("floor"),
    "ceil": _rounded("ceil"),
    "trunc fix": _rounded("trunc"),
    "round": _rounded("round"),
    "frac": lambda x: x - apply("trunc", x),
    "positive": lambda x: x,
    "reciprocal": lambda x: 1 / x,
    "square": lambda x: x * x,
    "relu6": lambda x: activated("relu6", x),
    "deg2rad": lambda x: x * (math.pi / 180),
    "rad2deg": lambda x: x * (180 / math.pi),
    "mish": _mish,
    "selu": _selu,
    "hardsigmoid": lambda x: activated("hardsigmoid", x),
    "hardswish": lambda x: activated("hardswish", x),
    "log_sigmoid": _log_sigmoid,
    "sinc special_sinc": _sinc,
    "special_entr": _entropy,
    "special_expit": lambda x: apply("sigmoid", x),
    "special_erfc": lambda x: apply("erfc", x),
    "special_expm1": lambda x: apply("expm1", x),
    "special_log1p": lambda x: apply("log1p", x),
    "special_exp2": lambda x: apply("exp2", x),
    "negative": lambda x: -x,
    "arcsin": lambda x: apply("asin", x),
    "arccos": lambda x: apply("acos", x),
    "arctan": lambda x: apply("atan", x),
    "arcsinh": lambda x: apply("asinh", x),
    "arccosh": lambda x: apply("acosh", x),
    "arctanh": lambda x: apply("atanh", x),
}


def _functions() -> dict[str, Rule]:
    made: dict[str, Rule] = {}
    for names, of in _FUNCTIONS.items():
        made |= _each(names, formula(of, "self"))
    return made


RULES: dict[str, Rule] = {
    **_functions(),
    **rules(
        formula(_round_to, "self", decimals=0),
        "aten::round.decimals(Tensor self, *, int decimals) -> Tensor",
    ),
    **rules(
        formula(_softplus, "self", beta=1, threshold=20),
        "aten::softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor",
    ),
    **rules(
        formula(_elu, "self", alpha=1, scale=1, input_scale=1),
        "aten::elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor",
    ),
    **rules(
        formula(_celu, "self", alpha=1.0),
        "aten::celu(Tensor self, Scalar alpha=1.) -> Tensor",
    ),
    **rules(
        formula(_hardshrink, "self", lambd=0.5),
        "aten::hardshrink(Tensor self, Scalar lambd=0.5) -> Tensor",
    ),
    **rules(
        formula(_softshrink, "self", lambd=0.5),
        "aten::softshrink(Tensor self, Scalar lambd=0.5) -> Tensor",
    ),
    **rules(
        formula(_threshold, "self", threshold=None, value=None),
        "aten::threshold(Tensor self, Scalar threshold, Scalar value) -> Tensor",
    ),
    **rules(
        formula(_leaky_relu, "self", negative_slope=0.01),
        "aten::leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor",
    ),
    **rules(
        formula(_rrelu, "self", lower=0.125, upper=1 / 3, training=False),
        "aten::rrelu(Tensor self, Scalar lower=0.125, Scalar upper=0.33333333333333331, "
        "bool training=False, Generator? generator=None) -> Tensor",
    ),
    **rules(
        formula(_logit, "self", eps=None),
        "aten::logit(Tensor self, float? eps=None) -> Tensor",
        "aten::special_logit(Tensor self, float? eps=None) -> Tensor",
    ),
    **rules(
        _nan_to_num_rule,
        "aten::nan_to_num(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) "
        "-> Tensor",
    ),
    **rules(
        _prelu,
        "aten::prelu(Tensor self, Tensor weight) -> Tensor",
        "aten::_prelu_kernel(Tensor self, Tensor weight) -> Tensor",
    ),
    **_of_two("div true_divide divide", _quotient(_true_quotient)),
    **rules(
        _divide,
        *(
            f"aten::{name}.{form}_mode(Tensor self, {form} other{_MODE}"
            for name in ("div", "divide")
            for form in ("Tensor", "Scalar")
        ),
    ),
    **_of_two("floor_divide", _quotient(_floor_quotient), " Scalar"),
    **_of_two("remainder", formula(_modulo, "self", "other"), "Tensor Scalar Scalar_Tensor"),
    **_of_two("fmod", formula(_rest, "self", "other")),
    **_of_two(
        "pow",
        formula(_pow, "self", "exponent"),
        "Tensor_Scalar Tensor_Tensor of_scalar",
        right="exponent",
    ),
    **_of_two(
        "float_power",
        formula(_pow, "self", "exponent"),
        "Tensor_Scalar Tensor_Tensor of_scalar",
        right="exponent",
    ),
    **_of_two(
        "atan2 arctan2", formula(lambda y, x: apply("atan2", y, x), "self", "other"), forms=""
    ),
    **_of_two("hypot", formula(_hypot, "self", "other"), forms=""),
    **_of_two("copysign", formula(lambda x, y: apply("copysign", x, y), "self", "other")),
    **_of_two("xlogy", formula(_xlogy, "self", "other"), "Tensor Scalar_Other Scalar_Self"),
    **_of_two("special_xlogy", formula(_xlogy, "self", "other"), " other_scalar self_scalar"),
    **_of_two(
        "logaddexp",
        formula(_logaddexp("exp", lambda x: apply("log1p", x)), "self", "other"),
        forms="",
    ),
    **_of_two(
        "logaddexp2",
        formula(
            _logaddexp("exp2", lambda x: apply("log1p", x) * (1 / math.log(2))), "self", "other"
        ),
        forms="",
    ),
    **_of_two("heaviside", formula(_heaviside, "self", "values"), forms="", right="values"),
    **_of_two("fmax", formula(_ignoring_nan("max"), "self", "other"), forms=""),
    **_of_two("fmin", formula(_ignoring_nan("min"), "self", "other"), forms=""),
    **rules(
        formula(_lerp, "self", "end", "weight"),
        "aten::lerp.Scalar(Tensor self, Tensor end, Scalar weight) -> Tensor",
        "aten::lerp.Tensor(Tensor self, Tensor end, Tensor weight) -> Tensor",
    ),
    **rules(
        formula(_addcmul, "self", "tensor1", "tensor2", value=1),
        "aten::addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor",
    ),
    **rules(
        formula(_addcdiv, "self", "tensor1", "tensor2", value=1),
        "aten::addcdiv(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor",
    ),
    **_each("isnan", test(is_nan, "self", whole=False)),
    **_each("isfinite", test(lambda x: apply("abs", x) < math.inf, "self", whole=True)),
    **_each("isinf", test(lambda x: equal(apply("abs", x), math.inf), "self", whole=False)),
    **_each("isposinf", test(lambda x: equal(x, math.inf), "self", whole=False)),
    **_each("isneginf", test(lambda x: equal(x, -math.inf), "self", whole=False)),
    **_each("signbit", test(_signbit, "self")),
    **{
        overload: rule
        for op in ("and", "or", "xor")
        for overload, rule in {
            **_of_two(
                f"bitwise_{op}",
                formula(_bitwise(op), "self", "other"),
                "Tensor Scalar Scalar_Tensor",
            ),
            **_of_two(f"__{op}__", formula(_bitwise(op), "self", "other")),
            **_of_two(f"logical_{op}", _logical(op, "self", "other"), forms=""),
        }.items()
    },
    **_each("bitwise_not", formula(_bitwise("not"), "self")),
    **_each("logical_not", _logical("not", "self")),
    **_of_two(
        "bitwise_left_shift",
        formula(_shifted("shift_left"), "self", "other"),
        "Tensor Tensor_Scalar Scalar_Tensor",
    ),
    **_of_two(
        "bitwise_right_shift",
        formula(_shifted("shift_right"), "self", "other"),
        "Tensor Tensor_Scalar Scalar_Tensor",
    ),
    **_of_two("__lshift__", formula(_shifted("shift_left"), "self", "other")),
    **_of_two("__rshift__", formula(_shifted("shift_right"), "self", "other")),
}
