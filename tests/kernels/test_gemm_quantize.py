"""GEMMs that quantize their results: the panels of the pack kernel for what they would store."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from gemm_cases import Call, Options, make_call
from harness import LEVEL_IDS, Case, Runner, require, run_cases

from graphopt.kernels import formats, layouts, packing, reference
from graphopt.kernels.scratch import quantized_result_bytes, quantized_result_stride

GENERICS = ("go_gemm_qa8", "go_gemm_qs4c", "go_gemm_qs4b", "go_gemm_bf16", "go_gemm_f32")
THREADS = (1, 2, 5)
#: One row more and less than a tile and a panel of every level, and primes; columns that fill
#: neither a tile nor the 16 that are stored at once nor the 32 of a panel's depth.
SHAPES = (
    (1, 33, 64),
    (3, 16, 96),
    (4, 250, 32),
    (5, 17, 64),
    (6, 1, 32),
    (7, 100, 64),
    (8, 32, 32),
    (9, 31, 96),
    (11, 48, 64),
    (12, 7, 32),
    (13, 65, 160),
    (31, 129, 64),
    (32, 16, 32),
    (33, 47, 64),
    (127, 33, 32),
    (461, 40, 64),  # more rows than one or two threads have buffers for
    (70, 2100, 32),  # wide: buffers of fewer rows
    (67, 5003, 32),  # of as many as the tallest tile
)
OPTIONS = (
    Options(),
    Options(act="relu", bias=True),
    Options(bias=True, residuals=("f32",)),
    Options(act="silu", factor="bf16", residuals=("bf16", "f32")),
)


def operands(generic: str, arch: str, shape: tuple[int, int, int], seed: int) -> dict:
    """Packed random operands; with several rows some hold NaN, infinities or nothing."""
    m, n, k = shape
    rng = np.random.default_rng(seed)
    a, w = (rng.standard_normal((rows, k)).astype(np.float32) for rows in (m, n))
    if m > 4:
        a[m // 2], a[m - 2, k // 3], a[1, 0] = 0, np.nan, -np.inf
    if generic == "go_gemm_f32":
        rhs = packing.pack_rhs_f32(formats.F32.layout(arch), w)
        return {"lhs": a, "lhs_stride": k, "rhs": rhs}
    if generic == "go_gemm_bf16":
        rule = formats.BF16.layout(arch)
        lhs, rhs = reference.bf16_from_f32(a), reference.bf16_from_f32(w)
        return {"lhs": packing.pack_lhs_bf16(rule, lhs), "rhs": packing.pack_rhs_bf16(rule, rhs)}
    lhs = packing.pack_lhs_qa8r(formats.INT8.layout(arch), reference.quantize_rows(a))
    rule = next(f for f in formats.FORMATS if f.kernel == generic).layout(arch)
    if generic == "go_gemm_qs4b":
        rhs = packing.pack_rhs_qs4b(rule, reference.quantize_blocks_int4(w, 32))
    elif generic == "go_gemm_qs4c":
        rhs = packing.pack_rhs_qs4c(rule, reference.quantize_channels_int4(w))
    else:
        rhs = packing.pack_rhs_qs8c(rule, reference.quantize_channels(w))
    return {"lhs": lhs, "rhs": rhs}


def quantizing(call: Call, arch: str, threads: int) -> Case:
    """The same call with scratch memory and panels in place of its destination."""
    args = type(call.case.args).from_buffer_copy(call.case.args)
    m, n = args.m, args.n
    args.dst_stride = quantized_result_stride(n)
    scratch = np.full(quantized_result_bytes(m, n, threads) // 4, np.nan, np.float32)
    size = layouts.packed_lhs_bytes(formats.INT8.layout(arch), m, n)
    panels = np.full(size, 0x5A, np.uint8)
    pointers = call.case.pointers | {"dst": scratch, "packed": panels}
    return Case(args, pointers, ("dst", "packed"), threads)


@dataclass(frozen=True)
class Made:
    """A call that stores its results, and those that quantize them."""

    call: Call
    quantizing: list[Case]


def make(generic: str, arch: str, shapes=SHAPES, threads=THREADS) -> list[Made]:
    """All shapes with the options in turn."""
    made = []
    for i, shape in enumerate(shapes):
        given = operands(generic, arch, shape, i)
        call = make_call(shape, OPTIONS[i % len(OPTIONS)], i, given)
        call.case.args.group = 32 if generic == "go_gemm_qs4b" else 0
        made.append(Made(call, [quantizing(call, arch, count) for count in threads]))
    return made


def check(runner: Runner, generic: str, made: list[Made]) -> None:
    """What the pack kernel would make of the stored results is there byte for byte."""
    arch = runner.level.arch
    cases = [case for one in made for case in (one.call.case, *one.quantizing)]
    results = iter(run_cases(runner, generic, cases))
    for one in made:
        rows = reference.quantize_rows(one.call.output(next(results)))
        want = packing.pack_lhs_qa8r(formats.INT8.layout(arch), rows)
        for case in one.quantizing:
            shape = (case.args.m, case.args.n, case.args.k)
            label = f"{shape} on {case.threads} threads"
            np.testing.assert_array_equal(next(results)["packed"], want, label)


@pytest.mark.parametrize("generic", GENERICS)
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_panels_are_those_of_the_stored_results(where, generic):
    runner = require(where)
    check(runner, generic, make(generic, runner.level.arch))


@pytest.mark.parametrize("vl", [128, 256])
def test_other_vector_lengths(vl):
    for level, generic in (("sve2", "go_gemm_qa8"), ("sme", "go_gemm_qa8"), ("sme", "go_gemm_f32")):
        runner = replace(require(f"aarch64/{level}@128"), vl=vl)
        check(runner, generic, make(generic, "aarch64", SHAPES[4::3]))


@pytest.mark.parametrize("where", [w for w in LEVEL_IDS if w.endswith(("scalar", "neon_i8mm"))])
def test_no_rows_are_quantized_to_nothing(where):
    runner = require(where)
    made = make("go_gemm_qa8", runner.level.arch, ((0, 33, 64),), (1, 2))
    check(runner, "go_gemm_qa8", made)


def test_scratch_is_the_result_or_a_buffer_for_each_thread():
    assert quantized_result_stride(250) == 272
    assert quantized_result_stride(512) == 528  # 33 lines
    assert quantized_result_bytes(100, 250, 2) == 4 * 272 * 100
    assert quantized_result_bytes(6000, 250, 2) == 4 * 272 * 256
    assert quantized_result_bytes(6000, 2048, 3) == 4 * 2064 * 189
    assert quantized_result_bytes(6000, 20000, 1) == 4 * 20016 * 32
