"""Small language models in files, for kinds of damage; needs torch and transformers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "llm"))

import test_chat
import test_gguf_file
import test_gguf_tokenizer
import test_meta_checkpoint
import tiny

#: Of the tokenizers; small, so that much of a file is its header.
_SIZES = {"hidden_size": 32, "intermediate_size": 32, "head_dim": 8, "num_hidden_layers": 1}


def gguf(path: Path) -> None:
    """A GGUF file with a tokenizer."""
    tokens = test_gguf_tokenizer.TOKENS
    model = tiny.model(vocab_size=len(tokens), **_SIZES)
    keys = {f"tokenizer.ggml.{key}": value for key, value in test_gguf_tokenizer.KEYS.items()}
    keys["tokenizer.chat_template"] = test_chat.TEMPLATE
    test_gguf_file.write(model, path, test_gguf_file.KINDS.Q8_0, keys=keys)


def directory(path: Path) -> None:
    """A model directory of Hugging Face."""
    test_chat.write_directory(path)


def meta(path: Path) -> None:
    """A model directory in Meta's layout."""
    sizes = {**_SIZES, "tie_word_embeddings": False, "vocab_size": 261 + 256}
    with tiny.torch.no_grad():
        test_meta_checkpoint.write(tiny.model(**sizes), path, lora=True)
    test_meta_checkpoint.write_tokenizer(path)
