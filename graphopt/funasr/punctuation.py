"""Punctuation of a text by FunASR's `CTTransformer`, the numbers apart.

Words come in runs of twenty. A run is read behind the words that the last one left over; what
stands before the last end of a sentence is written, and the rest waits for the next run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

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

    marks: tuple[str, ...]
    sentence_end: int = 3

    @staticmethod
    def read(settings: dict[str, Any]) -> PunctuationConfig:
        """The settings of a `model_conf`.

        Raises:
            ValueError: naming those that are missing or not understood.
        """
        marks = settings.get("punc_list")
        if not isinstance(marks, list) or not all(isinstance(m, str) and m for m in marks):
            raise ValueError(f"punc_list: {marks}")
        end = settings.get("sentence_end_id", 3)
        if not isinstance(end, int) or not 0 <= end < len(marks):
            raise ValueError(f"sentence_end_id: {end}")
        if settings.get("jieba_usr_dict") is not None:
            raise ValueError("jieba_usr_dict")
        return PunctuationConfig(tuple(marks), end)


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


def punctuate(
    text: str, classify: Callable[[list[str]], list[int]], config: PunctuationConfig
) -> str:
    """The text with punctuation.

    Args:
        text: words.
        classify: the class of what follows each of some words.
        config: the classes.
    """
    words = split_words(text)
    written, waiting = "", []
    for begin in range(0, len(words), RUN):
        waiting += words[begin : begin + RUN]
        classes = classify(waiting)
        count = len(waiting)
        if begin + RUN < len(words):
            count = _finished(classes, config)
        marks = [config.marks[c] for c in classes[:count]]
        written += _write(waiting[:count], marks)
        waiting = waiting[count:]
    return _close(written)


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
