"""Text to tokens, by the rules of FunASR's `CharTokenizer`."""

from __future__ import annotations

import re
from collections.abc import Mapping

_UNKNOWN = "<unk>"  # what FunASR writes for what a dictionary of pieces lacks
_READABLE = re.compile(r"[\u4e00-\u9fa5A-Za-z0-9]")


def split_text(text: str, pieces: Mapping[str, list[str]] | None) -> list[str]:
    """The tokens of a text.

    Args:
        text: in any language; with `pieces`, words between single spaces.
        pieces: the tokens of words, in small letters; None if every character but spaces is one.

    Returns:
        Tokens, some of which a vocabulary may lack.
    """
    if pieces is None:
        return [character for character in text if character != " "]
    tokens: list[str] = []
    for word in text.strip().lower().split(" "):
        if word in pieces:
            tokens += pieces[word]
        elif _READABLE.match(word):
            for character in word:
                tokens += pieces.get(character, [_UNKNOWN])
        else:
            tokens.append(_UNKNOWN)
    return tokens
