"""The bf16 GEMM: the bits of one chain of multiply-adds, VDPBF16PS included; a bound for BFMMLA."""

from dataclasses import replace

import numpy as np
import pytest
from gemm_cases import ACTIVATION_ERROR, FEW_ROWS, OPTIONS, SHAPES, Call, Options, check, make_call
from harness import LEVEL_IDS, NATIVE_IDS, Runner, build_host, require, require_gcc, run_cases

from graphopt.kernels import formats, layouts, packing, reference

NEON = "#include <arm_neon.h>\n"  # so that a macro can change an intrinsic after it
IMMINTRIN = "#include <immintrin.h>\n"
UNPAIRED = "((c) + (__m512)(a) * (__m512)(b))"


def calls_for(arch: str, plan: list[tuple[tuple[int, int, int], Options]]):
    """Calls, and their operands widened to f32."""
    layout = formats.BF16.layout(arch)
    for i, (shape, options) in enumerate(plan):
        m, n, k = shape
        rng = np.random.default_rng(i)
        a = reference.bf16_from_f32(rng.standard_normal((m, k)).astype(np.float32))
        w = reference.bf16_from_f32(rng.standard_normal((n, k)).astype(np.float32))
        if i % 7 == 3 and m and k:
            a[0, k // 2] = 0x7FC0  # NaN
        packed = packing.pack_rhs_bf16(layout, w)
        assert packed.nbytes == layouts.packed_rhs_bytes(layout, n, k)
        operands = {"lhs": packing.pack_lhs_bf16(layout, a), "rhs": packed}
        call = make_call(shape, options, i, operands)
        yield call, reference.f32_from_bf16(a), reference.f32_from_bf16(w)


def check_bound(call: Call, got: np.ndarray, a: np.ndarray, w: np.ndarray, label: str) -> None:
    """Compare with float64 within what BFMMLA may lose.

    Without FEAT_EBF16, BFMMLA rounds each sum of two products and each accumulation to
    odd: at most one unit (2**-23) of a partial sum, twice for every two values of k, so
    k8 * 2**-23 * sum |a| |w| in all. An activation stretches this by at most 1.13 (gelu).
    """
    exact = reference.gemm_exact(a, w)
    want = call.finish(exact, bias_done=False).astype(np.float64)
    k8 = -(-a.shape[1] // 8) * 8
    bound = 1.13 * k8 * 2.0**-23 * reference.gemm_exact(np.abs(a), np.abs(w))
    bound = bound + (ACTIVATION_ERROR + (2.0**-8 if call.options.dst == "bf16" else 0)) * (
        1 + np.abs(want)
    )
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want), label)
    with np.errstate(invalid="ignore"):
        wrong = np.abs(got - want) > bound
    assert not wrong.any(), f"{label}: {wrong.sum()} results beyond the bound"


def run_plan(runner: Runner) -> None:
    plan = [(shape, OPTIONS[i % len(OPTIONS)]) for i, shape in enumerate(SHAPES + FEW_ROWS)]
    plan += [((13, 35, 20), options) for options in OPTIONS]
    plan += [((17, 32, 20), Options(act="relu", bias=bias)) for bias in (False, True)]
    made = list(calls_for(runner.level.arch, plan))
    results = run_cases(runner, "go_gemm_bf16", [call.case for call, _, _ in made])
    for (call, a, w), result in zip(made, results, strict=True):
        got, label = call.output(result), f"{a.shape} {w.shape} {call.options}"
        if "bf16" in runner.level.features:
            check_bound(call, got, a, w, label)
        else:
            want = call.finish(reference.gemm_bf16(a, w), bias_done=False)
            check(call, got, want, label)


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_results_match_the_reference(where):
    run_plan(require(where))


@pytest.mark.parametrize("where", NATIVE_IDS)
def test_gcc_gives_the_same(where):
    run_plan(require_gcc(where))


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_threads_do_not_change_a_bit(where):
    runner = require(where)
    plan = [((61, 157, 40), Options(act="tanh", bias=True, threads=t)) for t in (1, 2, 3)]
    made = [next(calls_for(runner.level.arch, [step])) for step in plan]
    results = run_cases(runner, "go_gemm_bf16", [call.case for call, _, _ in made])
    stored = [call.output(r).tobytes() for (call, _, _), r in zip(made, results, strict=True)]
    assert stored[0] == stored[1] == stored[2]


def test_neon_and_sve_give_the_same_bits():
    """Both accumulate in steps of four values of k, at any vector length."""
    plan = [((17, 33, 129), Options()), ((8, 16, 64), Options(dst="bf16"))]
    stored = []
    for where in ("aarch64/neon_i8mm", "aarch64/sve2@128", "aarch64/sve2@256"):
        runner = require(where)
        made = list(calls_for("aarch64", plan))
        results = run_cases(runner, "go_gemm_bf16", [call.case for call, _, _ in made])
        stored.append(
            [call.output(r).tobytes() for (call, _, _), r in zip(made, results, strict=True)]
        )
    assert stored[0] == stored[1] == stored[2]


@pytest.mark.parametrize(
    ("where", "mutation"),
    [
        (
            "x86_64/avx2",
            ("#include", f"{IMMINTRIN}#define _mm256_fmadd_ps _mm256_fnmadd_ps\n#include"),
        ),
        (
            "x86_64/avx512_bf16",
            ("#include", f"{IMMINTRIN}#define _mm512_dpbf16_ps(c, a, b) {UNPAIRED}\n#include"),
        ),
        ("x86_64/scalar", ("k = i ^ 1", "k = i")),
        ("aarch64/neon_i8mm", ("#include", f"{NEON}#define vzip2q_f64 vzip1q_f64\n#include")),
        ("aarch64/sve2@256", ("sums + p * 8", "sums + p * 7")),
    ],
)
def test_a_broken_kernel_is_noticed(where, mutation):
    broken = replace(require(where), mutation=mutation)
    build_host(broken.level, "go_gemm_bf16", mutation)  # it must compile
    with pytest.raises(AssertionError, match=r"beyond the bound|Arrays are not equal"):
        run_plan(broken)
