"""The int8 GEMM: integer sums exact, f32 results bit for bit, at any thread count."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from gemm_cases import FEW_ROWS, OPTIONS, SHAPES, Options, check, make_call
from harness import (
    LEVEL_IDS,
    NATIVE_IDS,
    Runner,
    build_host,
    require,
    require_gcc,
    run_cases,
    sme_probe,
)

from graphopt.kernels import formats, layouts, packing, reference

#: Behind these a macro changes an intrinsic in products alone, not where results are quantized.
NEON = '#include <arm_neon.h>\n#include "quantize_rows.h"\n'
DOT_SWEEP = '#include "dot_sweep.h"'


def operands(m: int, n: int, k: int, seed: int, extreme: str = ""):
    """Quantized rows and weights; ``extreme`` chooses values at the ends of the range."""
    rng = np.random.default_rng(seed)
    rows = reference.quantize_rows(rng.standard_normal((m, k)).astype(np.float32))
    weights = reference.quantize_channels(rng.standard_normal((n, k)).astype(np.float32))
    if extreme == "signs":  # products of both signs at the very ends
        rows.q[:] = rng.choice(np.array([-128, 127], np.int8), (m, k))
        weights.q[:] = rng.choice(np.array([-127, 127], np.int8), (n, k))
    elif extreme.startswith("reach"):  # sums of columns at the end of what a level converts
        weights.q[:] = np.resize(np.array([127, -127], np.int8), (n, 1))
        weights.q[:, 129] = np.sign(weights.q[:, 0]) * (int(extreme[6:]) - 129 * 127)
        weights.q[:, 130:] = 0
        rows.q[:], rows.zp[:] = 127, -128
        rows.q[::2], rows.zp[::2] = -128, 127
    elif extreme:  # every product is as large as possible, sums too
        rows.q[:] = -128
        rows.zp[:] = 127
        weights.q[:] = 127 if extreme == "high" else -127
    return rows, weights


def calls_for(arch: str, plan: list[tuple[tuple[int, int, int], Options, str]]):
    """Calls with the results they must give."""
    lhs, rhs = formats.INT8.layout(arch), formats.INT8.layout(arch)
    for i, (shape, options, extreme) in enumerate(plan):
        a, w = operands(*shape, i, extreme)
        if extreme == "not finite":
            a.scale[::2] = np.nan
        packed = packing.pack_rhs_qs8c(rhs, w)
        assert packed.nbytes == layouts.packed_rhs_bytes(rhs, shape[1], shape[2])
        call = make_call(shape, options, i, {"lhs": packing.pack_lhs_qa8r(lhs, a), "rhs": packed})
        yield call, call.finish(reference.gemm_qa8(a, w, call.bias), bias_done=True)


def full_plan():
    """All shapes, options in turn, then extreme operands."""
    plan = [(shape, OPTIONS[i % len(OPTIONS)], "") for i, shape in enumerate(SHAPES)]
    plan += [(shape, OPTIONS[i % len(OPTIONS)], "") for i, shape in enumerate(FEW_ROWS)]
    plan += [((13, 35, 70), options, "") for options in OPTIONS]
    for extreme in ("signs", "high", "low", "not finite"):
        plan += [((13, 33, 1999), OPTIONS[0], extreme), ((8, 16, 64), OPTIONS[1], extreme)]
    # 255 * 16448 < 2^22 < 255 * 16449, where the conversion of some levels changes.
    plan += [((9, 17, 131), OPTIONS[1], f"reach {reach}") for reach in (16448, 16449)]
    plan += [((m, 32, 70), Options(act="relu", bias=m % 2 == 1), "") for m in (1, 2, 4, 17, 18)]
    plan += [((141, 9, 2080), OPTIONS[1], "")]  # parts of depth and rows
    plan += [((m, 16, 131), OPTIONS[0], f"reach {16448 + m % 2}") for m in (1, 2, 3, 4)]
    return plan


def run_plan(runner: Runner, plan) -> None:
    made = list(calls_for(runner.level.arch, plan))
    results = run_cases(runner, "go_gemm_qa8", [call.case for call, _ in made])
    for (call, want), result, step in zip(made, results, plan, strict=True):
        check(call, call.output(result), want, str(step))


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_results_are_the_reference_bit_for_bit(where):
    run_plan(require(where), full_plan())


@pytest.mark.parametrize(
    ("level", "vl"), [("sve2", 512), ("sme", 128), ("sme", 256), ("sme", 1024)]
)
def test_other_vector_lengths(level, vl):
    """From 512 bits on one vector of SVE covers all eight columns and the second is inactive.

    In streaming mode a vector is half a panel, a panel, or more than two."""
    run_plan(replace(require(f"aarch64/{level}@128"), vl=vl), full_plan())


@pytest.mark.parametrize("vl", [128, 256, 512])
def test_smopa_itself_where_an_emulator_computes_a_quarter_of_it(vl):
    """Results of even rows and columns are right everywhere."""
    runner = replace(require("aarch64/sme@512"), vl=vl, real_smopa=True)
    plan = [(shape, OPTIONS[0], "") for shape in ((41, 67, 61), (37, 35, 130), (5, 9, 0))]
    made = list(calls_for("aarch64", plan))
    results = run_cases(runner, "go_gemm_qa8", [call.case for call, _ in made])
    for (call, want), result in zip(made, results, strict=True):
        got = call.output(result)
        np.testing.assert_array_equal(got[::2, ::2], want[::2, ::2])
        if not sme_probe(vl) & 1:
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("vl", [128, 512])
def test_sums_of_a_caller_survive_in_za(vl):
    require("aarch64/sme@512")
    assert not sme_probe(vl) & 2


@pytest.mark.parametrize("where", NATIVE_IDS)
def test_gcc_gives_the_same(where):
    run_plan(require_gcc(where), full_plan())


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_threads_do_not_change_a_bit(where):
    for shape in ((61, 157, 96), (3, 529, 512)):
        same_bits(require(where), shape)


def same_bits(runner: Runner, shape: tuple[int, int, int]) -> None:
    """One, two and three threads give the same bits."""
    plan = [(shape, Options(act="silu", bias=True, threads=t), "") for t in (1, 2, 3)]
    made = [next(calls_for(runner.level.arch, [step])) for step in plan]
    first, *others = (
        call.output(result)
        for (call, _), result in zip(
            made, run_cases(runner, "go_gemm_qa8", [c.case for c, _ in made]), strict=True
        )
    )
    check(made[0][0], first, made[0][1], "one thread")
    for other in others:
        assert first.tobytes() == other.tobytes()


@functools.cache
def activations(where: str) -> bytes:
    """Results of every activation on one level, as bytes."""
    runner = require(where)
    plan = [((9, 40, 64), options, "") for options in OPTIONS]
    made = list(calls_for(runner.level.arch, plan))
    results = run_cases(runner, "go_gemm_qa8", [call.case for call, _ in made])
    return b"".join(
        call.output(result).tobytes() for (call, _), result in zip(made, results, strict=True)
    )


@pytest.mark.parametrize("where", [i for i in LEVEL_IDS if i != "x86_64/scalar"])
def test_activations_have_the_same_bits_on_every_level(where):
    assert activations(where) == activations("x86_64/scalar")


@pytest.mark.parametrize(
    ("where", "mutation"),
    [
        ("x86_64/scalar", ("k < t->depth", "k + KR < t->depth")),
        ("x86_64/avx2", ("integer_tile, 128)", "integer_tile, 127)")),
        ("x86_64/avx2", ("depth, k == 0", "depth, 1")),
        ("x86_64/avx512_vnni", ("stride + k, 4)", "stride, 4)")),
        ("x86_64/avx512_vnni", ("late.rows = m", "late.rows = m / 2")),
        ("x86_64/avx512_vnni", ("sums[i % 2]", "sums[0]")),
        ("x86_64/avx512_vnni", ("(c, CHAINS - 1)", "(c, CHAINS - 2)")),
        ("aarch64/neon_i8mm", ("#include", f"{NEON}#define vzip2q_f64 vzip1q_f64\n#include")),
        ("aarch64/neon_i8mm", ("#include", f"{NEON}#define vmaxvq_s32(reach) 0\n#include")),
        ("aarch64/neon_dotprod", (DOT_SWEEP, f"{NEON}#define vuzp2q_s32 vuzp1q_s32\n{DOT_SWEEP}")),
        ("aarch64/neon_dotprod", (DOT_SWEEP, f"{NEON}#define vpaddq_s32(x, y) x\n{DOT_SWEEP}")),
        ("aarch64/sve2@256", ("sums + p * 8", "sums")),
        ("aarch64/sme@512", ("svuzp2_s32(x, y)", "svuzp1_s32(x, y)")),
        ("aarch64/sme@512", ("line < lines->rows ?", "line + 8 < lines->rows ?")),
    ],
)
def test_a_broken_kernel_is_noticed(where, mutation):
    broken = replace(require(where), mutation=mutation)
    build_host(broken.level, "go_gemm_qa8", mutation)  # it must compile
    with pytest.raises(AssertionError, match=r"(?i)not equal"):
        run_plan(broken, full_plan())
