"""Punctuation of a text by FunASR's `CTTransformer`, the numbers apart.

Words come in runs of twenty. A run is read behind the words that the last one left over; what
stands before the last end of a sentence is written, and the rest waits for the next run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from graphopt.runtime.fields import Count, Length, Name, read_fields

RUN = 20  # words
_PATIENCE = 200  # words that may wait for the end of their sentence; then a comma ends it
_NONE = "_"
_COMMA = "\N{FULLWIDTH COMMA}"
_STOP = "\N{IDEOGRAPHIC FULL STOP}"
_QUESTION = "\N{FULLWIDTH QUESTION MARK}"
_PAUSE = "\N{IDEOGRAPHIC COMMA}"
_ENDS = (_STOP, _QUESTION)
_ASCII = {_COMMA: ",", _STOP: ".", _QUESTION: "?"}
_WORD = re.compile(r"[\x00-\x7f]+|[^\x00-\x7f]")
_TAG = re.compile(r"<\|[^|]*\|>")


@dataclass(frozen=True)
class PunctuationConfig:
    """What follows a word.

    Attributes:
        marks: by class; `_` is none.
        sentence_end: class of the mark that ends a sentence which does not end.
    """

    marks: Annotated[tuple[Name, ...], Length(1, 1000)]
    sentence_end: Count = 3

    def __post_init__(self) -> None:
        """Refuses an end of sentences that is no mark.

        Raises:
            ValueError: naming it.
        """
        if self.sentence_end >= len(self.marks):
            raise ValueError(f"sentence_end_id: {self.sentence_end}")

    @staticmethod
    def read(settings: dict[str, Any]) -> PunctuationConfig:
        """The settings of a `model_conf`.

        Raises:
            ValueError: naming those that are missing or not understood.
        """
        if settings.get("jieba_usr_dict") is not None:
            raise ValueError("jieba_usr_dict")
        end = settings.get("sentence_end_id", 3)
        given = {"marks": settings.get("punc_list"), "sentence_end": end}
        return read_fields(PunctuationConfig, given, "punc_list and sentence_end_id")


def split_words(text: str) -> list[str]:
    """Runs of ASCII between spaces, and every other character by itself."""
    return [word for part in text.split() for word in _WORD.findall(part)]


def join_segments(texts: Iterable[str]) -> str:
    """The texts of segments as one, without tags; no space between Chinese characters."""
    joined = ""
    for text in (_TAG.sub("", text).strip() for text in texts):
        if joined and text and not (_is_chinese(joined[-1]) and _is_chinese(text[0])):
            joined += " "
        joined += text
    return joined


class PunctuationStream:
    """Punctuation of a text that comes in pieces: FunASR's `CTTransformerStreaming`.

    The words of the last sentence, which may go on, are classified again before those of the next
    piece, and are not written again. What ends a piece is written before the next one.

    Args:
        classify: the class of what follows each of some words, and how many of them came before.
        config: the classes.
    """

    def __init__(
        self, classify: Callable[[list[str], int], list[int]], config: PunctuationConfig
    ) -> None:
        self._classify, self._config = classify, config
        self._before: list[str] = []

    def punctuate(self, text: str) -> str:
        """The next piece with its marks, and in front the one that ended the last piece."""
        if not split_words(text):
            return ""
        before = len(self._before)
        words = split_words(f"{''.join(self._before)} {text}")
        marks = [self._config.marks[c] for c in self._classes(words, before)]
        for i in range(1, len(words)):
            if words[i - 1][-1].isascii() and words[i][0].isascii():
                words[i] = " " + words[i]
        pieces = []
        for i, (word, mark) in enumerate(zip(words, marks, strict=True)):
            pieces += [word] if i >= before else []
            pieces += [mark] if i >= before - 1 and mark != _NONE else []
        inner = range(len(marks) - 2, 1, -1)
        end = next((i for i in inner if marks[i] in _ENDS), -1)
        self._before = words[end + 1 :]
        written = "".join(pieces)
        return written[:-1] if written[-1] in self._config.marks else written

    def _classes(self, words: list[str], before: int) -> list[int]:
        """The class of every word, read run by run as `punctuate` does."""
        read: list[int] = []
        waiting: list[str] = []
        for begin in range(0, len(words), RUN):
            waiting += words[begin : begin + RUN]
            classes = self._classify(waiting, before)
            last = begin + RUN >= len(words)
            count = len(waiting) if last else _finished(classes, self._config)
            read += classes[:count]
            waiting = waiting[count:]
        return read


def punctuate(
    text: str, classify: Callable[[list[str]], list[int]], config: PunctuationConfig
) -> str:
    """The text with punctuation.

    Args:
        text: words.
        classify: the class of what follows each of some words.
        config: the classes.
    """
    return mark_words(text, classify, config)[0]


def mark_words(
    text: str, classify: Callable[[list[str]], list[int]], config: PunctuationConfig
) -> tuple[str, list[int]]:
    """As `punctuate`, with the class of what follows each word.

    Args:
        text: words.
        classify: the class of what follows each of some words.
        config: the classes.

    Returns:
        The text with punctuation, and a class for each word of :func:`split_words`.
    """
    words = split_words(text)
    written, waiting = "", []
    read: list[int] = []
    for begin in range(0, len(words), RUN):
        waiting += words[begin : begin + RUN]
        classes = classify(waiting)
        count = len(waiting)
        if begin + RUN < len(words):
            count = _finished(classes, config)
        marks = [config.marks[c] for c in classes[:count]]
        written += _write(waiting[:count], marks)
        read += classes[:count]
        waiting = waiting[count:]
    closed = _close(written)
    if closed != written:
        read[-1] = config.sentence_end
    return closed, read


def _finished(classes: list[int], config: PunctuationConfig) -> int:
    """Words up to the last end of a sentence; makes one of a comma if they waited too long.

    Neither the first two words end a sentence nor the last one.
    """
    inner = range(len(classes) - 2, 1, -1)
    end = next((i for i in inner if config.marks[classes[i]] in _ENDS), -1)
    if end < 0 and len(classes) > _PATIENCE:
        end = next((i for i in inner if config.marks[classes[i]] == _COMMA), -1)
        if end >= 0:
            classes[end] = config.sentence_end
    return end + 1


def _write(words: list[str], marks: list[str]) -> str:
    """Words of whole sentences and their marks; English words stand apart, in capitals at first."""
    written = ""
    for i, (word, mark) in enumerate(zip(words, marks, strict=True)):
        english = word.isascii()
        if english and (i == 0 or marks[i - 1] in _ENDS):
            word = word.capitalize()
        if english and (i == 0 or words[i - 1].isascii()):
            written += " "
        written += word
        if mark != _NONE:
            written += _ASCII.get(mark, mark) if english else mark
    return written


def _close(text: str) -> str:
    """Ends the last sentence."""
    if not text or text[-1] in (*_ENDS, ".", "?"):
        return text
    if text[-1] in (_COMMA, _PAUSE):
        return text[:-1] + _STOP
    if text[-1] == ",":
        return text[:-1] + "."
    return text + ("." if text[-1].isascii() else _STOP)


def _is_chinese(c: str) -> bool:
    return "\u3400" <= c <= "\u9fff"
