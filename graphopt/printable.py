"""Text as every terminal and file takes it."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text in one line of what every terminal and file takes; the rest as escapes of Python."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
