"""The elementary functions of go_math.h: errors in ulp, special values, equal bits."""

import dataclasses
import functools
import math
import platform
import re
import shutil
import subprocess
from ctypes import Structure, c_int, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import pytest
from across import bits
from harness import LEVEL_IDS, build_host, run_kernel
from harness import require as require_level

from graphopt.kernels import reference_ops, registry

FUNCTIONS = (
    *("exp", "log", "erf", "tanh", "sigmoid", "silu"),
    *("gelu_erf", "gelu_tanh", "sin", "cos", "rsqrt"),
    *("exp_negative", "exp_weight", "tan"),
)
TINY = 2.0**-126
NAN, INF = math.nan, math.inf
POINTS = 1 << 16
# The f32 number nearest to a multiple of pi / 2, 1.6e-9 away from it, and another, 1.2e-8 away.
NEAREST_TO_HALF_PI = (16367173 * 2.0**72, 10695401 * 2.0**2)


class ProbeArgs(Structure):
    """math_probe_args of math_probe.c."""

    _fields_ = (("n", c_size_t), ("function", c_int), ("src", c_void_p), ("dst", c_void_p))


def require(where):
    """A runner whose only kernel is the probe."""
    runner = require_level(where)
    source = str(Path(__file__).with_name("math_probe.c"))
    probe = registry.Kernel("math_probe", "math_probe", source)
    return dataclasses.replace(runner, level=dataclasses.replace(runner.level, kernels=(probe,)))


def evaluate(where, name, x):
    """``name`` of f32 values [n] on one level."""
    padded = np.zeros((x.size + 15) // 16 * 16, np.float32)
    padded[: x.size] = x
    args = ProbeArgs(n=padded.size, function=FUNCTIONS.index(name))
    pointers = {"src": padded, "dst": np.zeros_like(padded)}
    return run_kernel(require(where), "math_probe", args, pointers)["dst"][: x.size]


def floats_between(lo, hi, count=POINTS):
    """f32 values spread evenly over the bit patterns from ``lo`` to ``hi`` (both > 0)."""
    first, last = (int(np.float32(v).view(np.uint32)) for v in (lo, hi))
    return np.linspace(first, last, count).astype(np.uint32).view(np.float32)


def both_signs(lo, hi):
    values = floats_between(lo, hi, POINTS // 2)
    return np.concatenate([values, -values])


def around_multiples_of_half_pi(top):
    """f32 values next to n pi / 2, where sine or cosine nearly vanishes."""
    n = np.unique(np.geomspace(1, top / (math.pi / 2) - 1, 5000).astype(int))
    x = (n * (math.pi / 2)).astype(np.float32)
    return np.concatenate([x, np.nextafter(x, np.float32(0)), -x])


@functools.cache
def arguments(name):
    """Where the error of ``name`` is measured."""
    near_one = floats_between(0.5, 2, POINTS // 2)
    angles = np.concatenate(
        [
            both_signs(1e-6, 2.0**18),
            np.random.default_rng(0).uniform(-(2.0**18), 2.0**18, POINTS).astype(np.float32),
            around_multiples_of_half_pi(2.0**18),
            both_signs(2.0**18, 3.4028234e38),
            np.arange(-2, 3, dtype=np.float32) / 16 + np.float32(2.0**18),
            np.float32(NEAREST_TO_HALF_PI),
        ]
    )
    return {
        "exp": np.concatenate([floats_between(1e-6, 88.722), -floats_between(1e-6, 87.336)]),
        "exp_negative": -floats_between(1e-6, 90),
        "exp_weight": -floats_between(1e-6, 87),
        "log": np.concatenate([floats_between(TINY, 3.4e38), near_one]),
        "rsqrt": floats_between(TINY, 3.4e38),
        "sin": angles,
        "cos": angles,
        "tan": angles,
        "sigmoid": both_signs(1e-6, 87.33),
        "silu": both_signs(1e-6, 88.72),
    }.get(name, both_signs(1e-6, 12))


def ulps(got, exact):
    """Distance in units of the last f32 place of the exact value."""
    unit = np.exp2(np.floor(np.log2(np.maximum(np.abs(exact), TINY))) - 23)
    return np.abs(got.astype(np.float64) - exact) / unit


MAX_ULP = {
    "exp": 0.9,
    "log": 0.9,
    "erf": 1.0,
    "tanh": 1.5,
    "sigmoid": 2.4,
    "silu": 2.3,
    "sin": 1.5,
    "cos": 1.5,
    "tan": 4.0,
    "rsqrt": 1.5,
}


@pytest.mark.parametrize("name", MAX_ULP)
def test_error_in_ulp(name):
    """The bounds that go_math.h states. Sine and cosine against long double: float64's own
    reduction is exact enough, but the test is about its last digits."""
    x = arguments(name)
    got = evaluate(f"{platform.machine()}/scalar", name, x)
    wide = x.astype(np.longdouble if name in ("sin", "cos", "tan") else np.float64)
    exact = reference_ops.FUNCTIONS[name](wide).astype(np.float64)
    assert ulps(got, exact).max() <= MAX_ULP[name]


@pytest.mark.parametrize("name", ["gelu_erf", "gelu_tanh"])
def test_gelu_error(name):
    x = arguments(name)
    got = evaluate(f"{platform.machine()}/scalar", name, x)
    exact = reference_ops.FUNCTIONS[name](x.astype(np.float64))
    assert np.all(np.abs(got - exact) <= 2.0**-22 * np.abs(x))


def test_exponentials_of_attention():
    """Of numbers up to 0: the bits of exp, and a cheaper one for weights in bf16."""
    where = f"{platform.machine()}/scalar"
    x = np.concatenate([arguments("exp_negative"), np.float32([0, -INF, NAN])])
    exp = evaluate(where, "exp", x)
    assert np.array_equal(bits(evaluate(where, "exp_negative", x)), bits(exp))
    x = arguments("exp_weight")
    exact = np.exp(x.astype(np.float64))
    assert np.all(np.abs(evaluate(where, "exp_weight", x) / exact - 1) <= 2.0**-17)


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_same_bits_on_every_level(where):
    """Also checks that vector code and the scalar level agree."""
    for name in FUNCTIONS:
        x = np.concatenate([arguments(name)[::37], SPECIAL])
        expected = evaluate(f"{platform.machine()}/scalar", name, x)
        assert np.array_equal(bits(evaluate(where, name, x)), bits(expected)), name


SPECIAL = np.array(
    [
        *(NAN, INF, -INF, 0.0, -0.0, TINY, -TINY, 88.72283, 88.7229, -87.3365, -87.337),
        *(1e30, -1e30, 2.7e5, -1e6, 3.4028234e38),
    ],
    np.float32,
)

#: name -> argument -> result, for arguments at the edge of the definition.
EDGES = {
    "exp": {INF: INF, -INF: 0, 0.0: 1, 88.7229: INF, -87.337: 0, -1e30: 0, 1e30: INF},
    "exp_negative": {-INF: 0, 0.0: 1, -87.337: 0, -1e30: 0},
    "exp_weight": {-INF: 0, 0.0: 1, -88.01: 0, -1e30: 0},
    "log": {INF: INF, -INF: NAN, 0.0: -INF, -1.0: NAN, 1.0: 0, TINY / 2: -INF},
    "erf": {INF: 1, -INF: -1, 0.0: 0, 4.0: 1, -1e30: -1},
    "tanh": {INF: 1, -INF: -1, 0.0: 0, 20.0: 1, -1e30: -1},
    "sigmoid": {INF: 1, -INF: 0, 0.0: 0.5, -87.337: 0, -1e30: 0},
    "silu": {INF: INF, -INF: NAN, 0.0: 0, -88.8: 0},
    "gelu_erf": {INF: INF, -INF: NAN, 0.0: 0, -1e30: 0, 1e30: 1e30},
    "gelu_tanh": {INF: INF, -INF: NAN, 0.0: 0, -1e30: 0, 1e30: 1e30},
    "sin": {INF: NAN, -INF: NAN, 0.0: 0},
    "cos": {INF: NAN, -INF: NAN, 0.0: 1},
    "tan": {INF: NAN, -INF: NAN, 0.0: 0},
    "rsqrt": {INF: 0, 0.0: INF, -1.0: NAN, 1.0: 1, 4.0: 0.5},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_edges(name):
    edges = {NAN: NAN} | EDGES[name]
    x = np.array(list(edges), np.float32)
    got = evaluate(f"{platform.machine()}/scalar", name, x)
    assert np.array_equal(got, np.array(list(edges.values()), np.float32), equal_nan=True)


def test_exp_flushes_exactly_below_the_smallest_normal():
    """No denormal leaves exp or sigmoid, so flush-to-zero mode cannot change their bits."""
    x = -floats_between(87.3, 87.4)
    for name in ("exp", "sigmoid"):
        got = evaluate(f"{platform.machine()}/scalar", name, x)
        assert np.all((got == 0) | (got >= TINY)) and (got == 0).any() and (got > 0).any()


@pytest.mark.skipif(not shutil.which("objdump"), reason="needs objdump")
def test_loops_of_sixteen_calls_become_vector_code():
    """On AVX2 every multiply-add of the probe works on a whole register."""
    host = build_host(require("x86_64/avx2").level, "math_probe")
    command = ["objdump", "-d", "--no-show-raw-insn", "--disassemble=math_probe", str(host)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    packed = len(re.findall(r"vf\w*(?:add|sub)\w*ps .*%ymm", text))
    single = len(re.findall(r"vf\w*(?:add|sub)\w*ss ", text))
    assert packed >= 10 * len(FUNCTIONS) and single == 0
