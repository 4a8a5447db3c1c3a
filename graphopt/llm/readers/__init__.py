"""Decoders and tokenizers in models of transformers, GGUF files and Meta's checkpoints."""
