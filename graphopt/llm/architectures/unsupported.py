"""What of a model a class of models does not compute."""

from __future__ import annotations

from collections.abc import Iterator

from graphopt.llm.decoder.graph import DecoderShape
from graphopt.llm.decoder.traits import Traits

#: Rotary embeddings whose frequencies do not depend on the length of a prompt, or only beyond a
#: length that a reader gives.
ROTARY = ("default", "linear", "llama3", "yarn", "longrope")

Refusal = tuple[str, str, tuple[str, ...]]


def unsupported(t: Traits, s: DecoderShape) -> Iterator[Refusal]:
    """What `DecoderGraph` as it is does not compute.

    Yields:
        The name of a trait, what it is, and what would be computed in its place.
    """
    if t.activation not in ("silu", "swish"):
        yield "activation", f"activation {t.activation!r}", ("silu",)
    if t.rotary not in ROTARY:
        yield "rotary", f"rotary embedding {t.rotary!r}", ROTARY
    if t.rotary_width not in (None, s.head_dim):
        part = f"a rotary embedding of {t.rotary_width} of {s.head_dim} values"
        yield "rotary_width", part, ("all values",)
        if t.rotary_width % 2 or not 0 < t.rotary_width < s.head_dim:
            yield "rotary", part, ("an even number of them",)
    if t.rotary_reach is not None and t.rotary_reach < s.context:
        part = f"rotary embedding {t.rotary!r} of other frequencies behind {t.rotary_reach} of "
        yield "rotary_reach", f"{part}{s.context} positions", _within(t.rotary_reach)
    if t.value_width not in (None, s.head_dim):
        part = f"values of {t.value_width} beside keys of {s.head_dim}"
        yield "value_width", part, ("heads of one width",)
    if t.window is not None and t.window < s.context:
        part = f"sliding-window attention over {t.window} of {s.context} positions"
        yield "window", part, ("full attention", *_within(t.window))
    usual = float(s.head_dim) ** -0.5
    if t.attention_scale is not None and abs(t.attention_scale - usual) > 1e-5 * usual:
        yield "attention_scale", f"attention scaled by {t.attention_scale}", (f"{usual:.6g}",)
    zeros = {
        "attention_softcap": "attention soft-capped at",
        "attention_clamp": "query, key and value clamped at",
        "attention_bias": "attention biased by distance, up to",
        "logit_softcap": "logits soft-capped at",
        "experts": "experts, as many as",
    }
    for trait, what in zeros.items():
        if getattr(t, trait):
            yield trait, f"{what} {getattr(t, trait)}", ("none",)
    ones = {
        "embedding_scale": "an embedding",
        "residual_scale": "residuals",
        "logit_scale": "logits",
    }
    for trait, what in ones.items():
        if getattr(t, trait) != 1.0:
            yield trait, f"{what} scaled by {getattr(t, trait)}", ("a scale of 1",)
    if not t.is_causal:
        yield "is_causal", "attention to later tokens", ("causal attention",)
    if t.is_parallel:
        part = "attention and feed-forward side by side"
        yield "is_parallel", part, ("one behind the other",)


def _within(context: int) -> tuple[str, ...]:
    """What would be computed of a model that changes behind some positions."""
    how = "compile llm --context, or max_position_embeddings of a configuration"
    return (f"a context of {context} positions: {how}",)
