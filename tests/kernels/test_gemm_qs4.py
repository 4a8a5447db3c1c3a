"""The int4 GEMMs: quantization, packing, and results bit for bit at any thread count."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from gemm_cases import FEW_ROWS, OPTIONS, SHAPES, Options, check, make_call
from harness import LEVEL_IDS, NATIVE_IDS, Runner, build_host, require, require_gcc, run_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphopt.kernels import formats, layouts, packing, reference

OF_KERNEL = {format.kernel: format for format in (formats.INT4_CHANNELS, formats.INT4_BLOCKS)}
GENERICS = tuple(OF_KERNEL)
ARCHES = ("x86_64", "aarch64")
CHANNEL = 0  # instead of a block length: one scale per channel
#: Behind these a macro changes an intrinsic in products alone, not where results are quantized.
NEON = '#include <arm_neon.h>\n#include "quantize_rows.h"\n'
QS4_GEMV = '#include "qs4_gemv.h"'  # the first of the headers that it changes
DOT_SWEEP = '#include "dot_sweep.h"'

# ---- quantization and packing ---------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(arrays(np.float32, (3, 64), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_int4_errs_by_half_a_step_or_clips(w):
    blocks = reference.quantize_blocks_int4(w, 32)
    assert blocks.group == 32
    assert blocks.q.min() >= -8 and blocks.q.max() <= 7
    scale = np.repeat(reference.f32_from_bf16(blocks.scale).astype(np.float64), 32, axis=1)
    error = np.abs(scale * blocks.q - w)
    ends = (blocks.q == -8) | (blocks.q == 7)
    assert (error <= 0.50001 * np.abs(scale) + 32 * 2.0**-100)[~ends].all()
    # Extremes at 7 would miss by half a step at most; what was chosen is no worse in sum.
    plain = np.abs(w).reshape(3, 2, 32).max(axis=2).astype(np.float64) / 7
    limit = 32 * (0.5 * plain * 1.04 + 32 * 2.0**-100) ** 2
    assert ((error**2).reshape(3, 2, 32).sum(axis=2) <= limit * 1.001).all()


def test_values_are_rounded_against_the_stored_scale():
    """bf16 has 8 bits of mantissa: against an unrounded scale some values would move by one."""
    w = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    blocks = reference.quantize_blocks_int4(w, 64)
    scale = np.repeat(reference.f32_from_bf16(blocks.scale), 64, axis=1)
    np.testing.assert_array_equal(blocks.q, np.clip(np.rint(w / scale), -8, 7))
    error = np.linalg.norm(blocks.q * scale - w) / np.linalg.norm(w)
    assert error < 0.095  # 0.107 with all extremes at 7
    channels = reference.quantize_channels_int4(w)
    error = np.linalg.norm(channels.q * channels.scale[:, None] - w) / np.linalg.norm(w)
    assert error < 0.105


@pytest.mark.parametrize("extreme", [1.0, -1.0])
def test_a_block_of_one_value_is_exact_for_either_sign(extreme):
    w = np.zeros((1, 32), np.float32)
    w[0, 3] = extreme
    blocks = reference.quantize_blocks_int4(w, 32)
    scale = reference.f32_from_bf16(blocks.scale)[0, 0]
    np.testing.assert_array_equal(scale * blocks.q, w)


def test_zeros_and_denormals_get_scale_zero():
    w = np.zeros((2, 64), np.float32)
    w[0, :] = 1e-39
    for quantized in (reference.quantize_blocks_int4(w, 32), reference.quantize_channels_int4(w)):
        assert not quantized.scale.any()
        assert not quantized.q.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    w = np.ones((2, 32), np.float32)
    w[1, 5] = bad
    with pytest.raises(ValueError, match="NaN or Inf"):
        reference.quantize_channels_int4(w)


@pytest.mark.parametrize("group", [0, 16, 48, 64, -32, 2048])
def test_block_lengths_that_do_not_fit_are_refused(group):
    with pytest.raises(ValueError, match="multiple of 32"):
        reference.quantize_blocks_int4(np.ones((2, 2048 if group > 96 else 96), np.float32), group)


def unpacked(arch: str, body: np.ndarray, n: int, k: int) -> np.ndarray:
    """Values [n, k] from nibbles, one at a time, as the table in packing.py says."""
    rule = formats.INT4_CHANNELS.layout(arch)
    q = np.zeros((n, k), np.int8)
    for (row, j), _ in np.ndenumerate(q):
        step, i = divmod(j, rule.kr)
        at = (step // 2 * rule.nr + row % rule.nr) * rule.kr + i
        nibble = int(body[row // rule.nr, at]) >> 4 * (step % 2) & 15
        signed = step % 2 == 1 and not rule.biased
        q[row, j] = (nibble ^ 8 if signed else nibble) - 8
    return q


@pytest.mark.parametrize("arch", ARCHES)
def test_packed_channels_are_where_the_table_says(arch):
    rule, n, k = formats.INT4_CHANNELS.layout(arch), 19, 43
    w = reference.quantize_channels_int4(
        np.random.default_rng(1).standard_normal((n, k)).astype(np.float32)
    )
    panels = packing.pack_rhs_qs4c(rule, w).reshape(-(-n // rule.nr), -1)
    body = rule.nr * 64 // 2
    np.testing.assert_array_equal(unpacked(arch, panels, n, k), w.q)
    sums = panels[:, body : body + 4 * rule.nr].copy().view(np.int32).reshape(-1)
    np.testing.assert_array_equal(sums[:n], w.q.sum(axis=1, dtype=np.int32))
    scales = panels[:, body + 4 * rule.nr : body + 8 * rule.nr].copy().view(np.float32)
    np.testing.assert_array_equal(scales.reshape(-1)[:n], w.scale)


@pytest.mark.parametrize("arch", ARCHES)
def test_packed_blocks_are_where_the_table_says(arch):
    rule, n, k = formats.INT4_BLOCKS.layout(arch), 19, 96
    w = reference.quantize_blocks_int4(
        np.random.default_rng(1).standard_normal((n, k)).astype(np.float32), 32
    )
    panels = packing.pack_rhs_qs4b(rule, w).reshape(-(-n // rule.nr), -1)
    body, scales = rule.nr * k // 2, 2 * rule.nr * 3
    at = np.arange(body + scales).reshape(3, -1)  # places of nibbles, of scales
    at = np.split(at, [body // 3], axis=1) if rule.biased else np.split(at.ravel(), [body])
    np.testing.assert_array_equal(unpacked(arch, panels[:, at[0].ravel()], n, k), w.q)
    got = panels[:, at[1].ravel()].copy().view(np.uint16).reshape(-1, 3, rule.nr)
    if not rule.biased:
        got = got[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
    np.testing.assert_array_equal(got.transpose(0, 2, 1).reshape(-1, 3)[:n], w.scale)
    shifts = panels[:, body + scales : body + scales + 4 * rule.nr].copy().view(np.float32)
    np.testing.assert_array_equal(shifts.reshape(-1)[:n], w.shift)
    assert panels.shape[1] % 64 == 0


# ---- kernels --------------------------------------------------------------------------------


def operands(shape: tuple[int, int, int], group: int, seed: int, extreme: str = ""):
    """Quantized rows and weights; ``extreme`` chooses values at the ends of the range."""
    m, n, k = shape
    rng = np.random.default_rng(seed)
    rows = reference.quantize_rows(rng.standard_normal((m, k)).astype(np.float32))
    w = rng.standard_normal((n, k)).astype(np.float32)
    quantize = reference.quantize_channels_int4
    weights = reference.quantize_blocks_int4(w, group) if group else quantize(w)
    if extreme == "signs":  # products of both signs at the very ends
        rows.q[:] = rng.choice(np.array([-128, 127], np.int8), (m, k))
        weights.q[:] = rng.choice(np.array([-8, 7], np.int8), (n, k))
    elif extreme.startswith("reach"):  # sums of columns at the end of what a level converts
        weights.q[:] = 0
        full, rest = divmod(int(extreme[6:]), 7)
        weights.q[:, :full], weights.q[:, full] = 7, rest
        rows.q[:], rows.zp[:] = 127, -128
        rows.q[::2], rows.zp[::2] = -128, 127
    elif extreme == "not finite":
        rows.scale[::2] = np.nan
    elif extreme:  # every product is as large as possible, sums too
        rows.q[:] = -128
        rows.zp[:] = 127
        weights.q[:] = 7 if extreme == "high" else -8
    return rows, weights


Step = tuple[tuple[int, int, int], int, Options, str]


def calls_for(arch: str, generic: str, plan: list[Step]):
    """Calls with the results they must give."""
    lhs, rhs = formats.INT8.layout(arch), OF_KERNEL[generic].layout(arch)
    pack = packing.pack_rhs_qs4b if generic == "go_gemm_qs4b" else packing.pack_rhs_qs4c
    gemm = reference.gemm_qs4b if generic == "go_gemm_qs4b" else reference.gemm_qa8
    for i, (shape, group, options, extreme) in enumerate(plan):
        a, w = operands(shape, group, i, extreme)
        packed = pack(rhs, w)
        assert packed.nbytes == layouts.packed_rhs_bytes(rhs, *shape[1:], group=group or 1)
        call = make_call(shape, options, i, {"lhs": packing.pack_lhs_qa8r(lhs, a), "rhs": packed})
        call.case.args.group = group
        yield call, call.finish(gemm(a, w, call.bias), bias_done=True)


def few_rows_plan(generic: str) -> list[Step]:
    """One to four rows of many widths, options in turn, then extreme operands."""
    depths = ((32, 32), (64, 64), (96, 32), (256, 256), (576, 64), (1120, 32), (1024, 512))
    plan = []
    for i, (m, n, k) in enumerate(FEW_ROWS):
        k, group = (k, CHANNEL) if generic == "go_gemm_qs4c" else depths[i % len(depths)]
        plan.append(((m, n, k), group, OPTIONS[i % len(OPTIONS)], ""))
    for m in (1, 2, 3, 4):
        for e in ("signs", "high", "low"):
            for k, group in ((1024, 32), (1024, 256), (1024, 512), (2048, 1024)):
                group = CHANNEL if generic == "go_gemm_qs4c" else group
                plan.append(((m, 17, k), group, OPTIONS[1], e))
        plan.append(((m, 9, 0), CHANNEL if generic == "go_gemm_qs4c" else 32, OPTIONS[1], ""))
    return plan


def full_plan(generic: str) -> list[Step]:
    """All shapes, options in turn, then extreme operands."""
    extremes = ("signs", "high", "low", "not finite")
    if generic == "go_gemm_qs4c":
        plan = [(s, CHANNEL, OPTIONS[i % len(OPTIONS)], "") for i, s in enumerate(SHAPES)]
        plan += [((13, 35, 70), CHANNEL, options, "") for options in OPTIONS]
        for e in extremes:
            plan += [
                ((13, 33, 1999), CHANNEL, OPTIONS[0], e),
                ((8, 16, 64), CHANNEL, OPTIONS[1], e),
            ]
        # 255 * 16 * 1028 < 2^22 < 255 * 16 * 1029: there the conversion of some levels changes.
        plan += [((9, 17, 149), CHANNEL, OPTIONS[1], f"reach {r}") for r in (1028, 1029)]
        # 255 * 16448 < 2^22 < 255 * 16449, the same for those that remove the factor of 16.
        plan += [((9, 17, 2400), CHANNEL, OPTIONS[1], f"reach {r}") for r in (16448, 16449)]
        plan += [((141, 19, 2080), CHANNEL, OPTIONS[i], "") for i in (1, 3)]
    else:
        depths = ((32, 32), (64, 64), (96, 32), (128, 128), (256, 128), (576, 64), (1120, 32))
        plan = []
        for i, (m, n, _) in enumerate(SHAPES):
            k, group = depths[i % len(depths)]
            plan.append(((m, n, k), group, OPTIONS[i % len(OPTIONS)], ""))
        plan.append(((3, 5, 0), 32, OPTIONS[1], ""))
        plan += [((13, 35, 192), 64, options, "") for options in OPTIONS]
        for e in extremes:
            for k, group in ((1024, 32), (1024, 256), (1024, 512), (672, 96)):
                plan += [((13, 33, k), group, OPTIONS[1], e)]
        plan += [((141, 19, 2304), 96, OPTIONS[1], ""), ((9, 35, 4096), 1024, OPTIONS[3], "")]
        # Beyond the depths that x86_64 multiplies at a time: 4096, and 32768 of four rows.
        plan += [((7, 35, 4224), 128, OPTIONS[2], ""), ((4, 150, 33024), 96, OPTIONS[3], "")]
    k, group = (64, CHANNEL) if generic == "go_gemm_qs4c" else (128, 64)
    plan += [((m, 48, k), group, OPTIONS[1], "") for m in range(1, 6)]
    plan += [((17, 32, k), group, Options(act="relu", bias=bias), "") for bias in (False, True)]
    return plan


def run_plan(runner: Runner, generic: str, plan: list[Step]) -> None:
    made = list(calls_for(runner.level.arch, generic, plan))
    results = run_cases(runner, generic, [call.case for call, _ in made])
    for (call, want), result, step in zip(made, results, plan, strict=True):
        check(call, call.output(result), want, str(step))


@pytest.mark.parametrize("generic", GENERICS)
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_results_are_the_reference_bit_for_bit(where, generic):
    run_plan(require(where), generic, full_plan(generic))


@pytest.mark.parametrize("generic", GENERICS)
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_few_rows_are_the_reference_bit_for_bit(where, generic):
    run_plan(require(where), generic, few_rows_plan(generic))


@pytest.mark.parametrize("where", ["aarch64/neon_i8mm", "aarch64/sve2@128"])
def test_rows_longer_than_what_is_prepared(where):
    plan = [((m, 9, 24608), CHANNEL, OPTIONS[1], "signs") for m in (1, 4)]
    run_plan(require(where), "go_gemm_qs4c", plan)


@pytest.mark.parametrize("generic", GENERICS)
def test_vectors_longer_than_a_panel_step(generic):
    """At 512 bits one vector covers all eight columns and the second is inactive."""
    run_plan(replace(require("aarch64/sve2@128"), vl=512), generic, full_plan(generic))


@pytest.mark.parametrize("generic", GENERICS)
@pytest.mark.parametrize("where", NATIVE_IDS)
def test_gcc_gives_the_same(where, generic):
    run_plan(require_gcc(where), generic, full_plan(generic))


@pytest.mark.parametrize("generic", GENERICS)
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_threads_do_not_change_a_bit(where, generic):
    runner, results = require(where), []
    group = CHANNEL if generic == "go_gemm_qs4c" else 32
    for rows in (61, 3):
        for threads in (1, 2, 3):
            options = Options(act="silu", bias=True, threads=threads)
            plan = [((rows, 157, 96), group, options, "")]
            call, want = next(calls_for(runner.level.arch, generic, plan))
            results.append(call.output(run_cases(runner, generic, [call.case])[0]))
            check(call, results[-1], want, f"{rows} rows, {threads} threads")
    for start in (0, 3):
        assert results[start].tobytes() == results[start + 1].tobytes()
        assert results[start].tobytes() == results[start + 2].tobytes()


@pytest.mark.parametrize("generic", GENERICS)
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_a_row_does_not_depend_on_its_neighbours(where, generic):
    """One row alone, in a batch of four, and in a large one: different paths, the same bits."""
    runner, arch = require(where), require(where).level.arch
    group = CHANNEL if generic == "go_gemm_qs4c" else 64
    a, w = operands((19, 40, 256), group, 7)
    lhs, rhs = formats.INT8.layout(arch), OF_KERNEL[generic].layout(arch)
    packed = (packing.pack_rhs_qs4b if group else packing.pack_rhs_qs4c)(rhs, w)
    cases, calls = [], []
    for m in (1, 2, 3, 4, 5, 19):
        some = reference.QuantizedRows(a.q[:m], a.zp[:m], a.scale[:m])
        pointers = {"lhs": packing.pack_lhs_qa8r(lhs, some), "rhs": packed}
        calls.append(make_call((m, 40, 256), Options(), 0, pointers))
        calls[-1].case.args.group = group
        cases.append(calls[-1].case)
    outputs = [
        call.output(result)
        for call, result in zip(calls, run_cases(runner, generic, cases), strict=True)
    ]
    for output in outputs[:-1]:
        assert output.tobytes() == outputs[-1][: len(output)].tobytes()


@functools.cache
def activations(where: str, generic: str) -> bytes:
    """Results of every activation on one level, as bytes."""
    runner = require(where)
    group = CHANNEL if generic == "go_gemm_qs4c" else 32
    plan = [((9, 40, 64), group, options, "") for options in OPTIONS]
    made = list(calls_for(runner.level.arch, generic, plan))
    results = run_cases(runner, generic, [call.case for call, _ in made])
    return b"".join(
        call.output(result).tobytes() for (call, _), result in zip(made, results, strict=True)
    )


@pytest.mark.parametrize("generic", GENERICS)
@pytest.mark.parametrize("where", [i for i in LEVEL_IDS if i != "x86_64/scalar"])
def test_activations_have_the_same_bits_on_every_level(where, generic):
    assert activations(where, generic) == activations("x86_64/scalar", generic)


@pytest.mark.parametrize(
    ("where", "generic", "mutation"),
    [
        ("x86_64/scalar", "go_gemm_qs4c", ("k < depth", "k + 2 * KR < depth")),
        ("x86_64/scalar", "go_gemm_qs4b", ("(float)row.neg_zp", "(float)(row.neg_zp + 1)")),
        ("aarch64/scalar", "go_gemm_qs4b", ("panel + b * w->block", "panel")),
        ("x86_64/avx2", "go_gemm_qs4c", ("(step, CHUNK / 4)", "(step, CHUNK / 8)")),
        ("x86_64/avx2", "go_gemm_qs4b", ("_mm256_set1_epi8(15)", "_mm256_set1_epi8(7)")),
        ("x86_64/avx512_vnni", "go_gemm_qs4c", ("_mm512_srai_epi32(high, 4)", "high")),
        ("x86_64/avx512_vnni", "go_gemm_qs4b", ("acc[r][0][0] = sum[r]", "acc[r][0][0] = sum[0]")),
        *(
            ("aarch64/neon_dotprod", generic, (DOT_SWEEP, f"{NEON}#define {wrong}\n{DOT_SWEEP}"))
            for generic, wrong in (
                ("go_gemm_qs4c", "vsubq_s8(low, bias) low"),
                ("go_gemm_qs4b", "vandq_s8(pairs, mask) pairs"),
                ("go_gemm_qs4b", "vsubq_f32(sum, bias) vaddq_f32(sum, bias)"),
                ("go_gemm_qs4c", "vpaddq_s32(x, y) x"),
            )
        ),
        *(
            ("aarch64/neon_i8mm", generic, (QS4_GEMV, f"{NEON}#define {wrong}\n{QS4_GEMV}"))
            for generic, wrong in (
                ("go_gemm_qs4c", "vmaxvq_s32(reach) 0"),
                ("go_gemm_qs4c", "vornq_s8(low, pairs) vorrq_s8(low, pairs)"),
                ("go_gemm_qs4b", "vpaddq_f32(x, y) x"),
                ("go_gemm_qs4b", "vuzp2q_f32(x, y) vuzp1q_f32(x, y)"),
                ("go_gemm_qs4c", "vsubq_s8(low, bias) low"),
                ("go_gemm_qs4b", "vzip2q_u64(low, high) vzip1q_u64(low, high)"),
                ("go_gemm_qs4b", "vandq_s8(pairs, mask) pairs"),
            )
        ),
    ],
)
def test_a_broken_kernel_is_noticed(where, generic, mutation):
    broken = replace(require(where), mutation=mutation)
    build_host(broken.level, generic, mutation)  # it must compile
    with pytest.raises(AssertionError, match=r"(?i)not equal"):
        run_plan(broken, generic, full_plan(generic))
