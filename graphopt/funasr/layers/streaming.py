"""Chunks of Paraformer streaming as modules whose caches are inputs and outputs, for capture.

FunASR's caches grow from nothing to what a chunk looks back. Here they always have their last size,
and a count says how much of it has been filled, from the end: so one graph serves every chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphopt.funasr.layers.paraformer import Predictor

_HIDDEN = -10000.0  # added to the scores of what is not there
_CHUNK, _CACHED, _TOKENS = 15, 40, 6  # frames and tokens of the example inputs
Heads = tuple[Tensor, Tensor]  # keys and values, f32[1, heads, frames, width]


def unsupported(encoder: Any, decoder: Any) -> tuple[str, str] | None:
    """What FunASR's parts have that chunks do not, and what they should have; None if they fit."""
    for layer in decoder.decoders:
        if layer.self_attn.pad_fn.padding != (layer.self_attn.kernel_size - 1, 0):
            return "a decoder that looks ahead", "sanm_shfit of (kernel_size - 1) / 2"
    if not (encoder.normalize_before and decoder.normalize_before):
        return "normalize_before: false", "normalize_before: true"
    return None


def _example_heads(attention: Any) -> Heads:
    shape = (1, attention.h, _CACHED, attention.d_k)
    return torch.randn(shape), torch.randn(shape)


def _check_alone(*inputs: Tensor) -> None:
    """Tells a tracer that a chunk is of one signal."""
    for one in inputs:
        torch._check(one.shape[0] == 1)  # type: ignore[no-untyped-call]


def _mask(cached: Tensor, extent: Any, frames: Any) -> Tensor:
    """f32[1, 1, 1, extent + frames]: hides what of a cache has not been filled."""
    at = torch.arange(extent + frames)
    empty: Tensor = (at < extent - cached).float()[None, None, None, :]
    return empty * _HIDDEN


def _attend(attention: Any, query: Tensor, heads: Heads, cache: Heads, mask: Tensor) -> Tensor:
    """What queries find in a cache and in the chunk: f32[1, T, D]."""
    keys, values = (torch.cat(pair, 2) for pair in zip(cache, heads, strict=True))
    scores = torch.matmul(query * attention.d_k**-0.5, keys.transpose(-2, -1)) + mask
    found = torch.matmul(torch.softmax(scores, -1), values).transpose(1, 2)
    output: Tensor = attention.linear_out(found.reshape(*found.shape[:2], -1))
    return output


class EncoderChunk(nn.Module):
    """A chunk of frames with positions to hidden frames: FunASR's `SANMEncoderChunkOpt`."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList([*encoder.encoders0, *encoder.encoders])
        self.after_norm = encoder.after_norm
        self.eval()

    def example(self) -> tuple[Any, ...]:
        """Inputs for capture: a chunk behind caches that are half full."""
        attentions: list[Any] = [layer.self_attn for layer in self.layers]
        frames = torch.randn(1, _CHUNK, attentions[0].linear_q_k_v.in_features)
        return frames, torch.tensor([_CACHED // 2]), [_example_heads(a) for a in attentions]

    def forward(
        self, frames: Tensor, cached: Tensor, caches: list[Heads]
    ) -> tuple[Tensor, list[Heads]]:
        """Encodes a chunk.

        Args:
            frames: f32[1, T, F].
            cached: i64[1], frames of the caches that are filled.
            caches: of each layer, keys and values before the chunk, f32[1, heads, K, width].

        Returns:
            f32[1, T, D], and of each layer the keys and values of the chunk.
        """
        _check_alone(frames)
        mask = _mask(cached, caches[0][0].shape[2], frames.shape[1])
        made = []
        layers: list[Any] = list(self.layers)
        for layer, cache in zip(layers, caches, strict=True):
            attention = layer.self_attn
            query, keys, values, value = attention.forward_qkv(layer.norm1(frames))
            found = _attend(attention, query, (keys, values), cache, mask)
            found = found + attention.forward_fsmn(value, None)
            frames = frames + found if layer.in_size == layer.size else found
            frames = frames + layer.feed_forward(layer.norm2(frames))
            made.append((keys, values))
        return self.after_norm(frames), made


class WeighingChunk(EncoderChunk):
    """The same with what each hidden frame adds to a token: FunASR's `CifPredictorV2`."""

    def __init__(self, encoder: Any, predictor: Any) -> None:
        super().__init__(encoder)
        self.predictor = Predictor(predictor)

    def forward(self, frames: Tensor, cached: Tensor, caches: list[Heads]) -> Any:
        """Encodes and weighs a chunk.

        Args:
            frames: f32[1, T, F].
            cached: i64[1], frames of the caches that are filled.
            caches: of each layer, keys and values before the chunk, f32[1, heads, K, width].

        Returns:
            Hidden frames f32[1, T, D], their weights f32[1, T], and of each layer the keys and
            values of the chunk.
        """
        hidden, made = super().forward(frames, cached, caches)
        return hidden, self.predictor._weights(hidden), made


class DecoderChunk(nn.Module):
    """Embeddings of a chunk's tokens to scores: FunASR's `ParaformerSANMDecoder`."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.attending = decoder.decoders
        # FunASR passes over a single one of these.
        plain = decoder.decoders2 if decoder.num_blocks - decoder.att_layer_num > 1 else []
        self.plain = nn.ModuleList([*plain])
        self.last = decoder.decoders3
        self.after_norm, self.output_layer = decoder.after_norm, decoder.output_layer
        self.eval()

    def example(self) -> tuple[Any, ...]:
        """Inputs for capture: a chunk behind caches that are half full."""
        width = self.after_norm.normalized_shape[0]
        return (
            torch.randn(1, _CHUNK, width),
            torch.randn(1, _TOKENS, width),
            torch.tensor([_CACHED // 2]),
            [_example_heads(layer.src_attn) for layer in self.attending],
            self.empty_memories(),
        )

    def empty_memories(self) -> list[Tensor]:
        """What comes before the first chunk: zeros f32[1, D, taps - 1] of each layer."""
        width = self.after_norm.normalized_shape[0]
        layers: list[Any] = [*self.attending, *self.plain]
        return [torch.zeros(1, width, layer.self_attn.kernel_size - 1) for layer in layers]

    def forward(
        self,
        memory: Tensor,
        tokens: Tensor,
        cached: Tensor,
        caches: list[Heads],
        memories: list[Tensor],
    ) -> tuple[Tensor, list[Heads], list[Tensor]]:
        """Decodes a chunk.

        Args:
            memory: f32[1, T, D], hidden frames.
            tokens: f32[1, N, D].
            cached: i64[1], frames of the caches that are filled.
            caches: of each layer that attends, keys and values of frames before the chunk.
            memories: of each layer with an FSMN, f32[1, D, taps - 1], what came before the chunk.

        Returns:
            f32[1, N, vocabulary], the keys and values of the chunk, and the memories behind it.
        """
        _check_alone(memory, tokens)
        mask = _mask(cached, caches[0][0].shape[2], memory.shape[1])
        made, kept = [], []
        for i, layer in enumerate([*self.attending, *self.plain]):
            inner = layer.norm2(layer.feed_forward(layer.norm1(tokens)))
            window = torch.cat([memories[i], inner.transpose(1, 2)], 2)
            kept.append(window[:, :, -memories[i].shape[2] :])
            tokens = tokens + layer.self_attn.fsmn_block(window).transpose(1, 2) + inner
            if layer.src_attn is not None:
                query, *heads = layer.src_attn.forward_qkv(layer.norm3(tokens), memory)
                found = _attend(layer.src_attn, query, (heads[0], heads[1]), caches[i], mask)
                tokens = tokens + found
                made.append((heads[0], heads[1]))
        for layer in self.last:
            tokens = layer.feed_forward(layer.norm1(tokens))
        return self.output_layer(self.after_norm(tokens)), made, kept


class DecidingChunk(DecoderChunk):
    """The same with the best token of each place in the place of scores."""

    def forward(
        self,
        memory: Tensor,
        tokens: Tensor,
        cached: Tensor,
        caches: list[Heads],
        memories: list[Tensor],
    ) -> tuple[Tensor, list[Heads], list[Tensor]]:
        """Decodes a chunk.

        Args:
            memory: f32[1, T, D], hidden frames.
            tokens: f32[1, N, D].
            cached: i64[1], frames of the caches that are filled.
            caches: of each layer that attends, keys and values of frames before the chunk.
            memories: of each layer with an FSMN, f32[1, D, taps - 1], what came before the chunk.

        Returns:
            Token ids i64[1, N], the keys and values of the chunk, and the memories behind it.
        """
        scores, made, kept = super().forward(memory, tokens, cached, caches, memories)
        return scores.argmax(-1), made, kept
