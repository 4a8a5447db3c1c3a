"""Whether the weights of a decoder have the sizes that its file says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphopt.llm.decoder.graph import DecoderShape, DecoderWeights, Extents
from graphopt.llm.decoder.matrices import extents_of


def misfit(weights: DecoderWeights) -> str | None:
    """The first size of a decoder that contradicts the others; None if they agree."""
    s = weights.shape
    counts = {
        "hidden width": s.hidden,
        "heads": s.heads,
        "key and value heads": s.kv_heads,
        "pairs in a head": s.head_dim // 2,
        "width of the feed-forward layer": s.intermediate,
        "tokens": s.vocabulary,
        "positions": s.context,
        "layers": len(weights.layers),
    }
    for name, count in counts.items():
        if count < 1:
            return f"it has {count} {name}"
    if s.heads % s.kv_heads or s.head_dim % 2:
        return f"it has {s.heads} heads of {s.head_dim} values, {s.kv_heads} of key and value"
    if not (0 <= s.epsilon < np.inf and np.isfinite(weights.frequencies).all()):
        return "its frequencies or its epsilon are no numbers"
    for name, got, wanted in _extents(weights, s):
        if got != wanted:
            return f"{name} has sizes {got}, not {wanted}"
    return None


def _extents(weights: DecoderWeights, s: DecoderShape) -> Iterator[tuple[str, Extents, Extents]]:
    """Name, extents and expected extents of everything."""
    table = (s.vocabulary, s.hidden)
    yield "the embedding", extents_of(weights.embedding), table
    yield "the head", extents_of(weights.head), table
    yield "the last norm", weights.norm.shape, (s.hidden,)
    yield "the rotary embedding", weights.frequencies.shape, (s.head_dim // 2,)
    expected = weights.graph_class.extents(s)
    for number, layer in enumerate(weights.layers):
        parts = {**vars(layer), **layer.more}
        for name, wanted in expected.items():
            if parts[name] is not None:
                yield f"{name} of layer {number}", extents_of(parts[name]), wanted
