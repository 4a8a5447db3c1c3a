"""The elementary functions of go_math64.h: errors in ulp, special values, equal bits."""

import dataclasses
import functools
import math
import platform
from collections.abc import Callable
from ctypes import Structure, c_int, c_size_t, c_void_p
from pathlib import Path

import mpmath
import numpy as np
import pytest
from harness import LEVEL_IDS, run_kernel
from harness import require as require_level

from graphopt.kernels import registry

INF, NAN, TINY = math.inf, math.nan, 2.0**-1022


class ProbeArgs(Structure):
    """math64_probe_args of math64_probe.c."""

    _fields_ = (
        ("n", c_size_t),
        ("function", c_int),
        ("src", c_void_p),
        ("other", c_void_p),
        ("dst", c_void_p),
    )


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of the header: what it is, its bound in ulp, and between which magnitudes."""

    exact: Callable[..., mpmath.mpf]
    ulp: float
    low: float = 1e-6
    high: float = 700.0
    signs: tuple[int, ...] = (1, -1)


def _normal(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


#: In the order of the probe.
UNARY = {
    "exp": Function(mpmath.exp, 1.0),
    "exp2": Function(lambda x: mpmath.mpf(2) ** x, 1.0, high=1000),
    "expm1": Function(mpmath.expm1, 1.5, 1e-300),
    "log": Function(mpmath.log, 1.5, TINY, 1e308, (1,)),
    "log2": Function(lambda x: mpmath.log(x, 2), 2.0, TINY, 1e308, (1,)),
    "log10": Function(mpmath.log10, 2.5, TINY, 1e308, (1,)),
    "log1p": Function(mpmath.log1p, 2.0, 1e-300, 1e308, (1,)),
    "atan": Function(mpmath.atan, 2.5, 1e-300, 1e308),
    "asin": Function(mpmath.asin, 3.5, 1e-300, 1),
    "acos": Function(mpmath.acos, 3.5, 1e-300, 1),
    "sinh": Function(mpmath.sinh, 4.0, 1e-300, 710),
    "cosh": Function(mpmath.cosh, 4.0, 1e-300, 710),
    "tanh": Function(mpmath.tanh, 4.0, 1e-300, 1e308),
    "asinh": Function(mpmath.asinh, 4.0, 1e-300, 1e308),
    "acosh": Function(mpmath.acosh, 4.0, 1 + 1e-15, 1e308, (1,)),
    "atanh": Function(mpmath.atanh, 4.0, 1e-300, 1 - 2.0**-53),
    "erf": Function(mpmath.erf, 1.5, 1e-300, 1e3),
    "erfc": Function(mpmath.erfc, 5.0, 1e-300, 26.5),
    "sigmoid": Function(lambda x: 1 / (1 + mpmath.exp(-x)), 3.0),
    "silu": Function(lambda x: x / (1 + mpmath.exp(-x)), 3.0),
    "gelu_erf": Function(lambda x: x * _normal(x), INF),
    "gelu_tanh": Function(
        lambda x: x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + 0.044715 * x**3))),
        INF,
    ),
    "rsqrt": Function(lambda x: 1 / mpmath.sqrt(x), 1.5, TINY, 1e308, (1,)),
}
BINARY = ("pow", "atan2")


def evaluate(where, name, x, y=None):
    """``name`` of f64 values [n] (and [n]) on one level."""
    runner = require_level(where)
    source = str(Path(__file__).with_name("math64_probe.c"))
    probe = registry.Kernel("math64_probe", "math64_probe", source)
    runner = dataclasses.replace(runner, level=dataclasses.replace(runner.level, kernels=(probe,)))
    args = ProbeArgs(n=x.size, function=[*UNARY, *BINARY].index(name))
    pointers = {"src": x, "other": x if y is None else y, "dst": np.zeros_like(x)}
    return run_kernel(runner, "math64_probe", args, pointers)["dst"]


def spread(low, high, count, signs):
    """Values between two magnitudes, evenly over their bit patterns, and some evenly by size."""
    first, last = (int(np.float64(v).view(np.uint64)) for v in (low, high))
    values = np.linspace(first, last, count, dtype=np.uint64).view(np.float64)
    near = np.random.default_rng(0).uniform(low, min(high, low + 8), count)
    values = np.concatenate([values, near])
    return np.concatenate([sign * values for sign in signs])


@functools.cache
def arguments(name):
    function = UNARY[name]
    return spread(function.low, function.high, 400 // len(function.signs), function.signs)


SCALAR = f"{platform.machine()}/scalar"


@pytest.mark.parametrize("name", UNARY)
def test_error_in_ulp(name):
    """The bounds that go_math64.h states; of gelu, whose sum cancels, relative to its argument."""
    x = arguments(name)
    got = evaluate(SCALAR, name, x)
    with mpmath.workdps(40):
        exact = [UNARY[name].exact(mpmath.mpf(v)) for v in x.tolist()]
        unit = [
            mpmath.mpf(2) ** (max(-1022, math.frexp(float(e))[1] - 1) - 52) if e else 1
            for e in exact
        ]
        errors = [abs(mpmath.mpf(g) - e) for g, e in zip(got.tolist(), exact, strict=True)]
        ulps = [float(e / u) for e, u in zip(errors, unit, strict=True)]
        of_argument = [float(e / abs(mpmath.mpf(v))) for e, v in zip(errors, x, strict=True)]
    normal = [abs(float(e)) >= TINY for e in exact]
    if UNARY[name].ulp == INF:
        assert max(of_argument) <= 2.0**-52
    else:
        worst = max(u for u, n in zip(ulps, normal, strict=True) if n)
        assert worst <= UNARY[name].ulp, x[int(np.argmax(ulps))]


def test_powers_and_angles_of_two_numbers():
    x = np.concatenate([spread(1e-30, 1e30, 300, (1,)), [0.5, 3.0, 10.0, 2.0, 1e300]])
    y = np.random.default_rng(1).uniform(-9, 9, x.size)
    with mpmath.workdps(40):
        pairs = list(zip(x.tolist(), y.tolist(), strict=True))
        power = [mpmath.mpf(a) ** mpmath.mpf(b) for a, b in pairs]
        angle = [mpmath.atan2(a, b) for a, b in pairs]
        limit = [2.0**-52 * (1 + abs(b * mpmath.log(a))) for a, b in pairs]
    inside = [TINY < p < 1e308 for p in power]
    got = evaluate(SCALAR, "pow", x, y).tolist()
    for g, p, e, ok in zip(got, power, limit, inside, strict=True):
        assert not ok or abs(mpmath.mpf(g) - p) <= e * p
    got = evaluate(SCALAR, "atan2", x, y).tolist()
    for g, a in zip(got, angle, strict=True):
        assert abs(mpmath.mpf(g) - a) <= 2.5 * 2.0**-52 * abs(a)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name, like", [("pow", np.power), ("atan2", np.arctan2)])
def test_every_pair_of_special_values_is_as_in_c(name, like):
    edge = [0.0, 0.5, 1.0, 2.0, 3.0, 1e300, INF]
    edge = np.array([NAN, *edge, *(-e for e in edge)])
    x, y = (side.reshape(-1) for side in np.meshgrid(edge, edge))
    got, wanted = evaluate(SCALAR, name, x, y), like(x, y)
    np.testing.assert_allclose(got, wanted, rtol=1e-13)
    number = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(wanted[number]))


#: name -> argument -> result, for arguments at the edge of the definition.
EDGES = {
    "exp": {INF: INF, -INF: 0, 0.0: 1, 710.0: INF, -708.5: 0},
    "exp2": {INF: INF, -INF: 0, 10.0: 1024, 1024.0: INF, -1022.0: TINY, -1023.0: 0},
    "expm1": {INF: INF, -INF: -1, 0.0: 0, 1e-300: 1e-300, 710.0: INF, -800.0: -1},
    "log": {INF: INF, -INF: NAN, 0.0: -INF, -1.0: NAN, 1.0: 0},
    "log2": {INF: INF, -1.0: NAN, 0.0: -INF, 8.0: 3, 2.0**-1000: -1000},
    "log10": {INF: INF, -1.0: NAN, 0.0: -INF, 1.0: 0},
    "log1p": {INF: INF, -1.0: -INF, -2.0: NAN, 0.0: 0, 1e-300: 1e-300},
    "atan": {INF: math.pi / 2, -INF: -math.pi / 2, 0.0: 0, 1.0: math.pi / 4},
    "asin": {1.0: math.pi / 2, -1.0: -math.pi / 2, 1.1: NAN, 0.0: 0},
    "acos": {1.0: 0, -1.0: math.pi, 1.1: NAN, 0.0: math.pi / 2},
    "sinh": {INF: INF, -INF: -INF, 0.0: 0, 800.0: INF},
    "cosh": {INF: INF, -INF: INF, 0.0: 1},
    "tanh": {INF: 1, -INF: -1, 0.0: 0, 30.0: 1},
    "asinh": {INF: INF, -INF: -INF, 0.0: 0},
    "acosh": {INF: INF, 1.0: 0, 0.5: NAN},
    "atanh": {1.0: INF, -1.0: -INF, 1.1: NAN, 0.0: 0},
    "erf": {INF: 1, -INF: -1, 0.0: 0, 7.0: 1},
    "erfc": {INF: 0, -INF: 2, 0.0: 1, 27.0: 0, -7.0: 2},
    "sigmoid": {INF: 1, -INF: 0, 0.0: 0.5},
    "silu": {INF: INF, 0.0: 0},
    "gelu_erf": {INF: INF, 0.0: 0, -1e300: 0},
    "gelu_tanh": {INF: INF, 0.0: 0},
    "rsqrt": {INF: 0, 0.0: INF, -1.0: NAN, 4.0: 0.5},
}


@pytest.mark.parametrize("name", UNARY)
def test_edges(name):
    edges = {NAN: NAN} | EDGES[name]
    got = evaluate(SCALAR, name, np.array(list(edges)))
    np.testing.assert_array_equal(got, np.array(list(edges.values())))


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_same_bits_on_every_level(where):
    """Also checks that vector code and the scalar level agree."""
    x = np.concatenate([arguments(name)[::7] for name in ("exp", "tanh", "asin", "erfc")])
    y = x[::-1].copy()
    for name in ("exp2", "log1p", "sinh", "acos", "atanh", "erfc", "pow", "atan2"):
        got, expected = evaluate(where, name, x, y), evaluate(SCALAR, name, x, y)
        assert np.array_equal(got, expected, equal_nan=True), name
