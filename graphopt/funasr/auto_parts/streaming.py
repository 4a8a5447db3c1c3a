"""Compiled chunks of Paraformer streaming in the places of FunASR's encoder and decoder.

FunASR's loops, its predictor and the dicts that hold its caches stay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphopt.funasr.layers.streaming import DecoderChunk, Heads
from graphopt.funasr.stream.caches import LEAST_CACHED

Cache = dict[str, Any]


def _fill(caches: list[Heads] | None, attentions: list[Any], extent: int) -> list[Heads]:
    """Caches with zeros before them, `extent` frames or as many as they have."""
    if caches is None:
        empty = [torch.zeros(1, a.h, extent, a.d_k) for a in attentions]
        return [(zeros, zeros) for zeros in empty]
    missing = max(0, extent - caches[0][0].shape[2])
    return [
        (nn.functional.pad(k, (0, 0, missing, 0)), nn.functional.pad(v, (0, 0, missing, 0)))
        for k, v in caches
    ]


def _append(caches: list[Heads] | None, made: list[Heads]) -> list[Heads]:
    if caches is None:
        return made
    pairs = zip(caches, made, strict=True)
    return [(torch.cat((k, a), 2), torch.cat((v, b), 2)) for (k, v), (a, b) in pairs]


def _count(caches: list[Heads] | None) -> Tensor:
    return torch.tensor([0 if caches is None else caches[0][0].shape[2]])


class ChunkEncoderPart(nn.Module):
    """A compiled `SANMEncoderChunkOpt`; FunASR asks the original for what is not a chunk."""

    def __init__(self, original: Any, chunk: nn.Module) -> None:
        super().__init__()
        self.original, self.chunk = original, chunk

    def output_size(self) -> int:
        """Width of a hidden frame."""
        return int(self.original.output_size())

    def forward_chunk(
        self, xs_pad: Tensor, ilens: Tensor, cache: Cache, **_: Any
    ) -> tuple[Tensor, Tensor, None]:
        """Encodes a chunk.

        Args:
            xs_pad: f32[1, T, F], features; they are scaled in place.
            ilens: frames of the chunk.
            cache: FunASR's of the encoder, which is updated.

        Returns:
            Hidden frames f32[1, S, D], S with those that the chunk repeats; `ilens`; None.
        """
        # In place as in FunASR, whose last chunk reads its own argument again.
        xs_pad *= self.output_size() ** 0.5
        frames = self.original.embed(xs_pad, cache)
        if cache["tail_chunk"]:
            frames = cache["feats"]
        else:
            frames = self.original._add_overlap_chunk(frames, cache)
        look_back, (_, stride, ahead) = cache["encoder_chunk_look_back"], cache["chunk_size"]
        before = cache["opt"]
        layers = [*self.original.encoders0, *self.original.encoders]
        filled = _fill(before, [e.self_attn for e in layers], max(LEAST_CACHED, look_back * stride))
        hidden, made = self.chunk(frames, _count(before), filled)
        if look_back > 0 or look_back == -1:
            after = _append(before, [(k[:, :, :-ahead], v[:, :, :-ahead]) for k, v in made])
            if before is not None and look_back != -1:
                last = look_back * stride
                after = [(k[:, :, -last:], v[:, :, -last:]) for k, v in after]
            cache["opt"] = after
        return hidden, ilens, None


class ChunkDecoderPart(nn.Module):
    """A compiled `ParaformerSANMDecoder`, chunk by chunk."""

    def __init__(self, original: Any, whole: DecoderChunk, chunk: nn.Module) -> None:
        super().__init__()
        self.original, self.chunk = original, chunk
        self._attentions = [layer.src_attn for layer in whole.attending]
        self._memories = whole.empty_memories()

    def forward_chunk(self, memory: Tensor, tgt: Tensor, cache: Cache) -> Tensor:
        """Decodes a chunk.

        Args:
            memory: f32[1, T, D], hidden frames.
            tgt: f32[1, N, D], acoustic embeddings.
            cache: FunASR's of the decoder, which is updated.

        Returns:
            Scores f32[1, N, vocabulary], before softmax.
        """
        look_back, stride = cache["decoder_chunk_look_back"], cache["chunk_size"][1]
        before = cache["opt"]
        filled = _fill(before, self._attentions, max(LEAST_CACHED, look_back * stride))
        memories = cache["decode_fsmn"] or self._memories
        scores: Tensor
        scores, made, cache["decode_fsmn"] = self.chunk(
            memory, tgt, _count(before), filled, memories
        )
        if look_back > 0:
            last = look_back * stride
            after = _append(before, made)
            cache["opt"] = [(k[:, :, -last:], v[:, :, -last:]) for k, v in after]
        return scores
