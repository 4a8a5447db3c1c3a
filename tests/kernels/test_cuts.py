"""How work is cut into tasks: every cut is one, and threads end at nearly the same time."""

import dataclasses
import itertools
import platform
from ctypes import Structure, c_int, c_size_t, c_void_p
from pathlib import Path

import numpy as np
from harness import require, run_kernel

from graphopt.kernels import registry
from graphopt.kernels.scratch import quantized_result_bytes, quantized_result_stride

LINES, ROWS, GEMM, OWNED = range(4)
FRAMES = 167  # 10 s of speech in Paraformer


class ProbeArgs(Structure):
    """cut_probe_args of cut_probe.c."""

    _fields_ = (("count", c_size_t), ("kind", c_int), ("src", c_void_p), ("dst", c_void_p))


def cuts(kind, rows):
    """What cut_probe.c answers to rows of five numbers: int[len(rows), 2]."""
    runner = require(f"{platform.machine()}/scalar")
    source = str(Path(__file__).with_name("cut_probe.c"))
    probe = registry.Kernel("cut_probe", "cut_probe", source)
    runner = dataclasses.replace(runner, level=dataclasses.replace(runner.level, kernels=(probe,)))
    src = np.array(rows, np.uint64)
    pointers = {"src": src, "dst": np.zeros((len(src), 2), np.uint64)}
    args = ProbeArgs(count=len(src), kind=kind)
    return run_kernel(runner, "cut_probe", args, pointers)["dst"].astype(np.int64)


def ceil_div(a, b):
    return -(-a // b)


def makespan(threads, lines, units, step, fixed=0):
    """Sixteenths of a unit that the thread with most tasks is busy."""
    return ceil_div(lines * ceil_div(units, step), threads) * (16 * step + fixed)


def test_a_cut_is_one_and_costs_what_it_says():
    rng = np.random.default_rng(0)
    rows = [
        [rng.integers(2, 129), rng.integers(1, 70), rng.integers(1, 300), rng.integers(1, 300), f]
        for f in rng.integers(0, 64, 2000)
    ]
    for (threads, lines, units, most, fixed), (step, cost) in zip(
        rows, cuts(LINES, rows), strict=True
    ):
        assert 1 <= step <= most
        assert step <= units
        true_cost = makespan(threads, lines, units, step, fixed)
        assert true_cost - true_cost // 32 <= cost <= true_cost, (
            threads,
            lines,
            units,
            most,
            fixed,
        )


def test_few_cuts_are_far_from_the_best():
    """Of all steps, where a thread has ten units or more."""
    rng = np.random.default_rng(1)
    rows = [
        [threads, rng.integers(1, 100), rng.integers(10 * threads, 2000), 2000, rng.integers(0, 4)]
        for threads in rng.integers(2, 129, 300)
    ]
    losses = []
    for (threads, lines, units, _, fixed), (step, _) in zip(rows, cuts(LINES, rows), strict=True):
        best = min(makespan(threads, lines, units, s, fixed) for s in range(1, units + 1))
        losses.append(makespan(threads, lines, units, step, fixed) / best - 1)
    assert max(losses) <= 0.2
    assert np.quantile(losses, 0.9) <= 0.07


def test_one_thread_gets_whole_lines_and_nothing_is_cut_into_nothing():
    rows = [[1, 4, 28, 100, 5], [1, 4, 28, 10, 5], [16, 0, 28, 28, 5], [16, 4, 0, 28, 5]]
    assert cuts(LINES, rows)[:, 0].tolist() == [28, 10, 1, 1]


def test_attention_of_paraformer_keeps_16_cores_busy():
    """4 heads of 167 queries, in halves of the tiles of all levels; 40 tokens for its decoder."""
    for quantum in (2, 3, 6):
        units = ceil_div(FRAMES, quantum)
        ((step, _),) = cuts(LINES, [[16, 4, units, units, 2]])
        busy = 4 * FRAMES / (makespan(16, 4, units, step) / 16 * quantum * 16)
        assert busy >= 0.95, (quantum, step)


def test_rows_of_paraformer_keep_16_cores_busy():
    """Rows alone where they lie apart (x86), in fours where eight share a panel (Arm)."""
    for unit, least in ((1, 0.94), (4, 0.86)):
        for width in (512, 2048):
            ((step, _),) = cuts(ROWS, [[16, 1, FRAMES, width, unit]])
            assert step % unit == 0
            assert FRAMES / (makespan(16, 1, FRAMES, step) / 16 * 16) >= least, (unit, width, step)


def test_products_of_paraformer_keep_cores_busy():
    """Tiles of 8 x 16 (Arm) and, in halves, 12 x 32 (AVX-512; two tiles of 16 columns)."""
    for cores, least in ((16, 0.94), (64, 0.87)):
        for n, k in ((512, 512), (1536, 512), (2048, 512), (512, 2048)):
            for unit, columns in ((8, n), (6, n // 2)):
                ((m, tiles),) = cuts(GEMM, [[cores, FRAMES, columns, k, unit]])
                tasks = ceil_div(ceil_div(FRAMES, unit), m) * ceil_div(columns // 16, tiles)
                rounds = ceil_div(tasks, cores)
                busy = FRAMES * columns / (cores * rounds * m * unit * tiles * 16)
                assert busy >= least, (cores, n, k, unit, m, tiles)


def test_columns_of_a_batch_are_read_for_many_rows():
    """Shorter tasks of 8 x 10 s would be more even, and read a panel for few rows at a time."""
    for n, k in ((512, 512), (2048, 512), (512, 2048)):
        for unit in (6, 8):
            ((m, _),) = cuts(GEMM, [[2, 8 * FRAMES, n, k, unit]])
            assert m * unit >= 100, (n, k, m, unit)


def test_rows_are_owned_where_that_leaves_no_thread_idle():
    """6000 frames of FSMN-VAD on any number of cores, 10 s of Paraformer on two, not on 16,
    where a few tiles of columns are spread more evenly; and never more rows than fit."""
    sizes = [(c, 6000, n, k) for c in (2, 16) for n, k in ((250, 140), (140, 400))]
    for unit in (6, 8):
        rows = [[*size, unit] for size in (*sizes, (2, FRAMES, 2048, 512))]
        for (cores, m, *_), (step, most) in zip(rows, cuts(OWNED, rows), strict=True):
            assert 0 < step <= most and step % unit == 0
            units = ceil_div(m, unit)
            tasks = ceil_div(units * unit, step)
            ends = [units * t // tasks for t in range(tasks + 1)]
            shares = [tasks * core // cores for core in range(cores + 1)]
            longest = max(ends[b] - ends[a] for a, b in itertools.pairwise(shares))
            assert longest <= 1.06 * units / cores, (cores, m, step)
    shared = [[16, FRAMES, 2048, 512, 8], [16, FRAMES, 512, 512, 8], [8, 12, 512, 512, 6]]
    assert cuts(OWNED, shared)[:, 0].tolist() == [0, 0, 0]


def test_more_rows_than_buffers_hold_are_owned_whatever_that_costs():
    """There is no memory for their results. The tallest tiles and widest rows have a buffer too."""
    rows = [
        [2, 10000, n, k, unit] for unit in (1, 4, 12, 16, 32) for n, k in ((60000, 1), (64, 9999))
    ]
    for (_, _, _, _, unit), (step, most) in zip(rows, cuts(OWNED, rows), strict=True):
        assert unit <= step <= most and step % unit == 0 and 32 <= most <= 128


def test_buffers_are_as_large_as_their_memory():
    strides = [quantized_result_stride(n) for n in (1, 250, 1024, 1100, 2048, 4090, 5000, 60000)]
    found = cuts(OWNED, [[1, 10000, stride, 64, 8] for stride in strides])[:, 1].tolist()
    assert found == [quantized_result_bytes(10000, s, 1) // (4 * s) for s in strides]
