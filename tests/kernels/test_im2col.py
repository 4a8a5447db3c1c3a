"""Windows of an image (im2col) as packed rows, byte for byte."""

from dataclasses import dataclass

import numpy as np
import pytest
from harness import LEVEL_IDS, Case, require, run_cases

from graphopt.kernels import formats, packing, reference, reference_ops
from graphopt.kernels.arguments import BF16, F32, Im2colArgs
from graphopt.kernels.scratch import im2col_scratch_bytes

THREADS = 3


@dataclass
class Spec:
    """Windows of one image; ``pad`` is (top, bottom, left, right), ``gaps`` between pixels."""

    batch: int = 1
    size: tuple[int, int] = (1, 9)
    channels: int = 4
    kernel: tuple[int, int] = (1, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 1, 1)
    gaps: int = 0
    dtype: int = F32

    @property
    def out_size(self):
        reach = (self.size[0] + sum(self.pad[:2]), self.size[1] + sum(self.pad[2:]))
        return tuple(
            max(0, (r - (k - 1) * d - 1) // s + 1)
            for r, k, d, s in zip(reach, self.kernel, self.dilation, self.stride, strict=True)
        )


SPECS = [
    Spec(size=(1, 1), channels=1, kernel=(1, 1), pad=(0, 0, 0, 0)),
    Spec(batch=0),
    Spec(size=(1, 1), kernel=(1, 3), pad=(0, 0, 0, 0)),
    Spec(2, (1, 37), 20, (1, 5), pad=(0, 0, 2, 2)),  # in place but at the ends
    Spec(1, (1, 40), 16, (1, 3), (1, 2), pad=(0, 0, 1, 0), dtype=BF16),
    Spec(2, (1, 33), 17, (1, 4), dilation=(1, 2), gaps=3),
    Spec(1, (1, 29), 33, (1, 3), gaps=5),
    Spec(1, (1, 30), 8, (1, 1), (1, 3), pad=(0, 0, 0, 0), gaps=2),  # in place, with gaps
    Spec(1, (5, 11), 8, (1, 3), pad=(0, 0, 0, 0)),  # groups of positions cross rows
    Spec(2, (6, 19), 12, (3, 3), pad=(1, 1, 1, 1)),
    Spec(1, (9, 14), 5, (3, 2), (2, 1), (2, 3), (2, 2, 1, 2), 1, BF16),
    Spec(1, (4, 9), 32, (4, 2), pad=(0, 0, 0, 0)),
    # lines of which pixels are made narrow once
    Spec(2, (9, 11), 3, (7, 7), (2, 2), pad=(3, 3, 3, 3)),
    Spec(3, (7, 7), 16, (3, 3), pad=(1, 1, 1, 1)),  # lines and images end inside of panels
    Spec(1, (5, 3), 40, (3, 3), (2, 2), pad=(1, 0, 1, 0), gaps=2, dtype=BF16),
    Spec(2, (6, 2), 24, (2, 5), (1, 3), (2, 1), pad=(1, 1, 4, 4)),  # whole columns outside
    Spec(1, (40, 3), 1, (3, 3), pad=(1, 1, 1, 1)),  # tasks of several lines
]


def make_case(spec, layout, seed):
    """The case, and the bytes it must give."""
    rng = np.random.default_rng(seed)
    shape = (spec.batch, spec.size[0] + 1, spec.size[1] + 1, spec.channels + spec.gaps)
    whole = rng.normal(0, 3, shape).astype(np.float32)
    if spec.dtype == BF16:
        whole = reference.bf16_from_f32(whole)
    if spec.gaps == 0:  # rows of pixels without gaps
        whole = np.ascontiguousarray(whole[:, :, :-1])
    image = whole[:, : spec.size[0], : spec.size[1], : spec.channels]
    pad = (spec.pad[0], spec.pad[2])
    rows = reference_ops.im2col(image, spec.kernel, spec.out_size, spec.stride, spec.dilation, pad)
    geometry = reference_ops.Geometry(spec.kernel, spec.stride, spec.dilation)
    rows = rows.reshape(-1, spec.kernel[0] * spec.kernel[1] * spec.channels)
    wide = reference.f32_from_bf16(rows) if spec.dtype == BF16 else rows
    if layout.bits == 8:
        together = spec.out_size[1] if geometry.shares_lines and len(wide) else 1
        wanted = packing.pack_lhs_qa8r(layout, reference.quantize_rows(wide, together))
    else:
        wanted = packing.pack_lhs_bf16(layout, reference.bf16_from_f32(wide))
    args = Im2colArgs(
        batch=spec.batch,
        channels=spec.channels,
        in_h=spec.size[0],
        in_w=spec.size[1],
        out_h=spec.out_size[0],
        out_w=spec.out_size[1],
        kh=spec.kernel[0],
        kw=spec.kernel[1],
        stride_h=spec.stride[0],
        stride_w=spec.stride[1],
        dilation_h=spec.dilation[0],
        dilation_w=spec.dilation[1],
        pad_top=pad[0],
        pad_left=pad[1],
        src_stride=tuple(s // whole.itemsize for s in whole.strides[:3]),
        src_dtype=spec.dtype,
    )
    size = im2col_scratch_bytes(
        spec.channels, spec.out_size[1], geometry, layout.bits // 8, THREADS
    )
    scratch = np.zeros(size // 4, np.float32)
    pointers = {"src": whole, "dst": np.full(wanted.nbytes, 0xEE, np.uint8), "scratch": scratch}
    writes = ("dst", "scratch")
    return Case(args, pointers, writes, THREADS, align={"scratch": 64}), wanted


@pytest.mark.parametrize(
    "scheme, generic", [("qa8r", "go_im2col_qa8r"), ("bf16", "go_im2col_bf16")]
)
@pytest.mark.parametrize("where", LEVEL_IDS)
def test_is_the_reference_bit_for_bit(where, scheme, generic):
    runner = require(where)
    layout = formats.ROWS[scheme].layout(runner.level.arch)
    made = [make_case(spec, layout, i) for i, spec in enumerate(SPECS)]
    results = run_cases(runner, generic, [case for case, _ in made])
    for spec, (_, wanted), got in zip(SPECS, made, results, strict=True):
        assert np.array_equal(got["dst"], wanted), spec


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_what_is_not_finite_stays_in_its_lines(where):
    """A NaN, an infinity, and a range that overflows: the lines that read them, not others."""
    runner = require(where)
    layout = formats.INT8.layout(runner.level.arch)
    spec = Spec(1, (18, 9), 5, (3, 3), pad=(1, 1, 1, 1))
    case, _ = make_case(spec, layout, 0)
    image = case.pointers["src"]
    image[0, 2, 4, 3], image[0, 7, 0, 1] = np.nan, -np.inf
    image[0, 12, 1, 0], image[0, 13, 8, 4] = 3e38, -3e38
    rows = reference_ops.im2col(image[:, :18], spec.kernel, (18, 9), (1, 1), (1, 1), (1, 1))
    wanted = packing.pack_lhs_qa8r(layout, reference.quantize_rows(rows.reshape(162, 45), 9))
    (got,) = run_cases(runner, "go_im2col_qa8r", [case])
    assert np.array_equal(got["dst"], wanted)
