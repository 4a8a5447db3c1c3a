"""The models of a package that take hotwords, without torch and FunASR."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphopt.funasr.parts import ParaformerModel
from graphopt.funasr.text.hotwords import HotwordEncoder
from graphopt.runtime.loaded import LoadedModule

Array = np.ndarray[Any, Any]

MOST_HOTWORDS = 50  # that SeACo-Paraformer attends to, besides the empty one


@dataclass(frozen=True)
class ContextualModel(ParaformerModel):
    """What is said, by Contextual Paraformer.

    Attributes:
        encoder: of hotwords.
        hotwords: f32[H, D], the empty one last.
    """

    encoder: HotwordEncoder
    hotwords: Array

    def with_hotwords(self, hotword: str | None) -> ContextualModel:
        """The same model for other hotwords; see `HotwordEncoder.encode`."""
        return replace(self, hotwords=self.encoder.encode(hotword))

    def _recognize(self, speech: Array, lengths: Array) -> tuple[Array, ...]:
        hotwords = np.repeat(self.hotwords[None], len(speech), 0)
        ids, counts = self.module(speech, lengths, hotwords)
        return ids, counts


@dataclass(frozen=True)
class SeacoModel(ParaformerModel):
    """What is said, by SeACo-Paraformer.

    Attributes:
        encoder: of hotwords.
        bias: from tokens without hotwords to those with them.
        scores: how far each token attends to each hotword.
        hotwords: f32[H, D], the empty one last; None if there are none.
    """

    encoder: HotwordEncoder
    bias: LoadedModule
    scores: LoadedModule
    hotwords: Array | None

    def with_hotwords(self, hotword: str | None) -> SeacoModel:
        """The same model for other hotwords; see `HotwordEncoder.encode`."""
        return replace(self, hotwords=None if hotword is None else self.encoder.encode(hotword))

    def _recognize(self, speech: Array, lengths: Array) -> tuple[Array, ...]:
        ids, counts, embeddings, tokens, frames = self.module(speech, lengths)
        if self.hotwords is not None and ids.size:
            hotwords = self._choose(self.hotwords, tokens, counts)
            every = np.full(len(ids), hotwords.shape[1], np.int32)
            ids = self.bias(hotwords, every, embeddings, tokens, counts, ids)
        return ids, counts, frames

    def _choose(self, hotwords: Array, tokens: Array, counts: Array) -> Array:
        """For each item the hotwords that its tokens attend to most, f32[B, K, D].

        FunASR scores the first item of a batch and chooses for all of them; here a batch gives each
        item what it gets alone.
        """
        repeated = np.repeat(hotwords[None], len(tokens), 0)
        if len(hotwords) <= MOST_HOTWORDS:
            return repeated
        every = np.full(len(tokens), len(hotwords), np.int32)
        scores = self.scores(repeated, every, tokens, counts)
        chosen = []
        for item, count in zip(scores, counts, strict=True):
            order = np.argsort(-item[:, :count].sum((0, 1)), kind="stable")
            most = order[: min(MOST_HOTWORDS, len(hotwords) - 1)]
            chosen.append(hotwords[[*most, len(hotwords) - 1]])
        return np.stack(chosen)
