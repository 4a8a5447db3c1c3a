"""Products of a mixture of experts, whose rows are sorted by expert."""

from __future__ import annotations

import numpy as np

from graphopt.ir import Value
from graphopt.ir.ops import GroupedMatmul
from graphopt.passes.lowering.builder import Builder, Unsupported, require_f32
from graphopt.passes.lowering.schema import Rule, rules


def _grouped_matmul(b: Builder) -> Value:
    x, weight, ends = b.tensor("input"), b.tensor("weight"), b.tensor("offs")
    require_f32("a product by expert", x, weight)
    if weight.data is None:
        raise Unsupported("experts whose weights are computed at run time")
    by_row = np.ascontiguousarray(weight.data.transpose(0, 2, 1))
    experts, k, n = weight.shape
    transposed = Value(weight.dtype, (experts, n, k), weight.name, data=by_row)
    return b.emit(GroupedMatmul(), x=x, weight=transposed, ends=ends, shape=b.node.output.shape)


RULES: dict[str, Rule] = rules(
    _grouped_matmul,
    "transformers::grouped_mm_fallback(Tensor input, Tensor weight, Tensor offs) -> Tensor",
)
