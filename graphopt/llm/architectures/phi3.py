"""Phi-3: Abdin et al., "Phi-3 Technical Report" (2024), and Phi-4, which has its layers.

Llama with query, key and value in one matrix, gate and up in another, and heads of which a part may
be rotated. A window of attention and LongRoPE, whose frequencies follow the length of a prompt, are
refused where the context is longer.
"""

from graphopt.llm.architectures.architecture import Architecture, InGguf, InTransformers
from graphopt.llm.architectures.cuts import Cut, words
from graphopt.llm.architectures.llama import IN_GGUF, IN_TRANSFORMERS

PHI3 = Architecture(
    name="Phi-3",
    transformers=InTransformers(
        "phi3",
        {**IN_TRANSFORMERS, "qkv": ("self_attn.qkv_proj",), "gate_up": ("mlp.gate_up_proj",)},
        settings=("original_max_position_embeddings", "partial_rotary_factor"),
    ),
    gguf=InGguf("phi3", {**IN_GGUF, "qkv": ("attn_qkv",), "gate_up": ("ffn_up",)}),
    cuts={"dbrx": Cut(words("{1,3}"))},
    honours=frozenset({"rotary_width"}),
)
