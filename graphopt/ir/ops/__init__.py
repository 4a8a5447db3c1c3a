"""Every op of a graph, each a dataclass that says all that is true of it (`graphopt/ir/op.py`)."""

from graphopt.ir.ops.aten import Aten
from graphopt.ir.ops.attention import Attention, CachedAttention, Rope
from graphopt.ir.ops.cif import Cif
from graphopt.ir.ops.contractions import Conv, Depthwise, Im2col, Linear, Matmul
from graphopt.ir.ops.elements import Check, Gather, Pointwise, Reduce
from graphopt.ir.ops.experts import GroupedMatmul
from graphopt.ir.ops.found_sizes import Nonzero, ReadSize
from graphopt.ir.ops.lines import Scan, Scatter, Sort
from graphopt.ir.ops.recurrent import Recurrent
from graphopt.ir.ops.rows import Norm, PackRows, QuantizeRows, Softmax, SplitRows
from graphopt.ir.ops.views import Cat, Expand, Pad, Permute, Reshape, Slice
from graphopt.ir.ops.windows import Pool

#: What generated code runs.
OPS = (
    Attention,
    CachedAttention,
    Cat,
    Check,
    Cif,
    Conv,
    Depthwise,
    Expand,
    Gather,
    GroupedMatmul,
    Linear,
    Matmul,
    Nonzero,
    Norm,
    PackRows,
    Pad,
    Im2col,
    Permute,
    Pointwise,
    Pool,
    QuantizeRows,
    ReadSize,
    Recurrent,
    Reduce,
    Reshape,
    Rope,
    Scan,
    Scatter,
    Slice,
    Softmax,
    Sort,
    SplitRows,
)

__all__ = [
    "OPS",
    "Aten",
    "Attention",
    "CachedAttention",
    "Cat",
    "Check",
    "Cif",
    "Conv",
    "Depthwise",
    "Expand",
    "Gather",
    "GroupedMatmul",
    "Im2col",
    "Linear",
    "Matmul",
    "Nonzero",
    "Norm",
    "PackRows",
    "Pad",
    "Permute",
    "Pointwise",
    "Pool",
    "QuantizeRows",
    "ReadSize",
    "Recurrent",
    "Reduce",
    "Reshape",
    "Rope",
    "Scan",
    "Scatter",
    "Slice",
    "Softmax",
    "Sort",
    "SplitRows",
]
