"""Convolution of transformed tiles, F(4 x 4, 3 x 3)."""

from itertools import product

import numpy as np
import pytest
import test_conv
from across import bits, run_everywhere
from harness import LEVEL_IDS, require, run_cases
from test_conv import Spec, values

from graphopt.kernels import formats, winograd
from graphopt.kernels.arguments import BF16
from graphopt.kernels.scratch import winograd_scratch_bytes

SAME = (1, 1, 1, 1)


def spec(batch, size, in_c, out_c, pad=SAME, **rest):
    return Spec(batch, size, in_c, out_c, 1, (3, 3), pad=pad, **rest)


SPECS = [
    spec(0, (4, 4), 16, 16),
    spec(1, (1, 1), 16, 1),
    spec(1, (3, 3), 16, 17, (0, 0, 0, 0), extras="b"),
    # tiles that end with the image, one position before and one behind it, with all that follows
    spec(2, (4, 8), 16, 33, tile_rows=1, extras="br", act="relu", last="relu6"),
    spec(2, (11, 13), 48, 70, (0, 1, 2, 1), tile_rows=6, extras="br", act="gelu_erf"),
    spec(1, (9, 17), 32, 40, tile_rows=14, tile_cols=64, extras="b", act="silu"),
    # an image with tiles inside of it, rows for a tall tile, two tasks of channels
    spec(1, (26, 22), 16, 48, tile_rows=24, extras="r", last="relu"),
    spec(2, (10, 10), 32, 19, tile_rows=7, extras="br", src_dtype=BF16, dst_dtype=BF16),
]


def make_case(spec, seed=0):
    """That of `go_conv` with weights and scratch memory of `go_winograd`."""
    case, data = test_conv.make_case(spec, seed)
    size = winograd_scratch_bytes(spec.in_c, spec.tile_rows, threads=3)
    rows = winograd.transformed(data["weight"])
    case.pointers["rhs"] = formats.F32.pack(formats.F32.layout("x86_64"), rows, None)
    case.pointers["scratch"] = np.full(size // 4, np.nan, np.float32)
    return case, data


def magnitudes(spec, data):
    """What the terms of a result add up to on their way, all with the same sign."""
    a, g, b = (np.abs(matrix) for matrix in winograd.matrices())
    src, (out_h, out_w) = np.abs(values(data["src"])).astype(np.float64), spec.out_size
    tiles = [-(-extent // 4) for extent in spec.out_size]
    padded = np.zeros((spec.batch, 4 * tiles[0] + 2, 4 * tiles[1] + 2, spec.in_c))
    top, left = spec.pad[0], spec.pad[2]
    whole = np.pad(src, ((0, 0), (top, 8), (left, 8), (0, 0)))
    padded[:] = whole[:, : padded.shape[1], : padded.shape[2]]
    weights = np.einsum("ai,bj,ocij->abco", g, g, np.abs(data["weight"]))
    sums = np.zeros((spec.batch, 4 * tiles[0], 4 * tiles[1], spec.out_c))
    for y, x in product(*map(range, tiles)):
        pixels = padded[:, 4 * y : 4 * y + 6, 4 * x : 4 * x + 6]
        points = np.einsum("ia,jb,nijc,abco->nabo", b, b, pixels, weights, optimize=True)
        sums[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = np.einsum("ai,bj,nabo->nijo", a, a, points)
    return sums[:, :out_h, :out_w]


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_matches_float64(where):
    """Roundings of a value: two in each half of its transform, one of its weight, one for each
    channel, three in each half of the way back, each of no more than the magnitudes; and those of
    the epilogue."""
    made = [make_case(spec, i) for i, spec in enumerate(SPECS)]
    results = run_everywhere(require(where), "go_winograd", [c for c, _ in made], "winograd")
    for spec, (_, data), out in zip(SPECS, made, results, strict=True):
        h, w = spec.out_size
        got = out["dst"][:, :h, :w, : spec.out_c]
        assert np.all(out["dst"][:, h:] == 7) and np.all(out["dst"][:, :, w:] == 7)
        assert np.all(out["dst"][..., spec.out_c :] == 7)
        expected, size = test_conv.oracle(spec, data)
        roundings = (spec.in_c + 11) * magnitudes(spec, data) + 8 * size
        bound = 2.0**-24 * 1.13 * (roundings + 1e-30)
        if spec.dst_dtype == BF16:
            bound = bound + 2.0**-8 * np.abs(expected)
        assert np.all(np.abs(values(got) - expected) <= bound)


@pytest.mark.parametrize("where", LEVEL_IDS[:3])
def test_tasks_and_neighbours_change_no_bit(where):
    """Tasks of any size, an image alone, and one with zeros behind it give the same bits."""
    cut = [spec(2, (11, 13), 32, 70, tile_rows=rows, tile_cols=64) for rows in (1, 5, 100)]
    cases = [make_case(s) for s in (*cut, spec(1, (11, 13), 32, 70), spec(2, (11, 21), 32, 70))]
    images = np.random.default_rng(1).normal(0, 1, (2, 11, 13, 32)).astype(np.float32)
    for _, data in cases:
        data["src"][:] = 0
        data["src"][:, :, :13] = images[: len(data["src"])]
    results = run_cases(require(where), "go_winograd", [case for case, _ in cases])
    first = results[0]["dst"][:, :11, :13, :70]
    for other in results[1:]:
        got = other["dst"][:, :11, :13, :70]
        assert np.array_equal(bits(got.copy()), bits(first[: len(got)].copy()))


def test_nan_reaches_the_tiles_that_read_it():
    case, data = make_case(spec(1, (13, 9), 16, 18))
    data["src"][0, 5, 2, 4] = np.nan
    (out,) = run_cases(require(LEVEL_IDS[0]), "go_winograd", [case])
    holes = np.zeros((1, 13, 9, 18), bool)
    holes[0, 4:8, :4] = True
    assert np.array_equal(np.isnan(out["dst"][:, :13, :9, :18]), holes)


def test_constants_are_exact_in_f32():
    """Matrices in f32 are those that make a convolution: only weights are rounded."""
    a, g, b = winograd.matrices()
    for matrix in (a, b):
        assert np.array_equal(matrix.astype(np.float32).astype(np.float64), matrix)
    made = np.einsum("ai,ak,ja->ijk", a, g, b)  # pixel j times tap k gives output j - k
    shifts = np.array([np.eye(6, 3, -i) for i in range(4)])
    np.testing.assert_allclose(made, shifts, atol=1e-15)
    a, g, b = (np.abs(matrix) for matrix in (a, g, b))
    assert np.einsum("ai,aj,ka->ij", a, g, b).max() ** 2 < 175.5  # as documented


@pytest.mark.parametrize("channels", [16, 64])
def test_rounding_is_what_is_expected(channels):
    """The estimate is of the error that kernels have, and that is less than three times as large
    as that of sums in order."""
    shape = spec(1, (24, 24), channels, 32)
    tiled, data = make_case(shape)
    direct, same = test_conv.make_case(shape)
    for name in ("src", "weight"):
        assert np.array_equal(data[name], same[name])
    runner = require(LEVEL_IDS[0])
    exact, _ = test_conv.oracle(shape, data)
    errors = []
    for generic, case in (("go_winograd", tiled), ("go_conv", direct)):
        (out,) = run_cases(runner, generic, [case])
        errors.append(np.sqrt(((out["dst"][:, :24, :24, :32] - exact) ** 2).mean()))
    expected = winograd.rounding(data["weight"]) * np.sqrt((exact**2).mean())
    assert 0.5 * expected <= errors[0] <= 1.5 * expected
    assert errors[0] <= 3 * errors[1]


def test_rounding_of_odd_weights():
    """Filters of zeros have none; neither have none; what is not finite has no bound."""
    zeros = np.zeros((2, 16, 3, 3), np.float32)
    assert winograd.rounding(zeros) == winograd.rounding(zeros[:0]) == 0.0
    zeros[1, 3, 1, 1] = np.inf
    assert np.isnan(winograd.rounding(zeros))
