"""Continuous integrate-and-fire as one torch op, for capture.

FunASR's own functions branch on whether a token fires at all and copy token by token; no tracer
gets through. As `torch.ops.graphopt.cif` the whole of it is a node whose number of tokens is a size
that depends on data, and which compiles to a kernel. Importing this module registers the op.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphopt.frontend.program_sizes import serve_none
from graphopt.kernels import reference_ops

serve_none("graphopt::cif")


@torch.library.custom_op("graphopt::cif", mutates_args=(), device_types="cpu")
def cif(
    hidden: Tensor, alphas: Tensor, threshold: float, rule: str, count: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens from frames.

    Args:
        hidden: f32[B, T, D].
        alphas: f32[B, T], the weight of each frame.
        threshold: where a token is full, for the rule `integrate`.
        rule: `integrate` (FunASR's `cif`) or `prefix` (its `cif_v1`).
        count: tokens of an item: `floor` or `round` of its sum of weights, or its `fires`.

    Returns:
        Tokens f32[B, N, D], zero behind the last fire of an item; peaks f32[B, T]; counts i32[B],
        of which N is the largest.
    """
    tokens, peaks, counts = reference_ops.cif(
        hidden.numpy(), alphas.numpy(), threshold, rule, count
    )
    return torch.from_numpy(tokens).float(), torch.from_numpy(peaks), torch.from_numpy(counts)


@cif.register_fake
def _cif_fake(
    hidden: Tensor, alphas: Tensor, threshold: float, rule: str, count: str
) -> tuple[Tensor, Tensor, Tensor]:
    batch, frames, width = hidden.shape
    same = alphas.shape[0] == batch and alphas.shape[1] == frames
    torch._check(same)  # type: ignore[no-untyped-call]
    tokens = torch.library.get_ctx().new_dynamic_size()
    return (
        hidden.new_empty(batch, tokens, width),
        hidden.new_empty(batch, frames),
        hidden.new_empty(batch, dtype=torch.int32),
    )
