"""Convolutions as workloads: windows that a kernel copies, or packs for a product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.bench.kernels.workloads import LIMITS, Array, Label, Step, Workload
from graphopt.kernels import reference_ops
from graphopt.kernels.arguments import F32, ConvArgs, GemmArgs, Im2colArgs
from graphopt.kernels.formats import BF16, INT8
from graphopt.kernels.formats import F32 as F32_FORMAT
from graphopt.kernels.host_case import At, Case
from graphopt.kernels.layouts import packed_lhs_bytes
from graphopt.kernels.scratch import (
    conv_scratch_bytes,
    im2col_scratch_bytes,
    winograd_scratch_bytes,
)
from graphopt.kernels.winograd import transformed
from graphopt.passes.support.conv_cuts import Work, best_cut, winograd_work

_FORMATS = {"bf16": BF16, "int8": INT8}


@dataclass(frozen=True)
class Conv:
    """A convolution of one image, channels innermost, with as many positions as stride allows.

    Attributes:
        scheme: f32, or bf16 or int8: a product of packed windows.
        size: height and width of the image; height is 1 of a signal.
        in_c: channels of the image.
        out_c: channels of the result.
        taps: height and width of a window; the image is padded with half of it on all sides,
            a signal with nothing.
        stride: along both axes.
        groups: of channels, with f32: 1, or `in_c`.
        winograd: whether transformed tiles are multiplied; multiply-adds are counted as without.
    """

    scheme: str
    size: tuple[int, int]
    in_c: int
    out_c: int
    taps: tuple[int, int]
    stride: int
    groups: int = 1
    winograd: bool = False

    @property
    def name(self) -> str:
        """Scheme, channels, window and size of the image."""
        size, taps = ("x".join(str(e) for e in pair) for pair in (self.size, self.taps))
        kind = "depthwise" if self.groups > 1 else "conv"
        channels = f"{self.in_c}" if self.groups > 1 else f"{self.in_c}-{self.out_c}"
        how = " winograd" if self.winograd else ""
        return f"{kind} {self.scheme} {channels} {taps} of {size} /{self.stride}{how}"

    @property
    def _padding(self) -> tuple[int, int]:
        return (0, 0) if self.size[0] == 1 else (self.taps[0] // 2, self.taps[1] // 2)

    @property
    def _out(self) -> tuple[int, int]:
        each = zip(self.size, self.taps, self._padding, strict=True)
        rows, columns = ((e + 2 * p - k) // self._along(e) + 1 for e, k, p in each)
        return rows, columns

    def _along(self, extent: int) -> int:
        return self.stride if extent > 1 else 1

    def build(self, arch: str, threads: int) -> Workload:
        """Random normal image and weights; windows are packed in a step but for f32."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((1, *self.size, self.in_c), dtype=np.float32)
        inner = self.in_c // self.groups
        w = rng.standard_normal((self.out_c, inner, *self.taps), dtype=np.float32)
        positions, depth = self._out[0] * self._out[1], self.taps[0] * self.taps[1] * inner
        make = self._product if self.scheme in _FORMATS else self._kernel
        pack, kernel = make(arch, threads, x, w)
        strides = (self._along(self.size[0]), self.stride)
        exact = reference_ops.conv2d(x, w, self._out, strides, (1, 1), self._padding, self.groups)
        return Workload(
            Label(self.name, "conv", self.scheme, positions, self.out_c, depth),
            positions * self.out_c * depth,
            x.size,
            pack,
            kernel,
            {"x": x, "w": w},
            exact.reshape(positions, self.out_c),
            LIMITS[self.scheme],
        )

    def _window(self) -> dict[str, int]:
        names = ("in_h", "in_w", "out_h", "out_w", "kh", "kw", "stride_h", "stride_w")
        strides = (self._along(self.size[0]), self.stride)
        values = (*self.size, *self._out, *self.taps, *strides)
        pads = dict(zip(("pad_top", "pad_left"), self._padding, strict=True))
        return dict(zip(names, values, strict=True)) | {"dilation_h": 1, "dilation_w": 1} | pads

    def _kernel(self, arch: str, threads: int, x: Array, w: Array) -> tuple[None, Step]:
        """The convolution in f32, cut as for so many cores."""
        positions, rows = self._out[0] * self._out[1], w.transpose(0, 2, 3, 1)
        kernel, work = "go_conv", Work(positions, 1, self.out_c, w[0].size)
        if self.winograd:
            kernel, rows = "go_winograd", transformed(w)
            work = winograd_work(1, self._out, self.in_c, self.out_c)
        rows = rows.reshape(self.out_c, -1)
        rhs = np.ascontiguousarray(rows.T)
        if self.groups == 1:
            rhs = F32_FORMAT.pack(F32_FORMAT.layout(arch), rows, None)
        cut = best_cut(work, threads)
        args = ConvArgs(
            batch=1,
            groups=self.groups,
            in_c=self.in_c,
            out_c=self.out_c,
            **self._window(),
            tile_rows=cut.rows,
            tile_cols=cut.columns,
            src_stride=(x.size, self.size[1] * self.in_c, self.in_c),
            src_dtype=F32,
            dst_stride=(positions * self.out_c, self._out[1] * self.out_c, self.out_c),
            dst_dtype=F32,
        )
        sizes = (self.in_c, self.out_c, self.groups, *self.taps, cut.rows, threads)
        scratch = conv_scratch_bytes(*sizes)
        if self.winograd:
            scratch = winograd_scratch_bytes(self.in_c, cut.rows, threads)
        pointers: dict[str, Array | At] = {
            "src": x,
            "rhs": rhs,
            "dst": np.zeros((positions, self.out_c), np.float32),
            "scratch": np.zeros(scratch // 4, np.float32),
        }
        return None, Step(kernel, Case(args, pointers, align={"scratch": 64}))

    def _product(self, arch: str, threads: int, x: Array, w: Array) -> tuple[Step, Step]:
        """The windows packed as rows, and their product with the weights."""
        format = _FORMATS[self.scheme]
        positions, depth = self._out[0] * self._out[1], w[0].size
        rule = format.layout(arch)
        packed = np.zeros(packed_lhs_bytes(rule, positions, depth), np.uint8)
        windows = Im2colArgs(
            batch=1,
            channels=self.in_c,
            **self._window(),
            src_stride=(x.size, self.size[1] * self.in_c, self.in_c),
            src_dtype=F32,
        )
        geometry = reference_ops.Geometry(
            self.taps, (self._along(self.size[0]), self.stride), (1, 1)
        )
        scratch = np.zeros(
            im2col_scratch_bytes(self.in_c, self._out[1], geometry, rule.bits // 8, threads) // 4,
            np.float32,
        )
        given: dict[str, Array | At] = {"src": x, "dst": packed, "scratch": scratch}
        pack = Step(f"go_im2col_{format.rows}", Case(windows, given, align={"scratch": 64}))
        rows, scale = w.transpose(0, 2, 3, 1).reshape(self.out_c, -1), None
        if format.quantize is not None:
            rows, scale = format.quantize(rows, 0)
        args = GemmArgs(m=positions, n=self.out_c, k=depth, dst_stride=self.out_c, dst_dtype=F32)
        pointers: dict[str, Array | At] = {
            "lhs": packed,
            "rhs": format.pack(rule, rows, scale),
            "dst": np.zeros((positions, self.out_c), np.float32),
        }
        return pack, Step(format.kernel, Case(args, pointers))
