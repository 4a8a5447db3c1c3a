"""Ops that no rule lowers, as torch itself makes them of others.

y = aten.diff(x)    ->    y = aten.sub(aten.narrow(x, 0, 1, n - 1), aten.narrow(x, 0, 0, n - 1))
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._export.utils import _get_decomp_for_cia, _is_cia_op
from torch.export import ExportedProgram

#: Ops by name, whatever the overload.
DECOMPOSED = frozenset(
    [
        *("argwhere", "cross", "cumulative_trapezoid", "diff", "dist", "frobenius_norm", "gcd"),
        *("isclose", "lcm", "ldexp", "linalg_cross", "linalg_matmul", "linalg_matrix_norm"),
        *("linalg_matrix_power", "linalg_norm", "linalg_vander", "linalg_vecdot", "matrix_power"),
        *("nanmean", "new_full", "norm_except_dim", "renorm", "resize_as", "special_log_ndtr"),
        *("special_xlog1py", "sum_to_size", "trace", "trapezoid", "trapz", "vander"),
        *("binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss"),
        *("hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "log_sigmoid_forward"),
        *("margin_ranking_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss"),
        *("triplet_margin_loss", "special_erf", "special_log_softmax", "special_logsumexp"),
        *("special_round", "special_softmax"),
    ]
)


def decompositions(program: ExportedProgram) -> dict[torch._ops.OperatorBase, Any]:
    """How torch makes those ops of a program of others that are in `DECOMPOSED`."""
    known = _known()
    return known if any(node.target in known for node in program.graph.nodes) else {}


@cache
def _known() -> dict[torch._ops.OperatorBase, Any]:
    packets = [getattr(torch.ops.aten, name) for name in DECOMPOSED]
    ops = [getattr(packet, overload) for packet in packets for overload in packet.overloads()]
    return {
        op: decomposition_table.get(op) or _get_decomp_for_cia(op)
        for op in ops
        if _is_of_tensors(op._schema) and (op in decomposition_table or _is_cia_op(op))
    }


def _is_of_tensors(schema: Any) -> bool:
    """Whether it gives tensors, and writes to none."""
    return not schema.is_mutable and all("Tensor" in str(r.type) for r in schema.returns)
