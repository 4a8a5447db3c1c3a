"""A decoder of a few thousand random weights, without torch."""

import numpy as np

from graphopt.llm.decoder.graph import DecoderShape, DecoderWeights, LayerWeights

SHAPE = DecoderShape(
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate=96,
    vocabulary=101,
    context=64,
    epsilon=1e-5,
)


def tiny_decoder(layers: int = 2, seed: int = 0) -> DecoderWeights:
    """Weights at which every part of the graph matters; the head is the embedding."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(0, 0.15, (rows, columns)).astype(np.float32)

    def norm() -> np.ndarray:
        return rng.normal(1, 0.15, SHAPE.hidden).astype(np.float32)

    width = SHAPE.heads * SHAPE.head_dim
    table = matrix(SHAPE.vocabulary, SHAPE.hidden)
    half = SHAPE.head_dim // 2
    return DecoderWeights(
        name="tiny",
        shape=SHAPE,
        frequencies=(10000.0 ** (-np.arange(half) / half)).astype(np.float32),
        attention_factor=1.0,
        embedding=table,
        layers=[
            LayerWeights(
                attention_norm=norm(),
                qkv=matrix(width + 2 * SHAPE.kv_heads * SHAPE.head_dim, SHAPE.hidden),
                output=matrix(SHAPE.hidden, width),
                feed_forward_norm=norm(),
                gate_up=matrix(2 * SHAPE.intermediate, SHAPE.hidden),
                down=matrix(SHAPE.hidden, SHAPE.intermediate),
            )
            for _ in range(layers)
        ],
        norm=norm(),
        head=table,
    )
