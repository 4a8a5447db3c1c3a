"""torch's kernels: MKL and oneDNN for products, fbgemm or oneDNN for int8, its own attention."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from graphopt.bench.kernels.workloads import Array, Operands
from graphopt.dependencies import require
from graphopt.kernels.reference import quantize_channels

if TYPE_CHECKING:
    from torch import Tensor

Call = Callable[[], Array]


def _call(compute: Callable[[], Tensor], threads: int) -> Call:
    """A call that computes with that many threads and without gradients."""
    torch = require("torch", "the benchmark")

    def call() -> Array:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with torch.inference_mode():
            result = compute()
        # Bits of bf16, as numpy has no such type: a view, like everything that is timed here.
        bits = result.view(torch.uint16) if result.dtype == torch.bfloat16 else result
        array: Array = bits.numpy()
        return array

    return call


def linear(work: Operands, threads: int) -> Call:
    """``torch.nn.functional.linear`` in f32."""
    torch = require("torch", "the benchmark")
    x, w = torch.from_numpy(work.data["x"]), torch.from_numpy(work.data["w"])
    return _call(lambda: torch.nn.functional.linear(x, w), threads)


def bf16_linear(work: Operands, threads: int) -> Call:
    """The same of bf16 tensors; x is converted in the call, as our packing does."""
    torch = require("torch", "the benchmark")
    x, w = torch.from_numpy(work.data["x"]), torch.from_numpy(work.data["w"]).bfloat16()
    return _call(lambda: torch.nn.functional.linear(x.bfloat16(), w), threads)


def dynamic_linear(work: Operands, threads: int) -> Call:
    """``torch.ops.quantized.linear_dynamic`` with the weights of our own quantization."""
    torch = require("torch", "the benchmark")
    x = torch.from_numpy(work.data["x"])
    weights = quantize_channels(work.data["w"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates its own quantized tensors
        scales = torch.from_numpy(weights.scale).double()
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        quantized = torch._make_per_channel_quantized_tensor(
            torch.from_numpy(weights.q), scales, zeros, 0
        )
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    return _call(lambda: torch.ops.quantized.linear_dynamic(x, packed), threads)


def layer_norm(work: Operands, threads: int) -> Call:
    """``torch.nn.functional.layer_norm``."""
    torch = require("torch", "the benchmark")
    x, weight, bias = (torch.from_numpy(work.data[name]) for name in ("x", "weight", "bias"))
    norm = torch.nn.functional.layer_norm
    return _call(lambda: norm(x, x.shape[1:], weight, bias, 1e-5), threads)


def depthwise(work: Operands, threads: int) -> Call:
    """``torch.nn.functional.conv1d`` with a group for each channel, [1, channels, time]."""
    torch = require("torch", "the benchmark")
    x = torch.from_numpy(work.data["x"].T.copy())[None]
    w = torch.from_numpy(work.data["w"].T.copy())[:, None]
    channels, pad = x.shape[1], w.shape[2] // 2
    conv = torch.nn.functional.conv1d
    return _call(lambda: conv(x, w, padding=pad, groups=channels)[0], threads)


def _attention(work: Operands, threads: int, dtype: str) -> Call:
    """Scaled dot product attention; heads before time, as torch wants them."""
    torch = require("torch", "the benchmark")
    q, k, v = (
        torch.from_numpy(work.data[name]).to(getattr(torch, dtype)).transpose(0, 1)[None]
        for name in "qkv"
    )
    attend = torch.nn.functional.scaled_dot_product_attention
    return _call(lambda: attend(q, k, v)[0].transpose(0, 1), threads)


def attention(work: Operands, threads: int) -> Call:
    """In f32."""
    return _attention(work, threads, "float32")


def bf16_attention(work: Operands, threads: int) -> Call:
    """In bf16."""
    return _attention(work, threads, "bfloat16")
