"""Softmax and log-softmax kernels."""

import numpy as np
import pytest
from across import bits, run_everywhere
from harness import LEVEL_IDS, Case, require, run_kernel

from graphopt.kernels.arguments import BF16, F32, SoftmaxArgs
from graphopt.kernels.reference import bf16_from_f32, f32_from_bf16
from graphopt.kernels.reference_ops import softmax

SHAPES = [(0, 5), (1, 1), (3, 7), (5, 16), (2, 17), (13, 31), (7, 127), (150, 515)]


def make_case(x, src_dtype=F32, dst_dtype=F32, log=False, pad=3):
    """A case whose rows lie ``pad`` elements apart, and the values its kernel reads."""
    rows, cols = x.shape
    stored = bf16_from_f32(x) if src_dtype == BF16 else x.astype(np.float32)
    src = np.zeros((rows, cols + pad), stored.dtype)
    src[:, :cols] = stored
    dst = np.full((rows, cols + 2), 7, np.uint16 if dst_dtype == BF16 else np.float32)
    args = SoftmaxArgs(
        rows=rows,
        cols=cols,
        src_stride=cols + pad,
        src_dtype=src_dtype,
        log=log,
        dst_stride=cols + 2,
        dst_dtype=dst_dtype,
    )
    values = f32_from_bf16(stored) if src_dtype == BF16 else stored
    return Case(args, {"src": src, "dst": dst}), values


def all_cases():
    rng = np.random.default_rng(1)
    cases = []
    for i, shape in enumerate(SHAPES):
        x = rng.normal(0, 4, shape)
        for log in (False, True):
            cases.append(make_case(x, log=log))
            if shape[1] < 100:
                cases.append(make_case(x, BF16, (F32, BF16)[i % 2], log))
                cases.append(make_case(x, F32, BF16, log))
    return cases


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_matches_float64(where):
    """Terms err by 1 ulp of e^x, and x - max is rounded (2^-24 |x - max| relative); the sum
    of c terms adds (c / 16 + 4) roundings, 1 / s and the product two more."""
    cases = all_cases()
    results = run_everywhere(require(where), "go_softmax", [c for c, _ in cases], "softmax")
    for (case, x), out in zip(cases, results, strict=True):
        cols = case.args.cols
        got, untouched = out["dst"][:, :cols], out["dst"][:, cols:]
        assert np.all(untouched == 7)
        expected = softmax(x, bool(case.args.log)) if x.size else np.zeros(x.shape)
        spread = np.ptp(x, axis=-1, keepdims=True) if x.size else 0
        relative = 2.0**-24 * (cols / 16 + 12 + spread)
        bound = relative * (1 + np.abs(expected)) if case.args.log else relative * expected
        if case.args.dst_dtype == BF16:
            got, bound = f32_from_bf16(got), bound + 2.0**-8 * np.abs(expected)
        assert np.all(np.abs(got - expected) <= bound)


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_special_values(where):
    """A NaN, a +inf and a row of -inf only give NaN rows; -inf among numbers gives 0."""
    x = np.zeros((5, 19), np.float32)
    x[0, 17], x[1, 2], x[2, :], x[3, 1:18], x[4, 3] = np.nan, np.inf, -np.inf, -np.inf, -1e30
    for log in (False, True):
        case, _ = make_case(x, log=log)
        (out,) = run_everywhere(require(where), "go_softmax", [case], f"special{log}")
        got = out["dst"][:, :19]
        assert np.isnan(got[:3]).all() and not np.isnan(got[3:]).any()
        assert np.all(got[3, 1:18] == (-np.inf if log else 0))
        assert got[4, 3] == (np.float32(-1e30) if log else 0)


@pytest.mark.parametrize("hidden", [-10000.0, -np.inf])
@pytest.mark.parametrize("where", LEVEL_IDS[:3])
def test_hidden_tail_changes_no_bit(where, hidden):
    """A row padded with hidden keys equals the shorter row, whatever the lengths."""
    rng = np.random.default_rng(2)
    for cols, padded in [(1, 16), (5, 40), (33, 48), (47, 129)]:
        x = rng.normal(0, 4, (4, padded))
        x[:, cols:] = hidden
        whole, short = make_case(x)[0], make_case(x[:, :cols])[0]
        runner = require(where)
        long_out = run_kernel(runner, "go_softmax", whole.args, whole.pointers)["dst"]
        short_out = run_kernel(runner, "go_softmax", short.args, short.pointers)["dst"]
        assert np.array_equal(bits(long_out[:, :cols].copy()), bits(short_out[:, :cols].copy()))
        assert np.all(long_out[:, cols:padded] == 0)


@pytest.mark.parametrize("where", LEVEL_IDS[:3])
def test_in_place(where):
    case, _ = make_case(np.random.default_rng(3).normal(0, 2, (9, 37)), pad=2)
    apart = run_kernel(require(where), "go_softmax", case.args, case.pointers)["dst"]
    buffer = case.pointers["src"]
    together = run_kernel(require(where), "go_softmax", case.args, {"src": buffer, "dst": buffer})[
        "dst"
    ]
    assert np.array_equal(together[:, :37], apart[:, :37])
