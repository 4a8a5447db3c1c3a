"""Decoders of language models: graphs, cache and generation."""
