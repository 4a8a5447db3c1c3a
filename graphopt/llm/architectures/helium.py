"""Helium: Kyutai, "Helium 1" (2025); the layers of Llama, pairs of a head rotated side by side."""

from graphopt.llm.architectures.architecture import Architecture, InTransformers
from graphopt.llm.architectures.llama import IN_TRANSFORMERS

HELIUM = Architecture(
    name="Helium", transformers=InTransformers("helium", IN_TRANSFORMERS, interleaved=True)
)
