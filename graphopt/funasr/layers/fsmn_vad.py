"""The caches of FSMN-VAD's encoder, which is captured as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def empty_cache(encoder: Any, batch: int) -> dict[str, Tensor]:
    """Caches of zeros for the memory blocks of an FSMN encoder: the frames before the first.

    Args:
        encoder: FunASR's `FSMN`.
        batch: items of the batch.

    Returns:
        f32[batch, proj_dim, (lorder - 1) * lstride, 1] for each memory block, by FunASR's names.
    """
    cache = {}
    for layer in encoder.fsmn:
        block = layer.fsmn_block
        past = (block.lorder - 1) * block.lstride
        cache[f"cache_layer_{layer.stack_layer}"] = torch.zeros(batch, block.dim, past, 1)
    return cache
