"""Hotwords as FunASR takes them, and what a model makes of them, without torch.

FunASR reads hotwords in three ways: words between spaces, a `.txt` file with one in each line, and
an address to get such a file from. The first two are understood here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import RecognizerOptionError
from graphopt.plain_files import read_text
from graphopt.runtime.loaded import LoadedModule

Array = np.ndarray[Any, Any]

_FORMS = ("words between spaces", "the path of a .txt file with one in each line")
_UNKNOWN = "<unk>"  # what FunASR writes for what its dictionary of pieces lacks
_CHARACTERS = re.compile("[\u4e00-\u9fa50-9]+")


def read_hotwords(hotword: str) -> list[list[str]]:
    """The words of each hotword.

    Raises:
        RecognizerOptionError: if it is an address, or no file is at the path.
    """
    if not isinstance(hotword, str) or hotword.startswith("http"):
        raise RecognizerOptionError("hotword", hotword, _FORMS)
    if not hotword.endswith(".txt"):
        return [[word] for word in hotword.split()]
    try:
        lines = read_text(Path(hotword)).splitlines()
    except OSError as error:
        raise RecognizerOptionError(
            "hotword", f"{hotword} ({error.strerror or error})", _FORMS
        ) from error
    return [line.split() for line in lines if line.strip()]


def read_pieces(text: str) -> dict[str, list[str]]:
    """The tokens of each word, by a `seg_dict`: a word and its tokens in each line."""
    lines = (line.split() for line in text.splitlines())
    return {word: pieces for word, *pieces in filter(None, lines)}


def split_words(words: Sequence[str], pieces: dict[str, list[str]]) -> list[str]:
    """The tokens of words; of Chinese and digits that have none by character."""
    tokens: list[str] = []
    for word in map(str.lower, words):
        if word in pieces:
            tokens += pieces[word]
        elif _CHARACTERS.fullmatch(word):
            for character in word:
                tokens += pieces.get(character, [_UNKNOWN])
        else:
            tokens.append(_UNKNOWN)
    return tokens


@dataclass(frozen=True)
class HotwordEncoder:
    """From hotwords to the rows that a decoder attends to.

    Attributes:
        step: a step of the LSTM for all hotwords.
        ids: token ids of the vocabulary.
        unknown: the id of other tokens.
        empty: the id that stands for no hotword.
        pieces: the tokens of words; without them a word is one token.
    """

    step: LoadedModule
    ids: dict[str, int]
    unknown: int
    empty: int
    pieces: dict[str, list[str]] | None

    def encode(self, hotword: str | None) -> Array:
        """Rows of hotwords, the empty one last.

        Args:
            hotword: words between spaces, or the path of a `.txt` file with one in each line.

        Returns:
            f32[H, D], one row a hotword and one for none of them.

        Raises:
            RecognizerOptionError: if it is neither, or a hotword has no token.
        """
        words = [] if hotword is None else read_hotwords(hotword)
        return self._run([*map(self._ids, words), [self.empty]])

    def _ids(self, words: list[str]) -> list[int]:
        tokens = words if self.pieces is None else split_words(words, self.pieces)
        if not tokens:
            raise RecognizerOptionError("hotword", " ".join(words), ["hotwords that have tokens"])
        return [self.ids.get(token, self.unknown) for token in tokens]

    def _run(self, hotwords: list[list[int]]) -> Array:
        """What the LSTM says behind the last token of each, f32[H, D]."""
        lengths = np.array([len(ids) for ids in hotwords])
        padded = np.zeros((lengths.max(), len(hotwords)), np.int64)
        for row, ids in enumerate(hotwords):
            padded[: len(ids), row] = ids
        state = self._start(len(hotwords))
        rows = np.zeros_like(state[-1][0])
        for step, ids in enumerate(padded):
            state = self.step(ids, state)
            ended = lengths == step + 1
            rows[ended] = state[-1][0][ended]
        return rows

    def _start(self, hotwords: int) -> list[tuple[Array, Array]]:
        """Zeros for hidden and cell of each layer."""
        ports = self.step.manifest.inputs[1:]
        zeros = [port.zeros({0: hotwords}) for port in ports]
        return list(zip(zeros[::2], zeros[1::2], strict=True))
