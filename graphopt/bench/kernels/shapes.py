"""The sizes that ``graphopt bench kernels`` runs: those of Paraformer-large, and GEMVs."""

from __future__ import annotations

from graphopt.bench.kernels.attention_ops import Attention
from graphopt.bench.kernels.other_ops import Depthwise, Norm, Quantize
from graphopt.bench.kernels.workloads import Gemm, Spec

SPECS: tuple[Spec, ...] = (
    Gemm("int8", 128, 512, 512),
    Gemm("int8", 168, 2048, 512),
    Gemm("int8", 128, 512, 2048),
    Gemm("int8", 1, 2048, 2048),
    *(
        Gemm("int4", *size, group)
        for size in ((128, 512, 512), (168, 2048, 512), (1, 2048, 2048))
        for group in (None, 32, 64, 128)
    ),
    Gemm("bf16", 128, 512, 512),
    Gemm("bf16", 168, 2048, 512),
    Gemm("f32", 128, 512, 512),
    Gemm("f32", 168, 2048, 512),
    Quantize(128, 512),
    Norm(168, 512),
    Norm(168, 512, quantized=True),
    Depthwise(500, 512, 11),
    Attention("f32", 500, 4, 128),
    Attention("bf16", 500, 4, 128),
)
