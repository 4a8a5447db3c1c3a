"""What a model can be besides its sizes.

Every reader (graphopt/llm/readers) says what its source says in these terms; one list refuses what
a class of models does not compute (graphopt/llm/architectures/unsupported.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """Of a decoder; the defaults are what `DecoderGraph` computes.

    Attributes:
        activation: of the gate.
        rotary: how the frequencies of the rotary embedding were made.
        rotary_width: values of each head that are rotated; None for all.
        rotary_reach: positions up to which the frequencies are these; None for all.
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
    rotary_reach: int | None = None
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
