"""Rotary embedding of queries and keys, and the new rows of a cache."""

import numpy as np
import pytest
from across import run_everywhere
from harness import LEVEL_IDS, Case, require

from graphopt.kernels.arguments import BF16, F32, RopeArgs
from graphopt.kernels.reference import f32_from_bf16, fma, quantize_heads

ROWS = 9
SHAPES = [(1, 1, 1, 1, 2), (2, 3, 4, 2, 16), (3, 1, 3, 3, 34), (1, 5, 2, 1, 64), (0, 3, 1, 1, 8)]


def make_case(shape, dtype, position):
    """A case for q, k and v side by side in one tensor, and its operands."""
    batch, time, heads, kv_heads, dim = shape
    rng = np.random.default_rng(sum(shape))
    total = (heads + 2 * kv_heads) * dim
    qkv = rng.normal(0, 1, (batch, time, total)).astype(np.float32)
    angle = rng.uniform(-9, 9, (batch, time, dim // 2)).astype(np.float32)
    stored = np.uint16 if dtype == BF16 else np.float32
    cache = np.full((2, batch, ROWS, kv_heads, dim), 7, stored)
    args = RopeArgs(batch, time, heads, kv_heads, dim, dst_dtype=dtype)
    for name in ("q", "k", "v"):
        setattr(args, f"{name}_stride", (time * total, total, dim))
    args.dst_stride = (time * heads * dim, heads * dim, dim)
    args.cache_stride = (ROWS * kv_heads * dim, kv_heads * dim, dim)
    parts = np.split(qkv, [heads * dim, (heads + kv_heads) * dim], axis=-1)
    pointers = {name: np.ascontiguousarray(part) for name, part in zip("qkv", parts, strict=True)}
    for name, part in pointers.items():
        width = part.shape[-1]
        setattr(args, f"{name}_stride", (time * width, width, dim))
    pointers |= {"cos": np.cos(angle), "sin": np.sin(angle)}
    pointers |= {"position": np.array(position[:batch], np.int64)}
    pointers |= {"dst": np.full((batch, time, heads, dim), 7, stored)}
    pointers |= {"keys": cache[0].copy(), "values": cache[1].copy()}
    return Case(args, pointers, ("dst", "keys", "values"))


def expected(x, case):
    """The rotation of [batch, time, heads * dim] in f64, [batch, time, heads, dim]."""
    dim = case.args.dim
    x = x.reshape(*x.shape[:2], x.shape[2] // dim, dim).astype(np.float64)
    cos, sin = (case.pointers[name][:, :, None].astype(np.float64) for name in ("cos", "sin"))
    first, second = x[..., : dim // 2], x[..., dim // 2 :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_matches_float64(where):
    """Two roundings of terms below 2 |x|; bf16 rounds once more. Other rows stay as they were."""
    cases = [make_case(s, t, (4, 0, 2)) for s in SHAPES for t in (F32, BF16)]
    results = run_everywhere(require(where), "go_rope", cases, "rope")
    for case, out in zip(cases, results, strict=True):
        narrow = case.args.dst_dtype == BF16
        bound = 2.0**-7 if narrow else 2.0**-21

        def close(got, wanted, bound=bound, narrow=narrow):
            got = f32_from_bf16(got) if narrow else got
            assert np.all(np.abs(got - wanted) <= bound * (1 + np.abs(wanted)))

        close(out["dst"], expected(case.pointers["q"], case))
        time = case.args.time
        keys = expected(case.pointers["k"], case)
        values = case.pointers["v"].reshape(keys.shape)
        for b, first in enumerate(case.pointers["position"]):
            written = slice(first, first + time)
            close(out["keys"][b, written], keys[b])
            close(out["values"][b, written], values[b])
            for name in ("keys", "values"):
                rest = np.delete(out[name][b], range(first, first + time), 0)
                assert np.all(rest == 7)


def int8_case(shape, position):
    """The case with rows of int8 and their scales."""
    case = make_case(shape, BF16, position)
    batch, _, _, kv_heads, dim = shape
    for name in ("keys", "values"):
        case.pointers[name] = np.full((batch, ROWS, kv_heads, dim), 7, np.int8)
        case.pointers[f"{name[:-1]}_scales"] = np.full((batch, kv_heads, ROWS), 7, np.float32)
    case.args.scale_stride = (kv_heads * ROWS, ROWS)
    writes = (*case.writes, "key_scales", "value_scales")
    return Case(case.args, case.pointers, writes)


def rotated_f32(case):
    """The keys [batch, time, heads, dim] with the roundings of rope.c."""
    batch, time = case.pointers["k"].shape[:2]
    k = case.pointers["k"].reshape(batch, time, case.args.kv_heads, case.args.dim)
    first, second = np.split(k, 2, axis=-1)
    cos, sin = (
        np.broadcast_to(case.pointers[name][:, :, None], first.shape) for name in ("cos", "sin")
    )
    return np.concatenate([fma(-second, sin, first * cos), fma(first, sin, second * cos)], -1)


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_int8_rows(where):
    """The bits of quantize_heads; zeros, and a NaN or Inf, in heads of their own."""
    cases = [int8_case(shape, (4, 0, 2)) for shape in SHAPES]
    special = cases[1].pointers
    special["v"][0, 1, :16], special["v"][1, 0, 3] = 0, np.inf
    special["k"][1, 2, 20] = np.nan
    results = run_everywhere(require(where), "go_rope", cases, "rope int8")
    for case, out in zip(cases, results, strict=True):
        time = case.args.time
        new = {"key": rotated_f32(case)}
        new["value"] = case.pointers["v"].reshape(new["key"].shape)
        for name, x in new.items():
            heads = quantize_heads(x)
            for b, first in enumerate(case.pointers["position"]):
                written = slice(first, first + time)
                rows, scales = out[f"{name}s"][b], out[f"{name}_scales"][b]
                np.testing.assert_array_equal(rows[written], heads.q[b])
                np.testing.assert_array_equal(scales[:, written], heads.scale[b].T)
                kept = np.delete(np.arange(ROWS), range(first, first + time))
                assert np.all(rows[kept] == 7) and np.all(scales[:, kept] == 7)
