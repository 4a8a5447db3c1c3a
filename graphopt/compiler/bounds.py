"""How far results may be from those of a model, by precision."""

from __future__ import annotations

BOUNDS = {"fp32": 1e-4, "bf16": 0.025, "int8": 0.09, "int8+bf16": 0.09, "int4": 0.3}
"""Largest `relative_error` of a result without a second look.

Measured, compiled beside torch: the README's Block, small Linear, LSTM, Transformer and residual
convolutional networks, BERT, ViT and Llama of 4 layers as transformers initializes them, FunASR's
FSMN-VAD, encoder and decoder of the small recognizer and of Paraformer with 4 and 2 blocks. The
largest errors are 1.7e-6, 0.015, 0.06, 0.055, and 0.21 for int4 in groups of 32 (the decoder of
Paraformer). With a scale per channel, its encoder has 0.2, and FSMN-VAD 0.7, which needs the second
look. The bounds are half as much again, for models not measured; that of f32 is what 66 blocks of
Paraformer are held to in the tests."""


def bound_of(precision: str) -> float:
    """The bound of a precision, or of several with commas; the widest for what was not measured."""
    return max(BOUNDS.get(one, max(BOUNDS.values())) for one in precision.split(","))
