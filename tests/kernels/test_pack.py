"""Packing kernels against numpy, byte for byte."""

from dataclasses import replace

import numpy as np
import pytest
from harness import LEVEL_IDS, Case, require, run_cases

from graphopt.kernels import formats, layouts, packing, reference
from graphopt.kernels.arguments import BF16, F32, PackLhsArgs
from graphopt.kernels.scratch import row_values_scratch_bytes

SHAPES = [
    (m, k) for m in (1, 7, 8, 9, 17) for k in (1, 15, 16, 17, 31, 32, 33, 47, 48, 64, 65, 560)
] + [(0, 5), (3, 0), (0, 0), (41, 257)]


def rows(m: int, k: int, seed: int) -> np.ndarray:
    """Rows of many magnitudes: normal, one-signed, constant, zero, tiny, huge, not finite."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((m, k)).astype(np.float32)
    if m >= 7 and k:
        x[0] = np.abs(x[0]) + 1
        x[1] = -np.abs(x[1]) * 1e20
        x[2] = 3.25
        x[3] = 0
        x[4] *= 1e-32
        x[5, k // 2] = np.nan
        x[6, k - 1] = -np.inf
    if m >= 9 and k > 1:
        x[7] = np.clip(x[7], -2, 2) * np.float32(1e38)
        x[7, :2] = 3e38, -3e38  # the range overflows
        x[8] = np.round(x[8] * 4) / 2  # many ties
        x[8, :2] = 127.5, -127.5
    if m >= 17 and k:
        x[9] = -0.0
        x[10, 0] = np.inf
        x[11] = 1e-40
        x[12] = -5.0
        x[13].view(np.uint32)[[0, -1]] = 0xFFFFFFFF, 0x7FABCDEF  # NaNs with a payload
    return x


def strided(x: np.ndarray, stride: int) -> np.ndarray:
    """Flat memory that holds the rows of ``x`` with a row stride, ending with the last row."""
    m, k = x.shape
    memory = np.full(max(m - 1, 0) * stride + (k if m else 0), 77, x.dtype)
    for i in range(m):
        memory[i * stride : i * stride + k] = x[i]
    return memory


def pack_case(x: np.ndarray, packed_bytes: int, pad: int = 0, threads: int = 1) -> Case:
    """A packing call for rows of f32, or of bf16 bits (uint16)."""
    stride = x.shape[1] + pad
    args = PackLhsArgs(m=x.shape[0], k=x.shape[1], src_stride=stride)
    args.src_dtype = BF16 if x.dtype == np.uint16 else F32
    dst = np.full(packed_bytes, 0xEE, np.uint8)
    return Case(args, {"src": strided(x, stride), "dst": dst}, threads=threads)


def all_rows() -> list[tuple[np.ndarray, int, int]]:
    """Rows in both dtypes, row padding, threads."""
    found = []
    for i, (m, k) in enumerate(SHAPES):
        x = rows(m, k, i)
        found.append((x, i % 3, 1 + i % 3))
        found.append((reference.bf16_from_f32(x), i % 2, 1 + i % 2))
    return found


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_quantize_rows_is_the_reference_bit_for_bit(where):
    runner = require(where)
    layout = formats.INT8.layout(runner.level.arch)
    cases, expected = [], []
    for x, pad, threads in all_rows():
        wide = reference.f32_from_bf16(x) if x.dtype == np.uint16 else x
        expected.append(packing.pack_lhs_qa8r(layout, reference.quantize_rows(wide)))
        size = layouts.packed_lhs_bytes(layout, *x.shape)
        assert size == expected[-1].nbytes
        cases.append(pack_case(x, size, pad, threads))
    for case, want, got in zip(
        cases, expected, run_cases(runner, "go_quantize_rows", cases), strict=True
    ):
        np.testing.assert_array_equal(got["dst"], want, f"m={case.args.m} k={case.args.k}")


#: In place of the kernel one that gives it the rows of src as if they were computed.
ENTRY = "void GO_NAME(GO_PACK_QA8R)(go_team *team, const go_pack_lhs_args *args) {"
COMPUTED = """
static void values(const void *operands, int64_t row, int64_t first, int64_t end, float *y) {
    const go_pack_lhs_args *from = operands;
    const void *x = go_at(from->src, row * from->src_stride, from->src_dtype);
    for (int64_t i = first; i < end; i++) y[i] = go_load_as(x, i, from->src_dtype, 1)[0];
}

static void kernel(go_team *team, const go_pack_lhs_args *args);

void GO_NAME(GO_PACK_QA8R)(go_team *team, const go_pack_lhs_args *args) {
    go_pack_lhs_args computed = {.m = args->m, .k = args->k, .dst = args->dst, .values = values};
    computed.operands = args;
    computed.scratch = args->scratch;
    kernel(team, &computed);
}

static void kernel(go_team *team, const go_pack_lhs_args *args) {"""
#: Rows that several threads compute together, and others just not.
WIDE = [(1, 1024), (1, 1025), (2, 1500), (3, 4099), (7, 1100), (8, 1100), (11, 1040), (13, 2048)]


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_computed_rows_are_quantized_like_rows_in_memory(where):
    runner = replace(require(where), mutation=(ENTRY, COMPUTED))
    layout = formats.INT8.layout(runner.level.arch)
    wide = [(rows(m, k, m), 1, threads) for m, k in WIDE for threads in (1, 2, 3, 8)]
    cases, expected = [], []
    for x, pad, threads in [*all_rows(), *wide]:
        numbers = reference.f32_from_bf16(x) if x.dtype == np.uint16 else x
        expected.append(packing.pack_lhs_qa8r(layout, reference.quantize_rows(numbers)))
        case = pack_case(x, expected[-1].nbytes, pad, threads)
        scratch = np.zeros(row_values_scratch_bytes(x.shape[1], threads), np.uint8)
        case.pointers["scratch"] = scratch
        cases.append(replace(case, writes=("dst", "scratch")))
    for case, want, got in zip(
        cases, expected, run_cases(runner, "go_quantize_rows", cases), strict=True
    ):
        message = f"m={case.args.m} k={case.args.k} threads={case.threads}"
        np.testing.assert_array_equal(got["dst"], want, message)


@pytest.mark.parametrize("where", LEVEL_IDS)
@pytest.mark.parametrize("scheme", ["qa8r", "bf16"])
def test_threads_share_panels(where, scheme):
    """With more threads than panels two of them fill one, and one of these what is left of it."""
    runner = require(where)
    layout = formats.ROWS[scheme].layout(runner.level.arch)
    cases, expected = [], []
    for m in range(1, 25):
        x = rows(m, 40, m)
        if scheme == "qa8r":
            expected.append(packing.pack_lhs_qa8r(layout, reference.quantize_rows(x)))
        else:
            expected.append(packing.pack_lhs_bf16(layout, reference.bf16_from_f32(x)))
        cases.append(pack_case(x, expected[-1].nbytes, threads=8))
    generic = "go_quantize_rows" if scheme == "qa8r" else "go_pack_bf16"
    for want, got in zip(expected, run_cases(runner, generic, cases), strict=True):
        np.testing.assert_array_equal(got["dst"], want)


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_pack_bf16_is_the_reference_bit_for_bit(where):
    runner = require(where)
    layout = formats.BF16.layout(runner.level.arch)
    cases, expected = [], []
    for x, pad, threads in all_rows():
        bits = x if x.dtype == np.uint16 else reference.bf16_from_f32(x)
        expected.append(packing.pack_lhs_bf16(layout, bits))
        size = layouts.packed_lhs_bytes(layout, *x.shape)
        assert size == expected[-1].nbytes
        cases.append(pack_case(x, size, pad, threads))
    for case, want, got in zip(
        cases, expected, run_cases(runner, "go_pack_bf16", cases), strict=True
    ):
        np.testing.assert_array_equal(got["dst"], want, f"m={case.args.m} k={case.args.k}")
