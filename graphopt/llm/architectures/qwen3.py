"""Qwen3: Yang et al., "Qwen3 Technical Report" (2025); Llama with norms of queries and keys."""

from graphopt.ir import Value
from graphopt.llm.architectures.architecture import Architecture, InGguf, InTransformers
from graphopt.llm.architectures.llama import IN_GGUF, IN_TRANSFORMERS
from graphopt.llm.decoder.graph import DecoderGraph, DecoderShape, Extents, LayerWeights


class Qwen3Graph(DecoderGraph):
    """Each head of query and key is normalized before it is rotated."""

    @classmethod
    def extents(cls, s: DecoderShape) -> dict[str, Extents]:
        """The norms, one for the heads of a layer."""
        return {**super().extents(s), "query_norm": (s.head_dim,), "key_norm": (s.head_dim,)}

    def heads(self, where: str, layer: LayerWeights, q: Value, k: Value) -> tuple[Value, Value]:
        """Query and key, normalized by head.

        Args:
            where: the attention's place in the model.
            layer: weights of the layer.
            q: f32 [B, T, heads, head_dim].
            k: f32 [B, T, kv_heads, head_dim].

        Returns:
            Both, in the same shapes.
        """
        q = self.norm(f"{where}.query_norm", q, layer.more["query_norm"])
        return q, self.norm(f"{where}.key_norm", k, layer.more["key_norm"])


QWEN3 = Architecture(
    name="Qwen3",
    transformers=InTransformers(
        "qwen3",
        {**IN_TRANSFORMERS, "query_norm": ("self_attn.q_norm",), "key_norm": ("self_attn.k_norm",)},
    ),
    gguf=InGguf("qwen3", {**IN_GGUF, "query_norm": ("attn_q_norm",), "key_norm": ("attn_k_norm",)}),
    graph_class=Qwen3Graph,
)
