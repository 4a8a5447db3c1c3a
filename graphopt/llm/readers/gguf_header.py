"""A check of the header of a GGUF file before the `gguf` package reads it.

That package takes counts and lengths as they are: a count of a few billions keeps it busy for
minutes, and a slice behind the end of the file is empty. Here every length is held against the
bytes that are left. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from graphopt.errors import ModelFileError

_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
#: Bytes of a value, by the number of its type.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_LONGEST_KEY = 65535
_MOST_AXES = 4


def check_header(path: Path) -> None:
    """Walks through the header.

    Raises:
        ModelFileError: if it is not that of a GGUF file, or goes on behind the end of the file.
    """
    if not path.is_file():  # a pipe or a device, which may never end
        raise ModelFileError(path, "there is no such file")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(data).header()
    except (OSError, ValueError, struct.error) as error:
        raise ModelFileError(path, f"it is no whole GGUF file ({error})") from error


class _Walk:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def header(self) -> None:
        if self._bytes(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ValueError(f"its version is {version}, not one of {_VERSIONS}")
        tensors, keys = self._number("<Q"), self._number("<Q")
        seen: set[bytes] = set()
        for _ in range(keys):
            self._once(self._text(_LONGEST_KEY), seen)
            self._value(self._number("<I"))
        seen = set()
        for _ in range(tensors):
            self._once(self._text(_LONGEST_KEY), seen)
            axes = self._number("<I")
            if axes > _MOST_AXES:
                raise ValueError(f"a tensor has {axes} axes")
            self._skip(8 * axes + 4 + 8)

    def _value(self, kind: int) -> None:
        if kind == _STRING:
            self._text()
        elif kind == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner in _SIZES:
                self._skip(_SIZES[inner] * count)
            elif inner == _STRING:
                for _ in range(count):
                    self._text()
            else:
                raise ValueError(f"an array has values of type {inner}")
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise ValueError(f"a value has type {kind}")

    @staticmethod
    def _once(name: bytes, seen: set[bytes]) -> None:
        if name in seen:
            raise ValueError(f"it says {name!r:.60} twice")
        seen.add(name)

    def _text(self, longest: int | None = None) -> bytes:
        length = self._number("<Q")
        if longest is not None and length > longest:
            raise ValueError(f"a name has {length} bytes")
        return self._bytes(length)

    def _number(self, layout: str) -> int:
        (value,) = struct.unpack(layout, self._bytes(struct.calcsize(layout)))
        return int(value)

    def _bytes(self, count: int) -> bytes:
        start = self._at
        self._skip(count)
        return self._data[start : self._at]

    def _skip(self, count: int) -> None:
        if count > len(self._data) - self._at:
            raise ValueError(f"it ends at byte {len(self._data)}, amid its header")
        self._at += count
