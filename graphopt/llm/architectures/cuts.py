"""How text is cut before the merges of byte-level BPE; GGUF files have a name for each way.

The regular expressions are those of the models' own `tokenizer.json`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """A way to cut text.

    Attributes:
        words: a regular expression for the pieces; None for that of GPT-2.
        single_digits: whether each digit is cut off first.
        whole_words: whether a piece that is a token is not put together from its parts.
        begins: whether a text begins with a token of its own where a file does not say it.
    """

    words: str | None = None
    single_digits: bool = False
    whole_words: bool = False
    begins: bool = False


def words(digits: str) -> str:
    """Words, numbers, marks and blanks, as several tokenizers have them since GPT-4's.

    Args:
        digits: how often a digit may be repeated in a piece: `{1,3}`, or nothing for once.
    """
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
