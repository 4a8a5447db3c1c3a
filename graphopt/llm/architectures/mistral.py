"""Mistral: Jiang et al., "Mistral 7B" (2023); the layers of Llama, and a window of attention.

Its GGUF files say that they are of Llama.
"""

from graphopt.llm.architectures.architecture import Architecture, InTransformers
from graphopt.llm.architectures.llama import IN_TRANSFORMERS

MISTRAL = Architecture(name="Mistral", transformers=InTransformers("mistral", IN_TRANSFORMERS))
