"""Single figures of the first view of a page."""

from __future__ import annotations

from graphopt.printable import printable


def fact(label: str, value: str, note: str = "") -> dict[str, str]:
    """A figure.

    Args:
        label: what it is.
        value: the figure; empty if it is not known.
        note: how it is known, or why not.
    """
    return {"label": label, "value": value, "note": printable(note)}


def byte_text(count: float) -> str:
    """A number of bytes, such as `4.2 MiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.3g} {unit}"
    return f"{count / 1024:.3g} GiB"


def time_text(ms: float) -> str:
    """A time, such as `3.1 ms`."""
    if ms >= 1000:
        return f"{ms / 1e3:.3g} s"
    return f"{ms * 1e3:.3g} µs" if ms < 1 else f"{ms:.3g} ms"
