"""Calls of the GEMM kernels and what they must give, for the tests of all three schemes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from harness import At, Case

from graphopt.kernels.arguments import ACTIVATIONS, BF16, F32, GemmArgs
from graphopt.kernels.reference import activation, bf16_from_f32, f32_from_bf16

#: One row or column less and more than every tile, primes, empty dimensions.
SHAPES = (
    (1, 1, 1),
    (1, 16, 32),
    (1, 129, 64),
    (2, 7, 31),
    (3, 8, 33),
    (4, 9, 560),
    (5, 15, 7),
    (6, 16, 2),
    (7, 17, 32),
    (8, 31, 65),
    (9, 32, 8),
    (11, 33, 31),
    (12, 32, 96),
    (13, 47, 5),
    (16, 48, 128),
    (17, 53, 129),
    (25, 64, 33),
    (41, 67, 61),
    (0, 5, 8),
    (4, 0, 8),
    (5, 19, 0),
    (0, 0, 0),
)

#: Few rows, as in decoding: paths of their own, whose results are those of the GEMM.
FEW_ROWS = tuple(
    (m, n, k)
    for m in (1, 2, 3, 4)
    for n, k in ((1, 33), (7, 96), (8, 1), (9, 131), (15, 64), (16, 257), (17, 32), (48, 61))
)


@dataclass(frozen=True)
class Options:
    """Everything about a call but its operands."""

    act: str = "none"
    bias: bool = False
    last: str = "none"
    factor: str = ""  # "f32" or "bf16"
    residuals: tuple[str, ...] = ()  # "f32" or "bf16"
    dst: str = "f32"
    dst_pad: int = 0
    in_place: bool = False  # the first residual is the destination
    threads: int = 1


SLOPE = 0.1
#: Cycled over the shapes, so that every option meets several shapes.
OPTIONS = (
    Options(),
    Options(bias=True, dst_pad=3),
    Options(act="relu", bias=True, dst="bf16"),
    Options(residuals=("f32",), threads=2),
    Options(bias=True, residuals=("bf16", "f32"), dst_pad=1),
    Options(bias=True, residuals=("f32",), in_place=True, dst_pad=5),
    Options(residuals=("bf16", "bf16"), dst="bf16", dst_pad=2, threads=3),
    Options(factor="f32", bias=True),
    Options(act="relu", factor="bf16", residuals=("f32",), dst="bf16"),
    Options(bias=True, residuals=("f32",), last="relu"),
    Options(residuals=("f32", "bf16"), last="relu6", dst="bf16"),
    Options(factor="f32", last="relu"),
    *(
        Options(act=act, bias=True, factor="f32" if act == "silu" else "")
        for act in ACTIVATIONS[2:]
    ),
)


@dataclass
class Call:
    """A kernel call and the data of its epilogue."""

    case: Case
    options: Options
    bias: np.ndarray | None
    factor: np.ndarray | None  # f32 [m, n]
    residuals: list[np.ndarray]  # f32 [m, n] each
    untouched: np.ndarray  # dst before the call

    def finish(self, y: np.ndarray, bias_done: bool) -> np.ndarray:
        """Apply the epilogue to f32 results [m, n]; each step rounded to f32."""
        if self.bias is not None and not bias_done:
            y = y + self.bias
        with np.errstate(all="ignore"):
            y = activation(y, self.options.act, SLOPE).astype(np.float32)
            if self.factor is not None:
                y = y * self.factor
            for residual in self.residuals:
                y = y + residual
            return activation(y, self.options.last, SLOPE).astype(np.float32)

    def output(self, result: dict[str, np.ndarray]) -> np.ndarray:
        """The stored f32 [m, n]; checks that the row padding is untouched."""
        n = self.case.args.n
        dst = result["dst"]
        np.testing.assert_array_equal(dst[:, n:], self.untouched[:, n:], "row padding written")
        stored = np.ascontiguousarray(dst[:, :n])
        return f32_from_bf16(stored) if self.options.dst == "bf16" else stored


def make_call(shape: tuple[int, int, int], options: Options, seed: int, operands: dict) -> Call:
    """Build a call; ``operands`` holds lhs, rhs and perhaps lhs_stride."""
    m, n, k = shape
    rng = np.random.default_rng(seed)
    args = GemmArgs(m=m, n=n, k=k, lhs_stride=operands.pop("lhs_stride", 0))
    width = n + options.dst_pad
    args.dst_stride = width
    args.dst_dtype = BF16 if options.dst == "bf16" else F32
    args.epilogue.activation = ACTIVATIONS.index(options.act)
    args.epilogue.last = ACTIVATIONS.index(options.last)
    args.epilogue.slope = SLOPE
    pointers: dict[str, np.ndarray | At] = dict(operands)
    bias = rng.standard_normal(n).astype(np.float32) if options.bias else None
    if bias is not None:
        pointers["epilogue.bias"] = bias
    factor = None
    if options.factor:
        factor = rng.standard_normal((m, n)).astype(np.float32)
        memory = bf16_from_f32(factor) if options.factor == "bf16" else factor
        factor = f32_from_bf16(memory) if options.factor == "bf16" else factor
        args.epilogue.factor_dtype = BF16 if options.factor == "bf16" else F32
        args.epilogue.factor_stride, pointers["epilogue.factor"] = n, memory
    dst = np.full((m, width), 12345, np.uint16 if options.dst == "bf16" else np.float32)
    residuals = []
    for i, kind in enumerate(options.residuals):
        values = rng.standard_normal((m, n)).astype(np.float32)
        args.epilogue.residual_dtype[i] = BF16 if kind == "bf16" else F32
        if i == 0 and options.in_place:
            dst[:, :n] = values
            memory, args.epilogue.residual_stride[i] = dst, width
        else:
            memory = bf16_from_f32(values) if kind == "bf16" else values
            args.epilogue.residual_stride[i] = n
        residuals.append(f32_from_bf16(memory) if kind == "bf16" else values)
        pointers[f"epilogue.residual[{i}]"] = memory
    pointers["dst"] = dst
    case = Case(args, pointers, threads=options.threads)
    return Call(case, options, bias, factor, residuals, dst.copy())


#: Bound for the activations in units of f32 rounding, relative to max(1, |value|): the
#: polynomials of go_math.h are good to a few units, and gelu multiplies the error of a
#: value near 1 by its argument.
ACTIVATION_ERROR = 2e-6


def check(call: Call, got: np.ndarray, want: np.ndarray, label: str) -> None:
    """Compare stored results with f32 results ``want``: same bits unless an activation ran."""
    exact = call.options.act in ("none", "relu", "relu6")
    if call.options.dst == "bf16":
        want = f32_from_bf16(bf16_from_f32(want))
    if exact:
        np.testing.assert_array_equal(
            got.view(np.uint32) * ~np.isnan(got), want.view(np.uint32) * ~np.isnan(want), label
        )
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want), label)
    else:
        np.testing.assert_allclose(got, want, ACTIVATION_ERROR, ACTIVATION_ERROR, err_msg=label)
