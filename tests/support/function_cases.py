"""Calls of element-wise functions, many to a capture: names of ops, a function, its tensors."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

aten = torch.ops.aten
_random = torch.Generator().manual_seed(1)

#: With what is special: signs of zero, halves, infinities, no number.
X = torch.cat(
    [
        torch.randn(30, generator=_random) * 3,
        torch.tensor([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.5, -2.5, 30.0, -30.0]),
        torch.tensor([math.inf, -math.inf, math.nan]),
    ]
)
Y = X.roll(7)
CLOSE = torch.linspace(-0.99, 0.99, 12)
N = torch.tensor([-7, -2, -1, 0, 1, 2, 3, 5, 62, 2**40])
D = torch.tensor([3, -3, 2, -1, 7, 1, -2, 4, 5, -9])
BYTES = torch.tensor([0, 1, 7, 200, 255], dtype=torch.uint8)
NARROW = torch.tensor([-128, -7, 0, 3, 127], dtype=torch.int8)
MASK = X > 0
BF = torch.tensor([0.5, -3.0, 100.0, 0.1]).bfloat16()

Call = tuple[Callable[..., Any], tuple[Any, ...]]


def each(names: str, *tensors: Any, **options: Any) -> Call:
    """The ops of some names, each of the same tensors."""
    ops = [getattr(aten, name) for name in names.split()]
    return lambda *given: [op(*given, **options) for op in ops], tensors


def named(names: str, function: Callable[..., Any], *tensors: Any) -> dict[str, Call]:
    return {names: (function, tensors)}


_ANY = "exp exp2 expm1 sin cos tan atan sinh cosh tanh asinh erf erfc sigmoid relu special_expit"
_ANY += " special_erfc special_expm1 special_exp2 arctan arcsinh sinc special_sinc"
_POSITIVE = "log log2 log10 log1p sqrt rsqrt acosh arccosh special_log1p special_entr"
_SIMPLE = "neg negative abs absolute sign sgn floor ceil trunc fix round frac positive reciprocal"
_SIMPLE += " square deg2rad rad2deg"
_SHAPED = "mish selu hardsigmoid hardswish log_sigmoid relu6 softplus elu celu hardshrink"
_SHAPED += " softshrink leaky_relu rrelu silu logit special_logit"
_ASKED = "isnan isinf isfinite isposinf isneginf signbit"

FUNCTIONS: dict[str, Call] = {
    _ANY: each(_ANY, X[:30]),
    _POSITIVE: each(_POSITIVE, X),
    "asin acos atanh arcsin arccos arctanh": each("asin acos atanh arcsin arccos arctanh", CLOSE),
    _SIMPLE: each(_SIMPLE, X),
    _SHAPED: each(_SHAPED, X[:-2]),
    _ASKED: each(_ASKED, X),
    **named(
        "of other types",
        lambda n, b, m, d, h: (
            *(getattr(aten, name)(v) for name in ["abs", "sign", "floor"] for v in (n, b, d)),
            *(getattr(aten, name)(d) for name in ["exp", "log1p", "erfc", "atan", "round", "tanh"]),
            *(aten.isnan(v) for v in (n, d, h)),
            (aten.signbit(n), aten.signbit(m), aten.sign(m), aten.isfinite(h), aten.expm1(n[:6])),
            (aten.mish(h), aten.softplus(h), aten.reciprocal(n), aten.square(b), aten.exp(h)),
        ),
        N,
        BYTES,
        MASK,
        X.double(),
        BF,
    ),
    **named(
        "round softplus elu celu threshold hardshrink softshrink logit nan_to_num prelu "
        "_prelu_kernel leaky_relu",
        lambda x, w: (
            (torch.round(x, decimals=1), torch.round(x * 100, decimals=-1)),
            (F.softplus(x, 2.0, 3.0), F.elu(x, 0.5), F.celu(x, 2.0), F.threshold(x, 0.1, -4.0)),
            (F.hardshrink(x, 1.0), F.softshrink(x, 1.0), torch.logit(x.sigmoid(), 0.1)),
            (torch.nan_to_num(x), torch.nan_to_num(x, 1.0, 2.0, -3.0), torch.nan_to_num(x.long())),
            (F.prelu(x, w[:1]), F.prelu(x.reshape(2, 2, 11), w), aten._prelu_kernel(x, w[:1])),
            aten._prelu_kernel(x, x - 1),
            F.leaky_relu(x, 0.3),
        ),
        X,
        torch.tensor([0.25, -0.5]),
    ),
    **named(
        "div divide true_divide floor_divide remainder fmod",
        lambda x, y, n, d, b, c: (
            *(
                torch.div(*pair, rounding_mode=mode)
                for pair in ((x, y), (x, 0.3), (n, d), (n, -3), (b, 7), (c, 3))
                for mode in (None, "floor", "trunc")
            ),
            *(
                f(*pair)
                for f in (torch.floor_divide, torch.remainder, torch.fmod)
                for pair in ((x, y), (x, -0.3), (n, d), (n, 4), (b, 7), (c, -3))
            ),
            (torch.divide(x, y), torch.true_divide(n, d), torch.remainder(5, d)),
            (torch.div(x.bfloat16(), 3, rounding_mode="trunc"), torch.fmod(x.double(), 0.7)),
            torch.divide(n, d, rounding_mode="floor"),
        ),
        X,
        Y,
        N,
        D,
        BYTES,
        NARROW,
    ),
    **named(
        "pow float_power",
        lambda x, p, n, d, b: (
            *(x**e for e in (0, 1, 2, 3, 0.5, -0.5, -1, -2, 1.7, -3, 4)),
            *(n**e for e in (0, 1, 2, 3, 5)),
            (torch.pow(x, p), torch.pow(n, d), torch.pow(2, p), torch.pow(3, d), torch.pow(b, 3)),
            (torch.pow(1.5, p), torch.float_power(n[:8], 2), torch.pow(x, d[0])),
            torch.pow(x.double().abs(), 1.7),
        ),
        X[:20],
        Y[10:30],
        N,
        D,
        BYTES,
    ),
    **named(
        "atan2 arctan2 hypot copysign xlogy special_xlogy logaddexp logaddexp2 heaviside fmax fmin",
        lambda x, y: (
            (torch.atan2(x, y), torch.arctan2(y, x), torch.hypot(x, y), torch.copysign(x, y)),
            (torch.copysign(x, -2.0), torch.xlogy(x, y), torch.xlogy(x, 2.0), torch.xlogy(2, x)),
            (torch.special.xlogy(x, y), torch.logaddexp(x, y), torch.logaddexp2(x, y)),
            (torch.heaviside(x, y), torch.fmax(x, y), torch.fmin(x, y)),
        ),
        X,
        Y,
    ),
    **named(
        "lerp addcmul addcdiv clip maximum minimum",
        lambda x, y, n, d: (
            (torch.lerp(x, y, 0.3), torch.lerp(x, y, y.sigmoid())),
            (torch.addcmul(x, x, y, value=0.5), torch.addcdiv(x, x, y), torch.addcmul(n, n, d)),
            (torch.clip(x, -1, 1), torch.clip(n, min=0), torch.clip(x, y, y + 1)),
            (torch.maximum(n, d), torch.minimum(x, y)),
        ),
        X,
        Y,
        N[:-1],
        D[:-1],
    ),
    **named(
        "bitwise_and bitwise_or bitwise_xor bitwise_not __and__ __or__ __xor__ logical_and "
        "logical_or logical_xor logical_not bitwise_left_shift bitwise_right_shift __lshift__ "
        "__rshift__",
        lambda n, d, m, b, c: (
            *(
                f(*pair)
                for f in (torch.bitwise_and, torch.bitwise_or, torch.bitwise_xor)
                for pair in ((n, d), (n, 6), (m, ~m), (6, d), (b, 3))
            ),
            (n & 3, n | 4, n ^ 5, ~n, ~b, ~m, ~c),
            *(
                f(n, d)
                for f in (torch.logical_and, torch.logical_or, torch.logical_xor)
            ),
            torch.logical_not(n),
            *(
                f(*pair)
                for f in (torch.bitwise_left_shift, torch.bitwise_right_shift)
                for pair in ((n, d), (n, 2), (b, 3), (c, 1), (c, 9), (3, d))
            ),
            (n << 2, n >> 1),
        ),
        N,
        D,
        MASK,
        BYTES,
        NARROW,
    ),
    **named(
        "eq not_equal less less_equal greater greater_equal multiply subtract",
        lambda x, y: (
            *(
                getattr(torch, f)(x, other)
                for f in ["eq", "not_equal", "less", "less_equal", "greater", "greater_equal"]
                for other in (y, 0.5)
            ),
            (torch.multiply(x, y), torch.subtract(x, y, alpha=2)),
        ),
        X,
        Y,
    ),
}  # fmt: skip
