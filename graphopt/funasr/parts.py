"""The models of a package behind their front ends, without torch and FunASR."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import PackageCorruptError, RecognizerOptionError
from graphopt.funasr.audio.batches import recognize_in_batches
from graphopt.funasr.audio.features import count_features, feature_rows, features
from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.funasr.audio.samples import check_recordings, check_samples
from graphopt.funasr.audio.vad import Segment, VadConfig, blocks_of, segments
from graphopt.funasr.text.clocks import Clock
from graphopt.funasr.text.punctuation import PunctuationConfig, PunctuationStream, mark_words
from graphopt.funasr.text.spelling import spell, tokens_to_text, word_times
from graphopt.funasr.text.times import Time
from graphopt.runtime.loaded import LoadedModule

Array = np.ndarray[Any, Any]

#: SenseVoice's rows of embeddings that stand for what is asked, before the features.
LANGUAGES = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12, "nospeech": 13}
WRITTEN_FORM, SPOKEN_FORM = 14, 15
_QUERIES = 4


@dataclass(frozen=True)
class AudioModel:
    """A compiled model behind its front end.

    Attributes:
        module: the graph.
        frontend: from samples to features.
        cmvn: f32[2, features], shift and scale, or None.
    """

    module: LoadedModule
    frontend: FrontendConfig
    cmvn: Array | None

    def features(self, samples: Array) -> Array:
        """f32[T, features] of a signal; a `SamplesError` says what is none."""
        return features(samples, self.frontend, self.cmvn, self.module.map)

    def rows(self, samples: Array, begin: int, end: int) -> Array:
        """Those of the rows of :meth:`features` from `begin` to `end`, computed alone."""
        return feature_rows(samples, self.frontend, self.cmvn, begin, end, self.module.map)


@dataclass(frozen=True)
class Utterance:
    """What was said in a signal.

    Attributes:
        text: without punctuation.
        times: of its words; None if the model tells none.
    """

    text: str
    times: list[Time] | None = None


@dataclass(frozen=True)
class VoiceDetector(AudioModel):
    """Where speech is, by FSMN-VAD.

    Attributes:
        config: settings of the decisions.
    """

    config: VadConfig

    def find(self, samples: Array) -> list[Segment]:
        """Start and end of each segment of speech in a signal, milliseconds.

        Raises:
            SamplesError: if it is none, as for `check_samples`.
        """
        samples = check_samples(samples)
        return segments(self._scores(samples), self.config)

    def _scores(self, samples: Array) -> Iterator[Array]:
        """Likelihoods of the classes of each frame, f32[T, classes], for a minute at a time."""
        cache, end = self.empty_cache(), 0
        none = np.zeros((0, 1 + max(self.config.sil_pdf_ids)), np.float32)
        frames = count_features(len(samples), self.frontend)
        for count in blocks_of(frames, len(samples), self.frontend):
            begin, end = end, end + count
            rows = self.rows(samples, begin, end)
            yield self.module(rows[None], cache)[0] if count else none

    def empty_cache(self) -> dict[str, Array]:
        """Zeros for the frames before the first."""
        ports = self.module.manifest.inputs[1:]
        prefix = "cache_"
        return {port.name.removeprefix(prefix): port.zeros({0: 1}) for port in ports}


class SpeechModel(AudioModel, abc.ABC):
    """What is said."""

    @abc.abstractmethod
    def texts(self, utterances: Sequence[Array]) -> list[str]:
        """The text of each of several utterances; a `SamplesError` says what is none."""

    def utterances(self, signals: Sequence[Array]) -> list[Utterance]:
        """What was said in each of several, with times if the model tells them."""
        return [Utterance(text) for text in self.texts(signals)]

    def with_hotwords(self, hotword: str | None) -> SpeechModel:
        """The same model for other hotwords; one that takes them says how.

        Raises:
            RecognizerOptionError: if it takes none.
        """
        if hotword is not None:
            raise RecognizerOptionError("hotword", hotword, ["none"])
        return self


@dataclass(frozen=True)
class ParaformerModel(SpeechModel):
    """What is said, by Paraformer.

    Attributes:
        tokens: the vocabulary.
        special: token ids that are no text.
        spaced: whether spaces stand between characters too.
        clock: what tells when tokens were spoken, or None.
    """

    tokens: tuple[str, ...]
    special: frozenset[int]
    spaced: bool
    clock: Clock | None

    def text(self, samples: Array) -> str:
        """The text of an utterance; empty if nothing is said."""
        return self.texts([samples])[0]

    def texts(self, utterances: Sequence[Array]) -> list[str]:
        """The same for each of several, computed in batches."""
        texts = [""] * len(utterances)
        for i, (ids, *_) in self._found(utterances):
            texts[i] = tokens_to_text(self._tokens(ids), self.spaced)
        return texts

    def utterances(self, signals: Sequence[Array]) -> list[Utterance]:
        """The same with times; then spaces stand between characters."""
        if self.clock is None:
            return super().utterances(signals)
        said = [Utterance("")] * len(signals)
        for i, (ids, *clues) in self._found(signals):
            if not len(ids):
                continue
            tokens, frames = self._tokens(ids), count_features(len(signals[i]), self.frontend)
            times = self.clock.read(tuple(clues), frames, len(ids), len(tokens))
            said[i] = Utterance(tokens_to_text(tokens, spaced=True), word_times(tokens, times))
        return said

    def _found(self, signals: Sequence[Array]) -> Iterator[tuple[int, tuple[Array, ...]]]:
        """What `recognize_in_batches` finds; features are computed when their batch comes."""
        checked = check_recordings(signals)
        lengths = [count_features(len(samples), self.frontend) for samples in checked]
        return recognize_in_batches(self._recognize, lambda i: self.features(checked[i]), lengths)

    def _recognize(self, speech: Array, lengths: Array) -> tuple[Array, ...]:
        """Of a batch, ids i64[B, N], how many each item has, i32[B], and what `clock` reads."""
        found: tuple[Array, ...] = self.module(speech, lengths)
        return found

    def _tokens(self, ids: Array) -> list[str]:
        return spell(ids, self.tokens, self.special)


@dataclass(frozen=True)
class SenseVoiceModel(SpeechModel):
    """What is said, in which language, mood and surroundings, by SenseVoiceSmall.

    Attributes:
        pieces: the `SentencePieceProcessor` of the vocabulary.
        blank: the token id that is nothing.
        language: one of LANGUAGES.
        use_itn: whether numbers and dates are asked for as they are written, with punctuation.
    """

    pieces: Any
    blank: int
    language: str
    use_itn: bool

    def text(self, samples: Array) -> str:
        """The text of an utterance, behind its tags; empty without a frame."""
        speech = self.features(samples)
        if not len(speech):
            return ""
        form = WRITTEN_FORM if self.use_itn else SPOKEN_FORM
        (ids,) = self.module(
            speech[None],
            np.array([len(speech)], np.int32),
            np.array([LANGUAGES[self.language]]),
            np.array([form]),
        )
        found = collapse(ids[: len(speech) + _QUERIES], self.blank)
        if max(found, default=0) >= self.pieces.GetPieceSize():
            raise PackageCorruptError(self.module.path, f"token {max(found)} is no piece")
        text: str = self.pieces.DecodeIds(found)
        return text

    def texts(self, utterances: Sequence[Array]) -> list[str]:
        """What :meth:`text` gives for each."""
        return [self.text(samples) for samples in utterances]


def collapse(ids: Array, blank: int) -> list[int]:
    """The tokens of a best path of CTC, i64[T]: equal neighbours are one, blanks are none."""
    changes = np.append(True, ids[1:] != ids[:-1])
    return [int(i) for i in ids[changes] if i != blank]


@dataclass(frozen=True)
class WordClassifier:
    """What stands behind words, by a CT-Transformer.

    Attributes:
        module: from token ids to classes of marks; of streams also from how many came before.
        ids: token ids of words.
        unknown: the id of other words.
        config: the classes.
    """

    module: LoadedModule
    ids: dict[str, int]
    unknown: int
    config: PunctuationConfig

    def _classify(self, words: list[str], *before: int) -> list[int]:
        ids = np.array([[self.ids.get(word, self.unknown) for word in words]])
        counts = (np.array([count]) for count in before)
        classes = self.module(ids, np.array([len(words)], np.int32), *counts)
        if int(classes.max(initial=0)) >= len(self.config.marks):
            raise PackageCorruptError(self.module.path, f"class {classes.max()} has no mark")
        return [int(c) for c in classes[0]]


class Punctuator(WordClassifier):
    """Punctuation of whole texts."""

    def punctuate(self, text: str) -> str:
        """The text with punctuation marks and capitals; without any if it has no word."""
        return self.mark(text)[0]

    def mark(self, text: str) -> tuple[str, list[int]]:
        """The same, and the class of what follows each of the words that `split_words` finds."""
        marked, classes = mark_words(text, self._classify, self.config)
        return marked.strip(), classes

    def stream(self) -> Punctuator:
        """What punctuates one text after the other: each by itself."""
        return self


class StreamingPunctuator(WordClassifier):
    """Punctuation of texts that go on."""

    def punctuate(self, text: str) -> str:
        """A text with punctuation marks, but for one at its end."""
        return self.stream().punctuate(text)

    def stream(self) -> PunctuationStream:
        """What punctuates the pieces of one text."""
        return PunctuationStream(self._classify, self.config)
