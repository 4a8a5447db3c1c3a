"""Llama: Touvron et al., "LLaMA" (2023); Grattafiori et al., "The Llama 3 Herd of Models" (2024).

SmolLM2 is one, with a cut of text of its own.
"""

from graphopt.llm.architectures.architecture import Architecture, InGguf, InTransformers
from graphopt.llm.architectures.cuts import Cut, words

IN_TRANSFORMERS = {
    "attention_norm": ("input_layernorm",),
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "feed_forward_norm": ("post_attention_layernorm",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
IN_GGUF = {
    "attention_norm": ("attn_norm",),
    "qkv": ("attn_q", "attn_k", "attn_v"),
    "output": ("attn_output",),
    "feed_forward_norm": ("ffn_norm",),
    "gate_up": ("ffn_gate", "ffn_up"),
    "down": ("ffn_down",),
}

LLAMA = Architecture(
    name="Llama",
    transformers=InTransformers("llama", IN_TRANSFORMERS),
    gguf=InGguf("llama", IN_GGUF, interleaved=True),
    meta={
        "attention_norm": ("attention_norm",),
        "qkv": ("attention.wq", "attention.wk", "attention.wv"),
        "output": ("attention.wo",),
        "feed_forward_norm": ("ffn_norm",),
        "gate_up": ("feed_forward.w1", "feed_forward.w3"),
        "down": ("feed_forward.w2",),
    },
    cuts={
        "llama-bpe": Cut(words("{1,3}"), whole_words=True, begins=True),
        "smollm": Cut(single_digits=True),
    },
)
