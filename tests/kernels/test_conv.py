"""Convolution: dense, grouped and depthwise, 1-D and 2-D."""

from dataclasses import dataclass

import numpy as np
import pytest
from across import bits, run_everywhere
from harness import LEVEL_IDS, Case, end_of, require, run_cases

from graphopt.kernels import formats, reference_ops
from graphopt.kernels.arguments import ACTIVATIONS, BF16, F32, ConvArgs
from graphopt.kernels.packing import pack_rhs_f32
from graphopt.kernels.reference import activation, bf16_from_f32, f32_from_bf16
from graphopt.kernels.scratch import conv_scratch_bytes


@dataclass
class Spec:
    """One convolution; ``pad`` is (top, bottom, left, right); ``extras``: b bias, r residual."""

    batch: int = 1
    size: tuple[int, int] = (1, 9)
    in_c: int = 4
    out_c: int = 16
    groups: int = 1
    kernel: tuple[int, int] = (1, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 1, 1)
    tile_rows: int = 5
    extras: str = ""
    act: str = "none"
    last: str = "none"
    src_dtype: int = F32
    dst_dtype: int = F32
    tile_cols: int = 32

    @property
    def out_size(self):
        reach = (self.size[0] + sum(self.pad[:2]), self.size[1] + sum(self.pad[2:]))
        return tuple(
            max(0, (r - (k - 1) * d - 1) // s + 1)
            for r, k, d, s in zip(reach, self.kernel, self.dilation, self.stride, strict=True)
        )


SPECS = [
    Spec(size=(1, 1), in_c=1, out_c=1, kernel=(1, 1), pad=(0, 0, 0, 0)),
    Spec(batch=0),
    Spec(size=(1, 1), kernel=(1, 3), pad=(0, 0, 0, 0)),
    Spec(2, (1, 37), 20, 33, kernel=(1, 5), pad=(0, 0, 2, 2), extras="br", act="relu"),
    Spec(1, (1, 100), 80, 48, kernel=(1, 3), stride=(1, 2), tile_rows=32, extras="b"),
    Spec(2, (11, 13), 3, 17, 1, (3, 3), (2, 2), pad=(1, 1, 1, 1), extras="b", act="gelu_erf"),
    Spec(1, (7, 10), 12, 18, 3, (3, 2), (1, 1), (2, 3), (2, 2, 1, 2), 7, "r"),
    Spec(1, (6, 5), 8, 40, 2, (2, 2), pad=(0, 1, 0, 1), extras="b", src_dtype=BF16),
    Spec(
        2,
        (1, 31),
        16,
        19,
        kernel=(1, 4),
        pad=(0, 0, 3, 0),
        extras="br",
        last="relu",
        dst_dtype=BF16,
    ),
    Spec(2, (9, 14), 19, 19, 19, (3, 3), pad=(1, 1, 1, 1), extras="br", act="silu"),
    Spec(1, (8, 11), 32, 32, 32, (5, 3), (2, 2), pad=(2, 2, 1, 1), tile_rows=11),
    Spec(
        1,
        (5, 6),
        35,
        35,
        35,
        (3, 3),
        (1, 1),
        (1, 2),
        (1, 1, 2, 2),
        8,
        "b",
        "none",
        "none",
        BF16,
        BF16,
    ),
    Spec(1, (4, 5), 6, 12, 6, (3, 3), pad=(1, 1, 1, 1), extras="b"),
    # more values than are multiplied at once, rows for two bands, channels for three tasks
    Spec(1, (9, 11), 59, 70, 1, (3, 3), pad=(1, 1, 1, 1), tile_rows=60, extras="br", last="relu"),
    Spec(1, (7, 9), 5, 20, 1, (5, 7), (2, 1), pad=(2, 2, 6, 6), tile_rows=36, act="relu"),
    # depthwise, of the sizes that have loops of their own
    Spec(2, (5, 31), 16, 16, 16, (3, 3), pad=(1, 1, 1, 1), tile_rows=70, extras="b", act="relu6"),
    Spec(1, (9, 37), 48, 48, 48, (3, 3), (2, 2), pad=(1, 1, 1, 1), tile_rows=50, extras="br"),
    Spec(1, (6, 25), 32, 32, 32, (5, 5), pad=(2, 2, 2, 2), tile_rows=30, act="relu"),
    Spec(1, (11, 33), 16, 16, 16, (5, 5), (2, 2), pad=(2, 2, 2, 2), tile_rows=64, extras="b"),
    Spec(1, (8, 20), 16, 16, 16, (7, 7), pad=(3, 3, 3, 3), tile_rows=64, extras="b", act="silu"),
    # images narrower than a window, or with lines of any length; the last channels are not 16
    Spec(1, (4, 2), 24, 24, 24, (5, 5), pad=(2, 2, 2, 2), tile_rows=64, extras="br", act="relu6"),
    Spec(
        1, (3, 14), 152, 152, 152, (3, 3), pad=(1, 1, 1, 1), tile_rows=33, act="relu", tile_cols=160
    ),
    Spec(2, (5, 7), 40, 40, 40, (7, 7), pad=(3, 3, 3, 3), tile_rows=64, extras="b", src_dtype=BF16),
    Spec(
        1,
        (5, 16),
        20,
        20,
        20,
        (3, 3),
        (2, 2),
        pad=(0, 1, 0, 1),
        act="relu6",
        src_dtype=BF16,
        dst_dtype=BF16,
    ),
    Spec(1, (4, 9), 17, 17, 17, (3, 3), pad=(2, 2, 2, 2), extras="b"),
]


def values(x):
    return f32_from_bf16(x) if x.dtype == np.uint16 else x


def image(rng, batch, size, channels, dtype):
    """Random [batch, h, w, channels] as the corner of a larger array, array and view."""
    whole = rng.normal(0, 1, (batch, size[0] + 1, size[1] + 2, channels + 3)).astype(np.float32)
    whole = bf16_from_f32(whole) if dtype == BF16 else whole
    return whole, whole[:, : size[0], : size[1], :channels]


def packed_weights(spec, weight):
    """The right operand of go_conv from torch's [out_c, in_c / groups, kh, kw]."""
    rows = weight.transpose(0, 2, 3, 1)
    if spec.groups == spec.in_c == spec.out_c:
        return np.ascontiguousarray(rows.reshape(spec.out_c, -1).T)
    layout = formats.F32.layout("x86_64")
    parts = np.split(rows.reshape(spec.out_c, -1), spec.groups)
    return np.concatenate([pack_rhs_f32(layout, part) for part in parts])


def element_strides(array):
    return tuple(s // array.itemsize for s in array.strides[:3])


def make_case(spec, seed=0):
    """The case, and the arrays it uses by name."""
    rng = np.random.default_rng(seed)
    shape = (spec.out_c, spec.in_c // spec.groups, *spec.kernel)
    data = {"weight": rng.normal(0, 1, shape).astype(np.float32)}
    pointers = {"rhs": packed_weights(spec, data["weight"])}
    pointers["src"], data["src"] = image(rng, spec.batch, spec.size, spec.in_c, spec.src_dtype)
    out_h, out_w = spec.out_size
    dst_type = np.uint16 if spec.dst_dtype == BF16 else np.float32
    dst = np.full((spec.batch, out_h + 1, out_w + 1, spec.out_c + 2), 7, dst_type)
    pointers["dst"] = dst
    args = ConvArgs(
        batch=spec.batch,
        groups=spec.groups,
        in_c=spec.in_c,
        out_c=spec.out_c,
        in_h=spec.size[0],
        in_w=spec.size[1],
        out_h=out_h,
        out_w=out_w,
        kh=spec.kernel[0],
        kw=spec.kernel[1],
        stride_h=spec.stride[0],
        stride_w=spec.stride[1],
        dilation_h=spec.dilation[0],
        dilation_w=spec.dilation[1],
        pad_top=spec.pad[0],
        pad_left=spec.pad[2],
        tile_rows=spec.tile_rows,
        tile_cols=spec.tile_cols,
        src_stride=element_strides(pointers["src"]),
        src_dtype=spec.src_dtype,
        dst_stride=element_strides(dst),
        dst_dtype=spec.dst_dtype,
    )
    args.epilogue.activation = ACTIVATIONS.index(spec.act)
    args.epilogue.last = ACTIVATIONS.index(spec.last)
    if "b" in spec.extras:
        data["bias"] = pointers["epilogue.bias"] = rng.normal(0, 1, spec.out_c).astype(np.float32)
    if "r" in spec.extras:
        rows = rng.normal(0, 1, (spec.batch * out_h * out_w, spec.out_c + 1)).astype(np.float32)
        pointers["epilogue.residual[1]"] = rows
        args.epilogue.residual_stride[1] = spec.out_c + 1
        data["residual"] = rows[:, :-1].reshape(spec.batch, out_h, out_w, spec.out_c)
    size = conv_scratch_bytes(
        spec.in_c, spec.out_c, spec.groups, *spec.kernel, spec.tile_rows, threads=3
    )
    pointers["scratch"] = np.full(size // 4, np.nan, np.float32)
    ends = {"src": end_of(data["src"], pointers["src"])}
    return Case(args, pointers, ("dst", "scratch"), align={"scratch": 64}, ends=ends), data


def oracle(spec, data):
    """Exact result, and the sum of magnitudes of its terms."""
    src, weight = values(data["src"]), data["weight"]
    geometry = (spec.out_size, spec.stride, spec.dilation, (spec.pad[0], spec.pad[2]), spec.groups)
    y = reference_ops.conv2d(src, weight, *geometry)
    size = reference_ops.conv2d(np.abs(src), np.abs(weight), *geometry)
    if "bias" in data:
        y, size = y + data["bias"], size + np.abs(data["bias"])
    y = activation(y, spec.act)
    if "residual" in data:
        y, size = y + data["residual"], size + np.abs(data["residual"])
    return activation(y, spec.last), size


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_matches_float64(where):
    """One rounding per term and per step of the epilogue, each of a partial sum below the sum
    of magnitudes; activations have slopes below 1.13 and err by less than 3 ulp."""
    made = [make_case(spec, i) for i, spec in enumerate(SPECS)]
    results = run_everywhere(require(where), "go_conv", [c for c, _ in made], "conv")
    for spec, (_, data), out in zip(SPECS, made, results, strict=True):
        h, w = spec.out_size
        got = out["dst"][:, :h, :w, : spec.out_c]
        assert np.all(out["dst"][:, h:] == 7) and np.all(out["dst"][:, :, w:] == 7)
        assert np.all(out["dst"][..., spec.out_c :] == 7)
        expected, size = oracle(spec, data)
        terms = data["weight"][0].size + 8
        bound = 2.0**-24 * terms * 1.13 * (size + 1e-30)
        if spec.dst_dtype == BF16:
            bound = bound + 2.0**-8 * np.abs(expected)
        assert np.all(np.abs(values(got) - expected) <= bound)


@pytest.mark.parametrize("index", [3, 9])
@pytest.mark.parametrize("where", LEVEL_IDS[:3])
def test_tile_rows_change_no_bit(where, index):
    """How positions are cut into tasks does not matter."""
    cases = []
    for tile_rows in (1, 4, 30, 1000):
        spec = Spec(**{**vars(SPECS[index]), "tile_rows": tile_rows})
        cases.append(make_case(spec, index)[0])
    first, *others = run_cases(require(where), "go_conv", cases)
    for other in others:
        assert np.array_equal(bits(first["dst"]), bits(other["dst"]))


@pytest.mark.parametrize("groups", [1, 18])
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_nan_reaches_its_window_only(where, groups):
    spec = Spec(1, (6, 8), 18, 18, groups, (3, 3), pad=(1, 1, 1, 1))
    case, data = make_case(spec)
    data["src"][0, 2, 5, 4] = np.nan
    (out,) = run_everywhere(require(where), "go_conv", [case], f"conv nan {groups}")
    holes = np.zeros((1, 6, 8, 18), bool)
    holes[0, 1:4, 4:7, slice(None) if groups == 1 else 4] = True
    assert np.array_equal(np.isnan(out["dst"][:, :6, :8, :18]), holes)


@pytest.mark.parametrize("groups", [1, 20])
@pytest.mark.parametrize("where", LEVEL_IDS[:3])
def test_zeros_behind_the_end_change_no_bit(where, groups):
    """An utterance followed by zero frames equals the utterance alone."""
    rng = np.random.default_rng(4)
    signal = rng.normal(0, 1, (23, 20)).astype(np.float32)
    bias = rng.normal(0, 1, 20).astype(np.float32)
    cases = []
    for frames in (40, 23):
        spec = Spec(1, (1, frames), 20, 20, groups, (1, 5), pad=(0, 0, 2, 2), extras="b")
        case, data = make_case(spec)
        data["src"][:], data["bias"][:] = 0, bias
        data["src"][0, 0, :23] = signal
        cases.append(case)
    whole, alone = run_cases(require(where), "go_conv", cases)
    window = (0, 0, slice(23), slice(20))
    assert np.array_equal(bits(whole["dst"][window].copy()), bits(alone["dst"][window].copy()))
