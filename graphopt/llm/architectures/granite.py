"""Granite: IBM, "Granite 3.0 Language Models" (2024).

Llama with factors on the embedding, on scores, on what each layer adds and on the logits.
"""

from graphopt.ir import DType, Value, scalar
from graphopt.llm.architectures.architecture import Architecture, InGguf, InTransformers
from graphopt.llm.architectures.llama import IN_GGUF, IN_TRANSFORMERS
from graphopt.llm.decoder.graph import DecoderGraph, LayerWeights


class GraniteGraph(DecoderGraph):
    """Values are multiplied by numbers that belong to the model."""

    def embedding(self) -> Value:
        """Rows of the table, multiplied."""
        factor = self.weights.traits.embedding_scale
        return self._times("embedding", super().embedding(), factor)

    def attention(self, where: str, number: int, layer: LayerWeights, x: Value) -> Value:
        """What attention adds to the stream, multiplied; see `DecoderGraph`.

        Args:
            where: place in the model.
            number: of the layer.
            layer: its weights.
            x: the stream, f32 [B, T, hidden].
        """
        added = super().attention(where, number, layer, x)
        return self._times(where, added, self.weights.traits.residual_scale)

    def feed_forward(self, where: str, layer: LayerWeights, x: Value) -> Value:
        """What the feed-forward network adds to the stream, multiplied; see `DecoderGraph`.

        Args:
            where: place in the model.
            layer: weights of the layer.
            x: the stream, f32 [B, T, hidden].
        """
        added = super().feed_forward(where, layer, x)
        return self._times(where, added, self.weights.traits.residual_scale)

    def logits(self, x: Value) -> Value:
        """Of normalized rows [R, hidden], which are divided: [R, vocabulary]."""
        return super().logits(self._times("head", x, 1.0 / self.weights.traits.logit_scale))

    def _times(self, where: str, x: Value, factor: float) -> Value:
        number = scalar.const(factor, DType.F32)
        product = scalar.apply("mul", scalar.operand(0, DType.F32), number)
        return x if factor == 1.0 else self.pointwise(where, product, [x], x.shape)


GRANITE = Architecture(
    name="Granite",
    transformers=InTransformers(
        "granite",
        IN_TRANSFORMERS,
        traits={
            "activation": "hidden_act",
            "attention_scale": "attention_multiplier",
            "embedding_scale": "embedding_multiplier",
            "logit_scale": "logits_scaling",
            "residual_scale": "residual_multiplier",
        },
    ),
    gguf=InGguf("granite", IN_GGUF, interleaved=True),
    graph_class=GraniteGraph,
    honours=frozenset({"attention_scale", "embedding_scale", "logit_scale", "residual_scale"}),
)
