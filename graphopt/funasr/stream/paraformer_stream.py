"""Paraformer streaming from compiled chunks, without torch and FunASR.

What FunASR keeps in its dict `cache` is the state of a `ParaformerStream` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from graphopt.errors import RecognizerOptionError
from graphopt.funasr.audio.feature_stream import FeatureStream
from graphopt.funasr.audio.samples import SignalStream
from graphopt.funasr.models.paraformer_streaming import StreamingParaformer
from graphopt.funasr.stream.caches import LEAST_CACHED
from graphopt.runtime.fields import FieldError, Range, read_fields
from graphopt.runtime.package import Port

Array = np.ndarray[Any, Any]
Heads = tuple[Array, Array]  # keys and values, f32[1, heads, frames, width]

FRAME = 960  # samples from one frame of the encoder to the next: 60 ms
_MOST = 1000  # frames of a chunk, or chunks before it


_Some = Annotated[int, Range(1, _MOST)]
_Any = Annotated[int, Range(0, _MOST)]
_ALLOWED: tuple[tuple[str, Any, str], ...] = (
    ("chunk_size", tuple[_Any, _Some, _Some], "(a, b, c) with b and c at least 1"),
    ("encoder_chunk_look_back", Annotated[int, Range(-1, _MOST)], "chunks, or -1 for all"),
    ("decoder_chunk_look_back", _Any, "chunks"),
)


@dataclass(frozen=True)
class Chunking:
    """How a signal is cut into chunks, by FunASR's names.

    Attributes:
        chunk_size: frames of 60 ms that a chunk repeats, that it adds, and that it looks ahead.
        encoder_chunk_look_back: chunks before that the encoder sees; -1 for all.
        decoder_chunk_look_back: chunks before that the decoder sees.
    """

    chunk_size: tuple[int, int, int] = (0, 10, 5)
    encoder_chunk_look_back: int = 4
    decoder_chunk_look_back: int = 1

    def __post_init__(self) -> None:
        """Refuses what leaves no chunk.

        Raises:
            RecognizerOptionError: if a chunk would add or look ahead nothing, or a number is none.
        """
        for name, kind, allowed in _ALLOWED:
            try:
                read_fields(kind, getattr(self, name))
            except FieldError as error:
                raise RecognizerOptionError(name, getattr(self, name), [allowed]) from error


class ParaformerStream(SignalStream[int]):
    """One utterance; it tells token ids."""

    def __init__(self, model: StreamingParaformer, chunking: Chunking) -> None:
        self._model, self._chunking = model, chunking
        again, _, ahead = chunking.chunk_size
        self._features = FeatureStream(model.frontend, model.cmvn)
        self._samples = np.zeros(0, np.float32)  # too few for a chunk
        width = model.frontend.lfr_m * model.frontend.n_mels
        self._frames = 0
        self._overlap = np.zeros((again + ahead, width), np.float32)
        self._partial: tuple[np.float32, Array] | None = None  # of the token that is not full
        self._encoded: list[Heads] | None = None
        self._decoded: list[Heads] | None = None
        self._memories = [
            port.zeros({0: 1}) for port in model.decoder.manifest.inputs[3:] if len(port.shape) == 3
        ]

    def _feed(self, samples: Array) -> list[int]:
        step = self._chunking.chunk_size[1] * FRAME
        signal = np.concatenate([self._samples, samples])
        whole = len(signal) // step * step
        self._samples = signal[whole:]
        found = [self._hear(chunk, False) for chunk in signal[:whole].reshape(-1, step)]
        return [token for tokens in found for token in tokens]

    def _finish(self) -> list[int]:
        return self._hear(self._samples, True)

    def _hear(self, samples: Array, is_final: bool) -> list[int]:
        frames = self._chunk(samples, is_final)
        hidden, weights = self._encode(frames)
        again, stride, _ = self._chunking.chunk_size
        weights[:again] = 0
        if not is_final:
            weights[again + stride :] = 0
        embeddings = self._integrate(hidden[0], weights, is_final)
        return self._decode(hidden, embeddings) if len(embeddings) else []

    def _chunk(self, samples: Array, is_final: bool) -> Array:
        """What the encoder hears, f32[T, F]: frames with positions behind those before."""
        scale = np.float32(self._width**0.5)
        if is_final and len(samples) < FRAME:
            tail: Array = self._overlap * scale  # FunASR scales what it kept scaled
            return tail
        features = self._features.take(samples, is_final) * scale
        features += _positions(self._frames, *features.shape)
        self._frames += len(features)
        frames: Array = np.concatenate([self._overlap, features])
        self._overlap = frames[-len(self._overlap) :]
        return frames

    @property
    def _width(self) -> int:
        """Of a hidden frame."""
        width = self._model.decoder.manifest.inputs[0].shape[2]
        assert isinstance(width, int)
        return width

    def _encode(self, frames: Array) -> tuple[Array, Array]:
        """Hidden frames f32[1, T, D], and what each adds to a token, f32[T]."""
        _, stride, ahead = self._chunking.chunk_size
        chunks, before = self._chunking.encoder_chunk_look_back, self._encoded
        ports = self._model.encoder.manifest.inputs[2:]
        hidden, weights, made = self._model.encoder(
            frames[None], _count(before), _filled(before, ports, chunks * stride)
        )
        if chunks > 0 or chunks == -1:
            made = [(k[:, :, :-ahead], v[:, :, :-ahead]) for k, v in made]
            last = chunks * stride if before is not None and chunks > 0 else None
            self._encoded = _extended(before, made, last)
        return hidden, weights[0].copy()

    def _integrate(self, hidden: Array, weights: Array, is_final: bool) -> Array:
        """Embeddings of the tokens that fire: integrate-and-fire that goes on where it stopped."""
        frames = list(zip(weights, hidden, strict=True))
        if self._partial is not None:
            frames.insert(0, self._partial)
        if is_final:
            frames.append((np.float32(self._model.tail_threshold), np.zeros_like(hidden[0])))
        full = np.float32(self._model.threshold)
        tokens = []
        total: Any = np.float32(0)
        embedding = np.zeros_like(hidden[0])
        for weight, frame in frames:
            if weight + total < full:
                total += weight
                embedding = embedding + weight * frame
            else:
                tokens.append(embedding + (full - total) * frame)
                total = total + weight - full
                embedding = total * frame
        self._partial = (total, embedding / total if total > 0 else embedding)
        return np.array(tokens, np.float32).reshape(-1, hidden.shape[1])

    def _decode(self, hidden: Array, embeddings: Array) -> list[int]:
        chunks, before = self._chunking.decoder_chunk_look_back, self._decoded
        last = chunks * self._chunking.chunk_size[1]
        ports = [p for p in self._model.decoder.manifest.inputs[3:] if len(p.shape) == 4]
        ids, made, self._memories = self._model.decoder(
            hidden, embeddings[None], _count(before), _filled(before, ports, last), self._memories
        )
        if chunks > 0:
            self._decoded = _extended(before, made, last)
        return [int(i) for i in ids[0]]


def _positions(begin: int, count: int, width: int) -> Array:
    """Sines and cosines of positions from begin + 1 on, f32[count, width], as FunASR has them."""
    step = np.log(np.float32(10000)) / np.float32(width / 2 - 1)
    rates = np.exp(np.arange(width // 2, dtype=np.float32) * -step)
    angles = np.arange(begin + 1, begin + count + 1, dtype=np.float32)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


def _count(caches: list[Heads] | None) -> Array:
    return np.array([0 if caches is None else caches[0][0].shape[2]])


def _filled(caches: list[Heads] | None, ports: Sequence[Port], extent: int) -> list[Heads]:
    """Caches behind zeros, `extent` frames or as many as they have.

    Args:
        caches: of each layer, or None.
        ports: the inputs of a module that takes them, two of each layer.
        extent: frames.
    """
    extent = max(LEAST_CACHED, extent)
    if caches is None:
        empty = [port.zeros({0: 1, 2: extent}) for port in ports[::2]]
        return [(zeros, zeros) for zeros in empty]
    missing = extent - caches[0][0].shape[2]
    if missing <= 0:
        return caches
    padding = ((0, 0), (0, 0), (missing, 0), (0, 0))
    return [(np.pad(k, padding), np.pad(v, padding)) for k, v in caches]


def _extended(before: list[Heads] | None, made: list[Heads], last: int | None) -> list[Heads]:
    """Caches with what a chunk made behind them, of all of it the last frames."""
    if before is None:
        joined = made
    else:
        pairs = zip(before, made, strict=True)
        joined = [
            (np.concatenate((k, a), 2), np.concatenate((v, b), 2)) for (k, v), (a, b) in pairs
        ]
    if last is None:
        return joined
    return [(k[:, :, -last:], v[:, :, -last:]) for k, v in joined]
