"""The sizes that ``graphopt bench kernels`` runs.

Those of Paraformer-large, GEMVs, and convolutions: the distinct ones of ResNet-50, two depthwise
ones, and those of wav2vec2's feature extractor.
"""

from __future__ import annotations

from graphopt.bench.kernels.attention_ops import Attention
from graphopt.bench.kernels.convolutions import Conv
from graphopt.bench.kernels.other_ops import Depthwise, Norm, Quantize
from graphopt.bench.kernels.workloads import Gemm, Spec

_RESNET = (
    ((224, 224), 3, 64, (7, 7), 2),
    ((56, 56), 64, 64, (3, 3), 1),
    ((56, 56), 256, 512, (1, 1), 2),
    ((28, 28), 128, 128, (3, 3), 1),
    ((14, 14), 256, 256, (3, 3), 1),
    ((14, 14), 1024, 2048, (1, 1), 2),
    ((7, 7), 512, 512, (3, 3), 1),
)
_WAV2VEC2 = (
    ((1, 3199), 512, 512, (1, 3), 2),
    ((1, 799), 512, 512, (1, 2), 2),
)

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
    *(Conv(scheme, *size) for size in _RESNET for scheme in ("f32", "bf16", "int8")),
    *(Conv("f32", *size, winograd=True) for size in _RESNET if size[3:] == ((3, 3), 1)),
    *(Conv(scheme, *size) for size in _WAV2VEC2 for scheme in ("f32", "int8")),
    Conv("f32", (112, 112), 32, 32, (3, 3), 1, groups=32),
    Conv("f32", (14, 14), 384, 384, (3, 3), 1, groups=384),
    Attention("f32", 500, 4, 128),
    Attention("bf16", 500, 4, 128),
)
