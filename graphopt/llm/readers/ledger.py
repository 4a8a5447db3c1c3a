"""What a file says, handed out by name, so that nothing in it is passed over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

_ABSENT = object()


class Ledger:
    """Entries of a file, of which it is known who took them.

    Args:
        entries: by name.
        harmless: names, or patterns of names (`general.*`), that change nothing that is computed.
    """

    def __init__(self, entries: Mapping[str, Any], harmless: Iterable[str] = ()) -> None:
        self._entries = dict(entries)
        self._harmless = tuple(harmless)
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def take(self, name: str, default: Any = _ABSENT) -> Any:
        """An entry, which counts as used.

        Raises:
            KeyError: if there is none, and no default.
        """
        if name not in self._entries:
            if default is _ABSENT:
                raise KeyError(name)
            return default
        self._taken.add(name)
        return self._entries[name]

    def left(self) -> list[str]:
        """Names that nobody took and that are not harmless."""
        return [
            name
            for name in self._entries
            if name not in self._taken
            and not any(fnmatchcase(name, pattern) for pattern in self._harmless)
        ]
