"""Attention to a cache: items of unequal lengths, keys and values of int8."""

import numpy as np
import pytest
from across import bits, run_everywhere
from harness import LEVEL_IDS, Case, require, run_cases
from test_attention import Spec, element_strides, error_bound, values

from graphopt.kernels import reference_ops
from graphopt.kernels.arguments import BF16, F32, AttentionArgs
from graphopt.kernels.reference import bf16_from_f32, quantize_heads
from graphopt.kernels.scratch import attention_scratch_bytes

HEADS, KV_HEADS, DIM, ROWS, MOST = 6, 2, 64, 300, 11
#: Rows of each item; the last one ends where the memory does.
STARTS, ENDS = np.array([0, 1, 5]), np.array([37, 12, ROWS])
KINDS = [(F32, False), (BF16, False), (BF16, True)]
KIND_IDS = ["f32", "bf16", "int8"]


def stored(x, dtype):
    return bf16_from_f32(x) if dtype == BF16 else x


def make_cache(dtype, int8):
    """Keys and values as the kernel reads them, their scales, and the numbers they stand for.

    What belongs to no item is NaN.
    """
    rng = np.random.default_rng(3)
    shape = (len(ENDS), ROWS, KV_HEADS, DIM)
    pointers, numbers = {}, {}
    for name in "kv":
        x = rng.normal(0, 1, shape) * rng.uniform(0.1, 2, (*shape[:3], 1))
        for b, (start, end) in enumerate(zip(STARTS, ENDS, strict=True)):
            x[b, :start] = x[b, end:] = np.nan
        x = x.astype(np.float32)
        if int8:
            heads = quantize_heads(x)
            pointers[name] = heads.q
            pointers[f"{name}_scale"] = np.ascontiguousarray(heads.scale.swapaxes(1, 2))
            numbers[name] = heads.scale[..., None].astype(np.float64) * heads.q
        else:
            pointers[name] = stored(x, dtype)
            numbers[name] = values(pointers[name])
    return pointers, numbers


def make_case(tq, dtype, int8, items=(0, 1, 2), padding=None):
    """The last `tq` of the queries of some items, of which some may be padding, and the cache."""
    chosen = list(items)
    starts = STARTS if padding is None else ENDS - tq + padding
    rng = np.random.default_rng(4)
    q = stored(rng.normal(0, 1, (len(ENDS), MOST, HEADS, DIM)).astype(np.float32), dtype)
    pointers, numbers = make_cache(dtype, int8)
    pointers = {name: np.ascontiguousarray(x[chosen]) for name, x in pointers.items()}
    pointers["q"] = np.ascontiguousarray(q[chosen, MOST - tq :])
    pointers["dst"] = np.full((len(chosen), tq, HEADS, DIM), 7, np.float32)
    pointers["past"] = (ENDS - tq)[chosen].astype(np.int64)
    pointers["start"] = starts[chosen].astype(np.int64)
    tk = int((ENDS - starts)[chosen].max())
    size = attention_scratch_bytes(len(chosen), KV_HEADS, tk, DIM, DIM, 3)
    pointers["scratch"] = np.full(size // 4, np.nan, np.float32)
    args = AttentionArgs(
        batch=len(chosen),
        heads=HEADS,
        kv_heads=KV_HEADS,
        tq=tq,
        tk=tk,
        dim=DIM,
        dim_v=DIM,
        scale=0.125,
        causal=1,
        unseen_zero=1,
        dtype=dtype,
        dst_stride=element_strides(pointers["dst"]),
        **{f"{name}_stride": element_strides(pointers[name]) for name in "qkv"},
    )
    args.scale_stride = (KV_HEADS * ROWS, ROWS)
    return Case(args, pointers, ("dst", "scratch"), align={"scratch": 64}), numbers


@pytest.mark.parametrize(("dtype", "int8"), KINDS, ids=KIND_IDS)
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_matches_float64(where, dtype, int8):
    runner = require(where)
    made = [make_case(tq, dtype, int8) for tq in (1, 4, MOST)]
    made.append(make_case(MOST, dtype, int8, padding=3))
    as_scalar = dtype == F32 or "bf16" not in runner.level.features
    key = f"attention cached {dtype} {int8}"
    cases = [case for case, _ in made]
    results = run_everywhere(runner, "go_attention", cases, key, as_scalar)
    for (case, numbers), out, padding in zip(made, results, (0, 0, 0, 3), strict=True):
        tq = case.args.tq
        for b, (start, end) in enumerate(zip(case.pointers["start"], ENDS, strict=True)):
            q = values(case.pointers["q"][b : b + 1])
            k, v = (numbers[name][b : b + 1, start:end] for name in "kv")
            spec = Spec(1, HEADS, KV_HEADS, tq, end - start, DIM, DIM, causal=True, dtype=dtype)
            expected = reference_ops.attention(q, k, v, 0.125, causal=True, unseen_zero=True)
            bound = error_bound(spec, case, q, k, v, None)[:, padding:]
            got = out["dst"][b : b + 1]
            assert np.all(np.abs(got - expected)[:, padding:] <= bound), (tq, b)
            assert not got[:, :padding].any()


@pytest.mark.parametrize(("dtype", "int8"), KINDS, ids=KIND_IDS)
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_bits_of_an_item_alone_and_of_a_longer_call(where, dtype, int8):
    runner = require(where)
    counts = (1, 3, MOST)
    cases = [make_case(tq, dtype, int8)[0] for tq in counts]
    cases += [make_case(2, dtype, int8, (item,))[0] for item in range(len(ENDS))]
    results = [out["dst"] for out in run_cases(runner, "go_attention", cases)]
    whole = results[2]
    for tq, got in zip(counts, results, strict=False):
        assert np.array_equal(bits(got), bits(np.ascontiguousarray(whole[:, MOST - tq :]))), tq
    for item, got in enumerate(results[3:]):
        last = np.ascontiguousarray(whole[item : item + 1, MOST - 2 :])
        assert np.array_equal(bits(got), bits(last)), item


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_int8_without_rounding_has_the_bits_of_bf16(where):
    """Scales that are powers of two: bf16 holds the same keys and values."""
    cases = []
    for tq in (2, MOST):
        case, _ = make_case(tq, BF16, True)
        for name in "kv":
            case.pointers[f"{name}_scale"][...] = 2.0**-5
        cases.append(case)
        plain = {n: x for n, x in case.pointers.items() if not n.endswith("_scale")}
        for name in "kv":
            plain[name] = bf16_from_f32(case.pointers[name].astype(np.float32) / 32)
        cases.append(Case(case.args, plain, case.writes, align=case.align))
    results = run_cases(require(where), "go_attention", cases)
    for narrow, plain in zip(results[::2], results[1::2], strict=True):
        assert np.array_equal(bits(narrow["dst"]), bits(plain["dst"]))
