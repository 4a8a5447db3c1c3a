"""Attention, against float64 and against itself on padded batches."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from across import bits, run_everywhere
from harness import LEVEL_IDS, NATIVE_IDS, At, Case, build_host, end_of, require, run_cases

from graphopt.kernels import reference_ops
from graphopt.kernels.arguments import BF16, F32, AttentionArgs
from graphopt.kernels.reference import bf16_from_f32, f32_from_bf16
from graphopt.kernels.reference_ops import CAUSAL_FIRST, CAUSAL_LAST, SEES_ALL
from graphopt.kernels.scratch import attention_scratch_bytes


@dataclass
class Spec:
    """Sizes of one call; ``mask`` is the broadcast shape of the mask, or None."""

    batch: int = 1
    heads: int = 1
    kv_heads: int = 1
    tq: int = 5
    tk: int = 5
    dim: int = 16
    dim_v: int = 16
    causal: int = SEES_ALL
    mask: tuple[int, int, int, int] | None = None
    dtype: int = F32
    dst_dtype: int = F32


SPECS = [
    Spec(tq=1, tk=1, dim=1, dim_v=1),
    Spec(batch=0),
    Spec(tq=0),
    Spec(tq=7, tk=16, dim=8, dim_v=4, mask=(1, 1, 7, 16)),
    Spec(2, 3, 3, 13, 17, 11, 19, mask=(2, 1, 1, 17)),
    Spec(1, 4, 2, 53, 53, 32, 32, causal=CAUSAL_LAST),
    Spec(2, 6, 2, 5, 37, 24, 40, causal=CAUSAL_LAST, mask=(1, 6, 1, 37)),
    Spec(2, 2, 1, 29, 11, 16, 16, causal=CAUSAL_FIRST),
    Spec(1, 3, 3, 7, 37, 24, 40, causal=CAUSAL_FIRST),
    Spec(2, 4, 4, 61, 130, 64, 64, mask=(2, 1, 1, 130), dst_dtype=BF16),
]
BF16_SPECS = [
    Spec(tq=1, tk=1, dim=1, dim_v=1, dtype=BF16),
    Spec(batch=0, dtype=BF16),
    Spec(tq=0, dtype=BF16),
    Spec(2, 2, 1, 30, 31, 16, 33, mask=(2, 2, 30, 1), dtype=BF16),
    Spec(1, 2, 2, 3, 29, 20, 16, dtype=BF16, dst_dtype=BF16),
    Spec(2, 3, 3, 13, 17, 11, 19, mask=(2, 1, 1, 17), dtype=BF16),
    Spec(1, 4, 2, 53, 53, 32, 32, causal=CAUSAL_LAST, dtype=BF16),
    Spec(2, 6, 2, 5, 37, 24, 40, causal=CAUSAL_LAST, mask=(1, 6, 1, 37), dtype=BF16),
    Spec(2, 2, 1, 29, 11, 16, 16, causal=CAUSAL_FIRST, dtype=BF16),
    Spec(1, 2, 1, 41, 23, 7, 24, mask=(1, 1, 41, 23), dtype=BF16),
    Spec(1, 4, 1, 47, 101, 128, 128, dtype=BF16, dst_dtype=BF16),
]
# Few queries, which read keys and values in place: groups of 1, 3, 4 and 8 heads.
FEW = [
    Spec(2, 9, 3, 1, 101, 64, 64, causal=CAUSAL_LAST, mask=(2, 9, 1, 101)),
    Spec(1, 8, 2, 4, 67, 64, 32, causal=CAUSAL_LAST),
    Spec(2, 3, 3, 3, 37, 16, 64, mask=(2, 1, 1, 37), dst_dtype=BF16),
    Spec(1, 8, 2, 3, 67, 64, 32, causal=CAUSAL_FIRST),
    Spec(1, 8, 1, 2, 331, 64, 64, causal=CAUSAL_LAST, mask=(1, 1, 2, 331)),
    Spec(1, 3, 1, 1, 1, 32, 64),
]
BF16_FEW = [replace(spec, dtype=BF16) for spec in FEW]
IMMINTRIN = "#include <immintrin.h>\n"  # so that a macro can change an intrinsic after it
DRIVE = '#include "attention_drive.h"'


def values(x):
    return f32_from_bf16(x) if x.dtype == np.uint16 else x


def tensor(rng, batch, time, heads, width, dtype):
    """Random [batch, time, heads, width] inside a larger array, the array and the view."""
    whole = rng.normal(0, 1, (batch, time + 1, heads, width + 3)).astype(np.float32)
    whole = bf16_from_f32(whole) if dtype == BF16 else whole
    return whole, whole[:, :time, :, :width]


def element_strides(array):
    return tuple(s // array.itemsize for s in array.strides[:3])


def make_case(spec, seed=0):
    """The case, and q, k, v and mask as the kernel reads them."""
    rng = np.random.default_rng(seed)
    pointers, views = {}, {}
    shapes = {
        "q": (spec.tq, spec.heads, spec.dim),
        "k": (spec.tk, spec.kv_heads, spec.dim),
        "v": (spec.tk, spec.kv_heads, spec.dim_v),
    }
    for name, shape in shapes.items():
        pointers[name], views[name] = tensor(rng, spec.batch, *shape, spec.dtype)
    dst_type = np.uint16 if spec.dst_dtype == BF16 else np.float32
    dst = np.full((spec.batch, spec.tq + 1, spec.heads, spec.dim_v + 2), 7, dst_type)
    pointers["dst"] = dst
    args = AttentionArgs(
        batch=spec.batch,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        tq=spec.tq,
        tk=spec.tk,
        dim=spec.dim,
        dim_v=spec.dim_v,
        scale=1.5 / np.sqrt(spec.dim),
        causal=spec.causal,
        dtype=spec.dtype,
        dst_dtype=spec.dst_dtype,
        dst_stride=element_strides(dst),
        **{f"{name}_stride": element_strides(pointers[name]) for name in "qkv"},
    )
    mask = None
    if spec.mask:
        mask = rng.normal(0, 1, spec.mask).astype(np.float32)
        if spec.mask[3] > 1:  # a row of -10000 only would leave the scores 3 digits
            mask[rng.random(spec.mask) < 0.3] = -10000
        pointers["mask"] = mask
        args.mask_stride = tuple(
            0 if size == 1 else stride // 4
            for size, stride in zip(mask.shape, mask.strides, strict=True)
        )
    size = attention_scratch_bytes(spec.batch, spec.kv_heads, spec.tk, spec.dim, spec.dim_v, 3)
    pointers["scratch"] = np.full(size // 4, np.nan, np.float32)
    ends = {name: end_of(view, pointers[name]) for name, view in views.items()}
    case = Case(args, pointers, ("dst", "scratch"), align={"scratch": 64}, ends=ends)
    return case, (*(values(views[name]) for name in "qkv"), mask)


def error_bound(spec, case, q, k, v, mask):
    """How far a result may be from float64.

    f32: a score errs by (dim + 3) roundings of sum |q k| scale + |mask|, and so, relatively, does
    its exponential (+ 1 ulp); the chain over the keys adds tk roundings of weights times |v|.
    bf16: weights are also rounded to 8 bits (2**-8), from exponentials good to 2**-17, and where
    BFMMLA rounds a sum of two products or an accumulation to odd, that is two of these roundings.
    """
    scale = case.args.scale
    size = reference_ops.attention(q, k, np.abs(v), scale, mask, spec.causal)
    top = np.abs(q).max() * np.abs(k).max() * spec.dim * scale + 4
    roundings = (spec.dim + 3) * top + spec.tk + 20
    bound = 2.0**-24 * roundings * size
    if spec.dtype == BF16:
        bound = 2 * bound + (2.0**-8 + 2.0**-16) * size
    if spec.dst_dtype == BF16:
        bound = bound + 2.0**-8 * (np.abs(size) + bound)
    return bound


def check_specs(runner, specs, key, as_scalar=True):
    made = [make_case(spec, i) for i, spec in enumerate(specs)]
    cases = [case for case, _ in made]
    results = run_everywhere(runner, "go_attention", cases, key, as_scalar)
    for spec, (case, (q, k, v, mask)), out in zip(specs, made, results, strict=True):
        got = out["dst"][:, : spec.tq, :, : spec.dim_v]
        assert np.all(out["dst"][:, spec.tq :] == 7)
        assert np.all(out["dst"][..., spec.dim_v :] == 7)
        if got.size == 0:
            continue
        expected = reference_ops.attention(q, k, v, case.args.scale, mask, spec.causal)
        bound = error_bound(spec, case, q, k, v, mask)
        wrong = ~(np.abs(values(got) - expected) <= bound)
        wrong &= ~(np.isnan(values(got)) & np.isnan(expected))
        assert not wrong.any(), f"{spec}: {wrong.sum()} results beyond the bound"


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_matches_float64(where):
    check_specs(require(where), SPECS, "attention")


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_bf16_matches_float64(where):
    """With equal bits wherever there is no BFMMLA (bf16 in the features of Arm)."""
    runner = require(where)
    check_specs(runner, BF16_SPECS, "attention bf16", "bf16" not in runner.level.features)


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_few_queries(where, dtype):
    """Against float64, and with the bits of the same queries among many."""
    runner = require(where)
    specs = BF16_FEW if dtype == BF16 else FEW
    as_scalar = dtype == F32 or "bf16" not in runner.level.features
    check_specs(runner, specs, f"attention few {dtype}", as_scalar)
    cases = []
    for heads, kv_heads in ((9, 3), (4, 1), (2, 2)):
        spec = Spec(1, heads, kv_heads, 11, 43, 64, 64, causal=CAUSAL_LAST, dtype=dtype)
        many, _ = make_case(spec)
        cases.append(many)
        for tq in (1, 2, 4):
            args = AttentionArgs.from_buffer_copy(many.args)
            args.tq = tq
            pointers = dict(many.pointers)
            pointers["q"] = At(many.pointers["q"], (11 - tq) * many.pointers["q"].strides[1])
            cases.append(replace(many, args=args, pointers=pointers))
    results = run_cases(runner, "go_attention", cases)
    for i in range(0, len(cases), 4):
        for tq, few in zip((1, 2, 4), results[i + 1 : i + 4], strict=True):
            alone, among = few["dst"][:, :tq], results[i]["dst"][:, 11 - tq : 11]
            assert np.array_equal(bits(alone.copy()), bits(among.copy())), (i, tq)


@pytest.mark.parametrize(
    ("where", "mutation"),
    [
        (
            "x86_64/avx512_bf16",
            (
                DRIVE,
                f"{IMMINTRIN}#define _mm512_dpbf16_ps(c, a, b) _mm512_dpbf16_ps(-c, a, b)\n{DRIVE}",
            ),
        ),
        ("x86_64/scalar", ("{QUERY_ROWS, PAIRS", "{QUERY_ROWS + 1, PAIRS")),
        (
            "aarch64/neon_i8mm",
            (DRIVE, f"#include <arm_neon.h>\n#define vzip2q_u16 vzip1q_u16\n{DRIVE}"),
        ),
    ],
)
def test_a_broken_bf16_kernel_is_noticed(where, mutation):
    broken = replace(require(where), mutation=mutation)
    build_host(broken.level, "go_attention", mutation)  # it must compile
    as_scalar = "bf16" not in broken.level.features
    with pytest.raises(AssertionError, match=r"beyond the bound|differs|were written|crashed"):
        check_specs(broken, BF16_SPECS, "attention bf16", as_scalar)


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_error_is_small_in_practice(where):
    """Far below the worst-case bound above: 1e-6 for values of order 1."""
    case, (q, k, v, mask) = make_case(SPECS[5], 5)
    (out,) = run_everywhere(require(where), "go_attention", [case], "attention small")
    got = out["dst"][:, :53, :, :32]
    assert (
        np.abs(got - reference_ops.attention(q, k, v, case.args.scale, mask, CAUSAL_LAST)).max()
        < 1e-6
    )


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("where", [*NATIVE_IDS, "aarch64/neon_i8mm"])
def test_no_cut_changes_bits(where, dtype):
    """Nor does a hidden value that is not finite show in more queries where blocks are others."""
    whole, _ = make_case(Spec(1, 2, 2, 83, 83, 24, 20, mask=(1, 1, 1, 83), dtype=dtype))
    causal, _ = make_case(Spec(1, 2, 2, 83, 83, 24, 20, causal=CAUSAL_LAST, dtype=dtype))
    causal.pointers["v"][0, 50, 0, 3] = np.nan if dtype == F32 else 0x7FC0
    size = attention_scratch_bytes(1, 2, 83, 24, 20, 16)
    for case in (whole, causal):
        case.pointers["scratch"] = np.full(size // 4, np.nan, np.float32)
        cases = [replace(case, threads=threads) for threads in (1, 2, 3, 5, 7, 16)]
        first, *others = run_cases(require(where), "go_attention", cases)
        for other in others:
            assert np.array_equal(bits(first["dst"]), bits(other["dst"]))


# What rows give: numbers, 0 or NaN.
SEEN, ZERO, NAN = "seen", "zero", "nan"


def kind_of(row):
    if np.isnan(row).all():
        return NAN
    return SEEN if np.isfinite(row).all() and row.any() else ZERO if not row.any() else row


def degenerate(spec, unseen_zero, poison):
    """A case that `poison` changes, given its mask of zeros."""
    case, data = make_case(spec)
    case.args.unseen_zero = unseen_zero
    if data[3] is not None:
        data[3][:] = 0
    poison(case, data[3])
    return case


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_queries_without_keys_and_nan(where, dtype):
    """Rows whose scores are all -inf are NaN, or 0 where asked for, and touch no other; a NaN key
    reaches all queries that see it, a NaN query only itself, and +inf gives NaN."""
    nan, inf = (np.nan, np.inf) if dtype == F32 else (0x7FC0, 0x7F80)

    def hide(case, mask):
        mask[0, 0, 2] = -np.inf
        mask[0, 0, 3, 1:] = -np.inf
        mask[0, 0, 4] = -np.inf
        case.pointers["q"][0, 4, 0, 3] = nan

    def replace_scores(case, mask):
        case.args.replaces = 1
        mask[0, 0, :, 7] = -np.inf  # where k is NaN
        mask[0, 0, 2] = -np.inf
        case.pointers["k"][0, 7, 0, 0] = nan

    def poison_key(case, mask):
        case.pointers["k"][0, 3, 0, 0] = nan

    def overflow(case, mask):
        mask[0, 0, 1, 4] = np.inf
        case.pointers["k"][0, 5, 0, 0] = inf
        case.pointers["q"][0, :, 0, 0] = 0x3F80 if dtype == BF16 else 1
        mask[0, 0, 3] = -np.inf  # beside +inf a NaN

    runner = require(where)
    masked = Spec(1, 1, 1, 5, 20, mask=(1, 1, 5, 20), dtype=dtype)
    few = Spec(1, 1, 1, 4, 20, 16, 64, mask=(1, 1, 4, 20), dtype=dtype)
    late = Spec(tq=9, tk=4, causal=CAUSAL_LAST, dtype=dtype)
    for unseen_zero, none in ((0, NAN), (1, ZERO)):
        wanted = [
            (masked, hide, [SEEN, SEEN, none, SEEN, NAN]),
            (few, replace_scores, [SEEN, SEEN, none, SEEN]),
            (masked, replace_scores, [SEEN, SEEN, none, SEEN, SEEN]),
            (late, lambda case, mask: None, [none] * 5 + [SEEN] * 4),
            (Spec(tq=6, tk=6, causal=CAUSAL_LAST, dtype=dtype), poison_key, [SEEN] * 3 + [NAN] * 3),
            (masked, overflow, [NAN] * 5),
            (few, overflow, [NAN] * 4),
            (Spec(tq=2, tk=0, dtype=dtype), lambda case, mask: None, [ZERO] * 2),
        ]
        cases = [degenerate(spec, unseen_zero, poison) for spec, poison, _ in wanted]
        as_scalar = dtype == F32 or "bf16" not in runner.level.features
        key = f"attention nan {dtype} {unseen_zero}"
        results = run_everywhere(runner, "go_attention", cases, key, as_scalar)
        for (spec, _, rows), out in zip(wanted, results, strict=True):
            got = values(out["dst"])[0, : spec.tq, 0, : spec.dim_v]
            kinds = [kind_of(row) for row in got]
            assert kinds == rows, (spec, unseen_zero)


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("hidden", [-10000.0, -np.inf])
@pytest.mark.parametrize("where", [*NATIVE_IDS, "aarch64/neon_i8mm"])
def test_padded_batch_equals_single_utterances(where, hidden, dtype):
    """Keys hidden behind the end of an utterance change no bit of its queries."""
    lengths = (45, 29, 1)
    case, data = make_case(Spec(3, 2, 2, 45, 45, 24, 20, mask=(3, 1, 1, 45), dtype=dtype))
    alone = []
    for row, length in enumerate(lengths):
        data[3][row] = np.where(np.arange(45) < length, 0, hidden)
        args = AttentionArgs.from_buffer_copy(case.args)
        args.batch, args.tq, args.tk = 1, length, length
        pointers = {
            name: array if name == "scratch" else At(array, row * array.strides[0])
            for name, array in case.pointers.items()
        }
        del pointers["mask"]
        alone.append(Case(args, pointers, case.writes, align=case.align))
    whole, *single = run_cases(require(where), "go_attention", [case, *alone])
    for row, length in enumerate(lengths):
        window = (row, slice(length), slice(None), slice(20))
        assert np.array_equal(
            bits(whole["dst"][window].copy()), bits(single[row]["dst"][window].copy())
        )


def test_scratch_size_is_arithmetic_on_expressions():
    """The same formula serves symbolic sizes."""
    sympy = pytest.importorskip("sympy")
    tk = sympy.Symbol("tk", integer=True, positive=True)
    size = attention_scratch_bytes(2, 4, tk, 64, 64, 3, lambda a, b: sympy.ceiling(a / b))
    for n in (1, 16, 17, 1000):
        assert size.subs(tk, n) == attention_scratch_bytes(2, 4, n, 64, 64, 3)
