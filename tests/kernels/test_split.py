"""Rows and what int8 leaves of them."""

import numpy as np
import pytest
from across import run_everywhere
from harness import LEVEL_IDS, Case, require

from graphopt.kernels.arguments import BF16, F32, PackLhsArgs
from graphopt.kernels.reference import bf16_from_f32, f32_from_bf16, fma, quantize_rows

SHAPES = [(0, 5), (1, 1), (3, 16), (5, 33), (9, 576)]


def make_case(shape, dtype):
    rng = np.random.default_rng(sum(shape))
    x = rng.normal(0, 3, shape).astype(np.float32)
    x[1:2], x[2:3, 0] = 0, np.inf
    stored = bf16_from_f32(x) if dtype == BF16 else x
    m, k = shape
    args = PackLhsArgs(m=m, k=k, src_stride=k, src_dtype=dtype)
    dst = np.full((m, 2, k), 7, np.float32)
    return Case(args, {"src": stored, "dst": dst}), f32_from_bf16(stored) if dtype == BF16 else x


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_equals_the_definition(where):
    made = [make_case(s, t) for s in SHAPES for t in (F32, BF16)]
    results = run_everywhere(require(where), "go_split", [c for c, _ in made], "split")
    for (_, x), out in zip(made, results, strict=True):
        rows = quantize_rows(x)
        steps = (rows.q - rows.zp[:, None]).astype(np.float32)
        np.testing.assert_array_equal(out["dst"][:, 0], x)
        rest = fma(-rows.scale[:, None], steps, x)
        np.testing.assert_array_equal(out["dst"][:, 1], rest)
