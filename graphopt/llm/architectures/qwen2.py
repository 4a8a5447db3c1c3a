"""Qwen2: Yang et al., "Qwen2 Technical Report" (2024); Llama, query, key and value with biases."""

from graphopt.llm.architectures.architecture import Architecture, InGguf, InTransformers
from graphopt.llm.architectures.cuts import Cut, words
from graphopt.llm.architectures.llama import IN_GGUF, IN_TRANSFORMERS

QWEN2 = Architecture(
    name="Qwen2",
    transformers=InTransformers("qwen2", IN_TRANSFORMERS),
    gguf=InGguf("qwen2", IN_GGUF),
    cuts={"qwen2": Cut(words(""))},
)
