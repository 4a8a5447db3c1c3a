"""The f32 GEMM: one fused chain in order of k, so the same bits on every level but one.

FMMLA (level sve_f32mm) sums pairs of rounded products, to bits of its own."""

from dataclasses import replace

import numpy as np
import pytest
from gemm_cases import OPTIONS, SHAPES, Options, check, make_call
from harness import LEVEL_IDS, NATIVE_IDS, Runner, build_host, require, require_gcc, run_cases

from graphopt.kernels import formats, layouts, packing, reference


def calls_for(arch: str, plan: list[tuple[tuple[int, int, int], Options]]):
    """Calls, and the f32 products [m, n] without epilogue, exact and in float64."""
    layout = formats.F32.layout(arch)
    for i, (shape, options) in enumerate(plan):
        m, n, k = shape
        rng = np.random.default_rng(i)
        a = rng.standard_normal((m, k)).astype(np.float32)
        w = rng.standard_normal((n, k)).astype(np.float32)
        if i % 7 == 3 and m and k:
            a[0, k // 2] = np.nan
            a[-1, 0] = np.inf
        stride = k + i % 4
        memory = np.full(max(m - 1, 0) * stride + (k if m else 0), 1e30, np.float32)
        for r in range(m):
            memory[r * stride : r * stride + k] = a[r]
        packed = packing.pack_rhs_f32(layout, w)
        assert packed.nbytes == layouts.packed_rhs_bytes(layout, n, k)
        call = make_call(shape, options, i, {"lhs": memory, "rhs": packed, "lhs_stride": stride})
        yield call, a, w


def plan_of(shapes=SHAPES):
    """All shapes, options in turn; then one shape with every option."""
    plan = [(shape, OPTIONS[i % len(OPTIONS)]) for i, shape in enumerate(shapes)]
    return plan + [((13, 35, 20), options) for options in OPTIONS]


def run_plan(runner: Runner) -> None:
    made = list(calls_for(runner.level.arch, plan_of()))
    results = run_cases(runner, "go_gemm_f32", [call.case for call, _, _ in made])
    for (call, a, w), result in zip(made, results, strict=True):
        pairs = "svef32mm" in runner.level.features
        with np.errstate(invalid="ignore"):
            product = (reference.gemm_f32_pairs if pairs else reference.gemm_f32)(a, w)
        want = call.finish(product, bias_done=False)
        check(call, call.output(result), want, f"{a.shape} {w.shape} {call.options}")


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_results_are_the_reference_bit_for_bit(where):
    run_plan(require(where))


@pytest.mark.parametrize("vl", [128, 256, 1024])
def test_outer_products_of_other_vector_lengths(vl):
    run_plan(replace(require("aarch64/sme@512"), vl=vl))


@pytest.mark.parametrize("vl", [128, 512, 1024])
def test_matrix_products_of_other_vector_lengths(vl):
    run_plan(replace(require("aarch64/sve_f32mm@256"), vl=vl))


@pytest.mark.parametrize("product", [reference.gemm_f32, reference.gemm_f32_pairs])
def test_the_reference_is_close_to_float64(product):
    """A chain of k roundings errs by at most k * 2**-24 times the sum of |a| |w|.

    So do pairs: their k / 2 sums and two roundings before each are fewer."""
    rng = np.random.default_rng(5)
    a = rng.standard_normal((17, 560)).astype(np.float32)
    w = rng.standard_normal((19, 560)).astype(np.float32)
    bound = 560 * 2.0**-24 * reference.gemm_exact(np.abs(a), np.abs(w))
    error = np.abs(product(a, w) - reference.gemm_exact(a, w))
    assert (error <= bound).all()
    assert error.max() > 0


def test_fma_of_the_reference_rounds_once():
    """Cases that an f32 product or a plain float64 sum would round differently."""
    one, tiny = np.float32(1 + 2.0**-12), np.float32(2.0**-80)
    exact = np.float32(1 + 2.0**-11)  # one * one is 1 + 2**-11 + 2**-24: a tie without tiny
    assert reference.fma(one, one, np.float32(0)) == exact
    assert reference.fma(one, one, tiny) == np.nextafter(exact, np.float32(2))
    assert reference.fma(one, one, -tiny) == exact


@pytest.mark.parametrize("where", NATIVE_IDS)
def test_gcc_gives_the_same(where):
    run_plan(require_gcc(where))


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_threads_do_not_change_a_bit(where):
    runner = require(where)
    plan = [((61, 157, 40), Options(act="gelu_erf", bias=True, threads=t)) for t in (1, 2, 3)]
    made = [next(calls_for(runner.level.arch, [step])) for step in plan]
    results = run_cases(runner, "go_gemm_f32", [call.case for call, _, _ in made])
    stored = [call.output(r).tobytes() for (call, _, _), r in zip(made, results, strict=True)]
    assert stored[0] == stored[1] == stored[2]


@pytest.mark.parametrize(
    ("where", "mutation"),
    [
        ("x86_64/avx2", ("6, 1)", "4, 1)")),
        ("x86_64/avx512_vnni", ("12, 2)", "12, 1)")),
    ],
)
def test_the_tile_does_not_change_a_bit(where, mutation):
    """Another tile, the same results: what lets levels differ in their tiles."""
    runner = require(where)
    run_plan(Runner(runner.level, mutation=mutation))


@pytest.mark.parametrize("where", ["x86_64/scalar", "aarch64/scalar", "aarch64/sve2"])
def test_a_broken_kernel_is_noticed(where):
    """An unfused multiply-add differs in the last bit only: the comparison must see it."""
    level = require(where).level
    mutation = (
        '#include "gemm_f32.h"',
        '#include "go_reg.h"\n#define go_reg_fma(a, b, c) ((a) * (b) + (c))\n#include "gemm_f32.h"',
    )
    build_host(level, "go_gemm_f32", mutation)  # it must compile
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        run_plan(Runner(level, mutation=mutation))


@pytest.mark.parametrize(
    ("where", "mutation"),
    [
        ("aarch64/sme@512", ("o->k : 0)", "o->k - 1 : 0)")),
        ("aarch64/sme@512", ("rows - row, b[0], b[1]", "rows - row, b[0], b[0]")),
        ("aarch64/sme@512", ("r < rows", "r + 1 < rows")),
        ("aarch64/sve_f32mm@256", ("svtrn2_f64(x, y)", "svtrn1_f64(x, y)")),
        ("aarch64/sve_f32mm@256", ("PAIRS_OF_COLUMNS(k + 2)", "PAIRS_OF_COLUMNS(k)")),
    ],
)
def test_broken_matrix_products_are_noticed(where, mutation):
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        run_plan(replace(require(where), mutation=mutation))
