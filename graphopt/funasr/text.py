"""Tokens to text, by the rules of FunASR's `sentence_postprocess`.

Chinese characters and digits stand without spaces; `@@` joins a piece of a word to the next one;
words are followed by a space, unless a Chinese character comes; single letters in a row are an
abbreviation and become capitals.
"""

from __future__ import annotations

from collections.abc import Iterable

_SPECIAL = ("<s>", "</s>", "<unk>", "<OOV>")
_JOIN = "@@"


def tokens_to_text(tokens: Iterable[str], spaced: bool = False) -> str:
    """The text of the tokens of one utterance.

    Args:
        tokens: of a vocabulary.
        spaced: whether spaces stand between characters too, as FunASR writes a text with times.
    """
    items = _abbreviations(_words(t for t in tokens if t not in _SPECIAL))
    if spaced:
        return " ".join(item for item in items if item != " ").strip()
    return "".join(items).strip()


def _words(tokens: Iterable[str]) -> list[str]:
    """Words and characters, and the spaces between them as items of their own."""
    items: list[str] = []
    begun = ""
    space_last = False
    for token in tokens:
        if token and all(map(_is_character, token)):
            if space_last:
                items.pop()
            items.append(token)
            space_last = False
        elif _JOIN in token:
            begun += token.replace(_JOIN, "")
            space_last = False
        elif token and all(map(_is_letter, token)):
            items += [begun + token, " "]
            begun = ""
            space_last = True
        else:
            items.append(token)
    return items


def _is_character(c: str) -> bool:
    return "\u4e00" <= c <= "\u9fff" or "0" <= c <= "9" or c == "@"


def _is_letter(c: str) -> bool:
    return c == "'" or c == " " or (c.isalpha() and not _is_character(c))


def _abbreviations(items: list[str]) -> list[str]:
    """Joins runs of single letters with one space between them."""
    made: list[str] = []
    at = 0
    while at < len(items):
        end = at
        while _is_initial(items, end) and _is_initial(items, end + 2) and items[end + 1] == " ":
            end += 2
        run = items[at : end + 1 : 2]
        made.append("".join(run).upper() if len(run) > 1 else items[at])
        at = end + 1
    return made


def _is_initial(items: list[str], at: int) -> bool:
    return at < len(items) and len(items[at]) == 1 and items[at].isascii() and items[at].isalpha()
