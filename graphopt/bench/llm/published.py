"""What others publish for language models on Arm: their models, on their machines.

They say how far a prediction is from what people get. None of these machines is a Neoverse N2 with
the same number of cores, and some models are larger: they are no measurements of graphopt's peers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """A figure of somebody else.

    Attributes:
        engine: what ran.
        model: what it ran, and its precision.
        machine: on what.
        prefill: tokens of a prompt a second, as published; "" where it is not.
        decode: new tokens a second, likewise.
        source: where it is published.
    """

    engine: str
    model: str
    machine: str
    prefill: str
    decode: str
    source: str

    def as_dict(self) -> dict[str, Any]:
        """All of it, marked as published."""
        return {**asdict(self), "published": True}


_LLAMA = "Llama 3.2 1B int4"
_EXECUTORCH = "ExecuTorch + KleidiAI"
_README = "executorch examples/models/llama/README.md"
_LLAMA_8B = "Llama 3.1 8B int4"

PUBLISHED = (
    Published(
        _EXECUTORCH, _LLAMA, "Galaxy S24+", "> 350", "> 40", "pytorch.org/blog/unleashing-ai-mobile"
    ),
    Published(_EXECUTORCH, f"{_LLAMA}, SpinQuant", "OnePlus 12", "260.5", "50.2", _README),
    Published(_EXECUTORCH, f"{_LLAMA}, QAT + LoRA", "OnePlus 12", "252.0", "45.8", _README),
    Published(
        "torchchat",
        _LLAMA_8B,
        "Graviton4, 16 threads",
        "",
        "24.6",
        "Arm learning path, quoted in arm-learning-paths#1447",
    ),
    Published(
        "torch.compile + KleidiAI", _LLAMA_8B, "Neoverse V2", "288", "43.4", "pytorch#158250"
    ),
    Published(
        "llama.cpp",
        "Llama 3 8B Q4_K_M",
        "Neoverse N2, 64 threads",
        "197 (batch 16)",
        "24.3",
        "llama.cpp#13886",
    ),
)
