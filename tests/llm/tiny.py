"""Language models of a few thousand weights, made on the spot."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLASSES = ("Llama", "Qwen2", "Qwen3")
VOCABULARY, CONTEXT = 101, 64

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def model(name: str = "Llama", **changes: Any) -> Any:
    """A causal language model with weights of a size at which every part matters."""
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    config = getattr(transformers, f"{name}Config")(**{**sizes, **changes})
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(float(parameter.dim() == 1), 0.15)
    return made


def prompts(sequences: int = 2, length: int = 7) -> Any:
    """Token numbers above those with a meaning."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, VOCABULARY, (sequences, length), generator=generator)
