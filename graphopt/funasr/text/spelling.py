"""Tokens to text, by the rules of FunASR's `sentence_postprocess`.

Chinese characters and digits stand without spaces; `@@` joins a piece of a word to the next one;
words are followed by a space, unless a Chinese character comes; single letters in a row are an
abbreviation and become capitals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from graphopt.errors import PackageCorruptError

_SPECIAL = ("<s>", "</s>", "<unk>", "<OOV>")
_JOIN = "@@"


def spell(ids: Iterable[int], tokens: Sequence[str], special: frozenset[int]) -> list[str]:
    """The tokens of ids that are text.

    Args:
        ids: token ids.
        tokens: the vocabulary, by token id.
        special: ids that are no text and are left out.

    Raises:
        PackageCorruptError: if an id has no token: the vocabulary is of another model.
    """
    found = []
    for i in map(int, ids):
        if not 0 <= i < len(tokens):
            raise PackageCorruptError("of a recognizer", f"token {i} of {len(tokens)} has no text")
        if i not in special:
            found.append(tokens[i])
    return found


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


def word_times(tokens: Sequence[str], times: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """When the words of a spaced text were spoken.

    As in FunASR, what is neither a character nor a word has no time and takes none away, so that
    what follows gets the time of what stands before it.

    Args:
        tokens: of one utterance.
        times: begin and end of tokens; those without a time are the last ones.

    Returns:
        Begin and end, at most one pair a word.
    """
    kept = [t for t in tokens if t not in _SPECIAL]
    pairs = list(times) if all(map(_sorts_as_character, kept)) else _joined_times(kept, times)
    items = _words(kept)
    found = []
    at = 0  # words before the run
    for run in _runs(items):
        words = [item for item in items[run] if item != " "]
        if words and at + len(words) <= len(pairs):
            found.append((pairs[at][0], pairs[at + len(words) - 1][1]))
        at += len(words)
    return found


def _joined_times(tokens: Sequence[str], times: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of characters and of words, whose pieces have one time."""
    pairs = []
    begun: tuple[int, int] | None = None  # of the pieces of a word that is not complete
    for token, time in zip(tokens, times, strict=False):
        begin, end = begun or time
        if token and all(map(_is_character, token)):
            pairs.append((begin, end))
            begun = None
        elif _JOIN in token:
            begun = begin, time[1]
        elif token and all(map(_is_letter, token)):
            pairs.append((begin, time[1]))
            begun = None
    return pairs


def _sorts_as_character(token: str) -> bool:
    return "\u4e00" <= token <= "\u9fff" or "0" <= token <= "9" or token == "@"


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
    for run in _runs(items):
        letters = items[run][::2]
        made.append("".join(letters).upper() if len(letters) > 1 else items[run.start])
    return made


def _runs(items: list[str]) -> Iterator[slice]:
    """The places of single letters with one space between them, and of every other item."""
    at = 0
    while at < len(items):
        end = at
        while _is_initial(items, end) and _is_initial(items, end + 2) and items[end + 1] == " ":
            end += 2
        yield slice(at, end + 1)
        at = end + 1


def _is_initial(items: list[str], at: int) -> bool:
    return at < len(items) and len(items[at]) == 1 and items[at].isascii() and items[at].isalpha()
