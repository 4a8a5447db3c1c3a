"""What a model can be besides its sizes, and which of that the decoder graph computes.

Every reader (graphopt/llm/readers) says what its source says in these terms; one list here refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.errors import UnsupportedDecoderError
from graphopt.llm.decoder.graph import DecoderShape

#: Rotary embeddings whose frequencies do not depend on the length of a prompt.
ROTARY = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Traits:
    """Of a decoder; the defaults are what graphopt/llm/decoder/graph.py computes.

    Attributes:
        activation: of the gate.
        rotary: how the frequencies of the rotary embedding were made.
        rotary_width: values of each head that are rotated; None for all.
        value_width: values of each head of value; None for as many as of key.
        window: tokens that a token sees, itself included; None for all.
        attention_scale: factor on scores; None for the root of the width of a head.
        attention_softcap: bound of scores, by tanh; 0 for none.
        attention_clamp: bound of query, key and value; 0 for none.
        attention_bias: largest bias that distance adds to scores (ALiBi); 0 for none.
        is_causal: whether a token sees only those before it.
        embedding_scale: factor on the embedding.
        residual_scale: factor on what a layer adds.
        logit_scale: factor on the logits.
        logit_softcap: bound of the logits, by tanh; 0 for none.
        experts: feed-forward networks to choose from; 0 for one that is always taken.
        is_parallel: whether attention and feed-forward read the same row.
        unread: names of settings and tensors of the source that no reader knows.
    """

    activation: str = "silu"
    rotary: str = "default"
    rotary_width: int | None = None
    value_width: int | None = None
    window: int | None = None
    attention_scale: float | None = None
    attention_softcap: float = 0.0
    attention_clamp: float = 0.0
    attention_bias: float = 0.0
    is_causal: bool = True
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float = 0.0
    experts: int = 0
    is_parallel: bool = False
    unread: tuple[str, ...] = ()


def check_traits(model: str, traits: Traits, shape: DecoderShape) -> None:
    """Refuses what the decoder graph does not compute.

    Raises:
        UnsupportedDecoderError: naming the first such thing.
    """
    for part, supported in _unsupported(traits, shape):
        raise UnsupportedDecoderError(model, part, supported)


def _unsupported(t: Traits, s: DecoderShape) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What of a model is not computed, and what is in its place."""
    if t.activation not in ("silu", "swish"):
        yield f"activation {t.activation!r}", ("silu",)
    if t.rotary not in ROTARY:
        yield f"rotary embedding {t.rotary!r}", ROTARY
    if t.rotary_width not in (None, s.head_dim):
        yield f"a rotary embedding of {t.rotary_width} of {s.head_dim} values", ("all values",)
    if t.value_width not in (None, s.head_dim):
        yield f"values of {t.value_width} beside keys of {s.head_dim}", ("heads of one width",)
    if t.window is not None and t.window < s.context:
        part = f"sliding-window attention over {t.window} of {s.context} positions"
        yield part, ("full attention", "a window of the whole context")
    usual = float(s.head_dim) ** -0.5
    if t.attention_scale is not None and abs(t.attention_scale - usual) > 1e-5 * usual:
        yield f"attention scaled by {t.attention_scale}", (f"{usual:.6g}",)
    zeros = {
        "attention soft-capped at": t.attention_softcap,
        "query, key and value clamped at": t.attention_clamp,
        "attention biased by distance, up to": t.attention_bias,
        "logits soft-capped at": t.logit_softcap,
        "experts, as many as": t.experts,
    }
    for name, value in zeros.items():
        if value:
            yield f"{name} {value}", ("none",)
    ones = {
        "an embedding": t.embedding_scale,
        "residuals": t.residual_scale,
        "logits": t.logit_scale,
    }
    for name, value in ones.items():
        if value != 1.0:
            yield f"{name} scaled by {value}", ("a scale of 1",)
    if not t.is_causal:
        yield "attention to later tokens", ("causal attention",)
    if t.is_parallel:
        yield "attention and feed-forward side by side", ("one behind the other",)
    for name in t.unread:
        yield f"{name}, which no reader knows", ("Llama, Mistral, Qwen2, Qwen3",)
