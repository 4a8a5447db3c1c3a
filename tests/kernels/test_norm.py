"""Layer norm and RMS norm kernels."""

import numpy as np
import pytest
from across import run_everywhere
from harness import LEVEL_IDS, Case, end_of, require, run_cases

from graphopt.kernels import formats, layouts
from graphopt.kernels.arguments import BF16, F32, NormArgs
from graphopt.kernels.packing import pack_lhs_qa8r
from graphopt.kernels.reference import bf16_from_f32, f32_from_bf16, quantize_rows
from graphopt.kernels.reference_ops import norm

SHAPES = [(0, 4), (1, 1), (3, 7), (5, 16), (2, 17), (13, 31), (7, 127), (150, 512)]
EPS = 1e-5


def make_case(x, src_dtype=F32, dst_dtype=F32, rms=False, affine="wb", seed=0):
    """A case with padded row strides, and (values read, weight, bias)."""
    rows, cols = x.shape
    rng = np.random.default_rng(seed)
    stored = bf16_from_f32(x) if src_dtype == BF16 else x.astype(np.float32)
    src = np.zeros((rows, cols + 3), stored.dtype)
    src[:, :cols] = stored
    dst = np.full((rows, cols + 2), 7, np.uint16 if dst_dtype == BF16 else np.float32)
    pointers = {"src": src, "dst": dst}
    weight = bias = None
    if "w" in affine:
        pointers["weight"] = weight = rng.normal(1, 0.5, cols).astype(np.float32)
    if "b" in affine:
        pointers["bias"] = bias = rng.normal(0, 0.5, cols).astype(np.float32)
    args = NormArgs(
        rows=rows,
        cols=cols,
        src_stride=cols + 3,
        src_dtype=src_dtype,
        eps=EPS,
        rms=rms,
        dst_stride=cols + 2,
        dst_dtype=dst_dtype,
    )
    values = f32_from_bf16(stored) if src_dtype == BF16 else stored
    ends = {"src": end_of(src[:, :cols], src)}
    return Case(args, pointers, ends=ends), (values, weight, bias)


def all_cases():
    rng = np.random.default_rng(1)
    cases = []
    for i, shape in enumerate(SHAPES):
        x = rng.normal(0.5, 3, shape)
        for rms in (False, True):
            cases.append(make_case(x, rms=rms, seed=i))
            if shape[1] < 100:
                cases.append(make_case(x, BF16, F32, rms, "w", i))
                cases.append(make_case(x, F32, BF16, rms, "b", i))
                cases.append(make_case(x, BF16, BF16, rms, "", i))
    return cases


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_matches_float64(where):
    """Sums of c values make c / 16 + 4 roundings relative to the sum of magnitudes; x - mean
    is relative to |x| + |mean|, the remaining steps make fewer than eight roundings."""
    cases = all_cases()
    results = run_everywhere(require(where), "go_norm", [c for c, _ in cases], "norm")
    for (case, (x, weight, bias)), out in zip(cases, results, strict=True):
        rows, cols = x.shape
        got, untouched = out["dst"][:, :cols], out["dst"][:, cols:]
        assert np.all(untouched == 7)
        expected = norm(x, weight, bias, EPS, bool(case.args.rms))
        top = np.abs(x).max(-1, keepdims=True) if rows else np.zeros((0, 1))
        centre = 0 if case.args.rms or not rows else x.mean(-1, keepdims=True)
        spread = np.sqrt(((x - centre) ** 2).mean(-1, keepdims=True) + EPS)
        magnitude = 2 * top / spread * (1 if weight is None else np.abs(weight))
        magnitude = magnitude + (0 if bias is None else np.abs(bias))
        bound = 2.0**-24 * (cols / 16 + 12) * magnitude
        if case.args.dst_dtype == BF16:
            got, bound = f32_from_bf16(got), bound + 2.0**-8 * np.abs(expected)
        assert np.all(np.abs(got - expected) <= bound)


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_special_values(where):
    """Rows with NaN or infinity are NaN (infinity under RMS: 0 elsewhere, NaN in its place);
    a constant row is the bias."""
    x = np.ones((4, 21), np.float32)
    x[0, 20], x[1, 3], x[2, 5] = np.nan, np.inf, -np.inf
    layer, (_, _, bias) = make_case(x)
    rms, _ = make_case(x, rms=True, affine="")
    first, second = run_everywhere(require(where), "go_norm", [layer, rms], "norm special")
    assert np.isnan(first["dst"][:3, :21]).all()
    assert np.array_equal(first["dst"][3, :21], bias)
    got = second["dst"][:, :21]
    assert np.isnan(got[0]).all() and np.isnan(got[1, 3]) and np.all(np.delete(got[1], 3) == 0)


@pytest.mark.parametrize("where", LEVEL_IDS[:3])
def test_variance_survives_a_large_mean(where):
    """Two passes: with a mean 1000 times the deviation the result keeps 3 digits, where
    E[x^2] - E[x]^2 in f32 would keep none."""
    x = np.random.default_rng(5).normal(1000, 0.1, (3, 333)).astype(np.float32)
    case, (values, weight, bias) = make_case(x)
    (out,) = run_everywhere(require(where), "go_norm", [case], "norm mean")
    expected = norm(values, weight, bias, EPS, False)
    assert np.all(np.abs(out["dst"][:, :333] - expected) < 5e-3)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_packed_rows_are_the_quantized_result(where, threads):
    """The panels equal those of the pack kernel for the f32 result, byte for byte."""
    runner = require(where)
    layout = formats.INT8.layout(runner.level.arch)
    rng = np.random.default_rng(6)
    cases = []
    for rows, cols in [(1, 1), (3, 16), (8, 31), (13, 33), (150, 512), (9, 2081)]:
        x = rng.normal(0.5, 3, (rows, cols))
        if rows == 13:
            x[5, 7], x[6] = np.nan, 0
        for affine in ("wb", ""):
            case, _ = make_case(x, affine=affine)
            case.args.dst_dtype, case.threads = F32, threads
            size = layouts.packed_lhs_bytes(layout, rows, cols)
            case.pointers["packed"] = np.full(size, 0x5A, np.uint8)
            case.writes = ("dst", "packed")
            cases.append(case)
    results = run_cases(runner, "go_norm", cases)
    for case, out in zip(cases, results, strict=True):
        expected = pack_lhs_qa8r(layout, quantize_rows(out["dst"][:, : case.args.cols]))
        assert np.array_equal(out["packed"], expected)
        del case.pointers["dst"]
        case.writes = ("packed",)
    for with_dst, alone in zip(results, run_cases(runner, "go_norm", cases), strict=True):
        assert np.array_equal(alone["packed"], with_dst["packed"])
