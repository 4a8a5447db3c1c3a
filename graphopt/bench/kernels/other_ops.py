"""Workloads other than products and attention: quantized rows, norms, FSMN memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from graphopt.bench.kernels.workloads import LIMITS, Array, Label, Step, Workload
from graphopt.kernels import reference_ops
from graphopt.kernels.arguments import F32, DepthwiseArgs, NormArgs, PackLhsArgs
from graphopt.kernels.formats import INT8
from graphopt.kernels.host_case import At, Case
from graphopt.kernels.layouts import Layout, packed_lhs_bytes

_EPS = 1e-5


def unpack_rows(rule: Layout, m: int, k: int, packed: Array) -> Array:
    """The values that packed int8 rows stand for, scale * (q - zp); see packing.py.

    Args:
        rule: the layout of the rows.
        m: number of rows.
        k: values of a row.
        packed: u8, whole panels of `rule.mr` rows.

    Returns:
        f32 [m, k].
    """
    depth = -(-k // rule.k_multiple) * rule.k_multiple
    panels = packed.reshape(-1, rule.mr * (depth + 16))
    body = panels[:, : rule.mr * depth].view(np.int8)
    q = body.reshape(-1, depth // rule.kr, rule.mr, rule.kr).transpose(0, 2, 1, 3)
    words = np.ascontiguousarray(panels[:, rule.mr * depth :]).view(np.int32)
    step = 1 if rule.biased else 2  # each value twice, see packing.py
    minus_zp, scale = (
        np.ascontiguousarray(words[:, at : at + step * rule.mr : step]).reshape(-1, 1)
        for at in (0, 2 * rule.mr)
    )
    values: Array = (q.reshape(-1, depth) + minus_zp).astype(np.float32) * scale.view(np.float32)
    return values[:m, :k]


def _empty_rows(arch: str, m: int, k: int) -> tuple[Layout, Array]:
    rule = INT8.layout(arch)
    return rule, np.zeros(packed_lhs_bytes(rule, m, k), np.uint8)


@dataclass(frozen=True)
class Quantize:
    """Rows [m, k] of f32 quantized and packed for the int8 GEMM."""

    m: int
    k: int

    @property
    def name(self) -> str:
        """Sizes."""
        return f"quantize {self.m}x{self.k}"

    def build(self, arch: str, threads: int) -> Workload:
        """Random normal rows."""
        x = np.random.default_rng(0).standard_normal((self.m, self.k), dtype=np.float32)
        rule, packed = _empty_rows(arch, self.m, self.k)
        args = PackLhsArgs(m=self.m, k=self.k, src_stride=self.k, src_dtype=F32)
        return Workload(
            Label(self.name, "quantize", "int8", self.m, None, self.k),
            0,
            self.m * self.k,
            None,
            Step("go_quantize_rows", Case(args, {"src": x, "dst": packed})),
            {"x": x},
            x.astype(np.float64),
            LIMITS["int8"],
            partial(unpack_rows, rule, self.m, self.k),
        )


@dataclass(frozen=True)
class Norm:
    """Layer norm of rows [m, k] of f32; ``quantized``: into packed int8 rows alone.

    ``rms``: RMS norm with a weight and without bias instead.
    """

    m: int
    k: int
    quantized: bool = False
    rms: bool = False

    @property
    def name(self) -> str:
        """Sizes, and what it writes."""
        kind = "rms norm" if self.rms else "norm"
        return f"{kind}{'+quantize' * self.quantized} {self.m}x{self.k}"

    def build(self, arch: str, threads: int) -> Workload:
        """Random normal rows, weight and bias."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.m, self.k), dtype=np.float32)
        weight, bias = (rng.standard_normal(self.k, dtype=np.float32) for _ in range(2))
        args = NormArgs(rows=self.m, cols=self.k, src_stride=self.k, src_dtype=F32, eps=_EPS)
        args.dst_stride, args.dst_dtype, args.rms = self.k, F32, self.rms
        rule, packed = _empty_rows(arch, self.m, self.k)
        pointers: dict[str, Array | At] = {"src": x, "weight": weight}
        if not self.rms:
            pointers["bias"] = bias
        if self.quantized:
            case = Case(args, pointers | {"packed": packed}, ("packed",))
        else:
            case = Case(args, pointers | {"dst": np.zeros((self.m, self.k), np.float32)})
        scheme = "int8" if self.quantized else "f32"
        workload = Workload(
            Label(self.name, "rms_norm" if self.rms else "norm", scheme, self.m, None, self.k),
            0,
            self.m * self.k,
            None,
            Step("go_norm", case),
            {"x": x, "weight": weight, "bias": bias},
            reference_ops.norm(x, weight, None if self.rms else bias, _EPS, self.rms),
            LIMITS[scheme],
        )
        if not self.quantized:
            return workload
        return replace(workload, read=partial(unpack_rows, rule, self.m, self.k))


@dataclass(frozen=True)
class Depthwise:
    """FSMN memory: depthwise convolution along time, residual added, [time, channels] of f32."""

    time: int
    channels: int
    taps: int

    @property
    def name(self) -> str:
        """Sizes."""
        return f"fsmn {self.time}x{self.channels} k={self.taps}"

    def build(self, arch: str, threads: int) -> Workload:
        """Random normal input and weights; as many steps before as after."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.time, self.channels), dtype=np.float32)
        w = rng.standard_normal((self.taps, self.channels), dtype=np.float32)
        strides = (x.size, self.channels)
        args = DepthwiseArgs(
            batch=1,
            t_in=self.time,
            t_out=self.time,
            channels=self.channels,
            kernel=self.taps,
            stride=1,
            dilation=1,
            pad_left=self.taps // 2,
            src_stride=strides,
            src_dtype=F32,
            identity=1,
            dst_stride=strides,
            dst_dtype=F32,
        )
        padded = np.zeros((self.time + self.taps - 1, self.channels))
        padded[self.taps // 2 : self.taps // 2 + self.time] = x
        exact = sum(padded[j : j + self.time] * w[j] for j in range(self.taps)) + x.astype(float)
        return Workload(
            Label(self.name, "depthwise", "f32", self.time, self.channels, self.taps),
            x.size * self.taps,
            x.size,
            None,
            Step("go_depthwise", Case(args, {"src": x, "weight": w, "dst": np.zeros_like(x)})),
            {"x": x, "w": w},
            exact,
            LIMITS["f32"],
        )
