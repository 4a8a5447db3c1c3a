"""One call of a kernel, and how harness/host.c reads it from a file.

A pointer is an array, or :class:`At` for one into the middle of an array; the same array object
under two names is one buffer. Nested fields are written ``"epilogue.bias"`` and
``"epilogue.residual[1]"``. Arrays are contiguous; strides are what the arguments say.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, sizeof
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class At:
    """A pointer ``byte_offset`` bytes into an array."""

    array: Array
    byte_offset: int = 0


@dataclass
class Case:
    """One call of a kernel.

    Attributes:
        args: the argument struct; its pointers are filled in by who runs the case.
        pointers: arrays behind the pointers, by field.
        writes: pointers that the kernel may write through.
        threads: size of the team.
        align: alignment in bytes where it is not 64 for uint8 (packed operands) and the item
            size for anything else.
        ends: bytes of arrays that are there for the kernel, where the rest of an array is not.
    """

    args: Structure
    pointers: dict[str, Array | At]
    writes: tuple[str, ...] = ("dst",)
    threads: int = 1
    align: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Buffer:
    """A distinct array of a case, its alignment, bytes, and whether the kernel may write it."""

    array: Array
    align: int
    written: bool
    size: int

    @property
    def content(self) -> bytes:
        """The bytes that are there for the kernel."""
        return self.array.tobytes()[: self.size]


def as_at(pointer: Array | At) -> At:
    """The pointer as array and offset."""
    return pointer if isinstance(pointer, At) else At(pointer)


def buffers(case: Case) -> list[Buffer]:
    """The distinct arrays of a case, in the order of their first pointers."""
    found: dict[int, Buffer] = {}
    for name, pointer in case.pointers.items():
        array = as_at(pointer).array
        assert array.flags.c_contiguous, f"{name} must be contiguous"
        align = case.align.get(name, 64 if array.dtype == np.uint8 else array.itemsize)
        size = case.ends.get(name, array.nbytes)
        old = found.get(id(array), Buffer(array, 1, False, 0))
        written = old.written or name in case.writes
        found[id(array)] = Buffer(array, max(align, old.align), written, max(size, old.size))
    return list(found.values())


def field_offset(struct: type[Structure], path: str) -> int:
    """Bytes from the beginning of a struct to a field, such as ``epilogue.residual[1]``."""
    offset: int = 0
    kind: Any = struct
    for part in path.split("."):
        name, _, index = part.partition("[")
        offset += getattr(kind, name).offset
        kind = dict(kind._fields_)[name]
        if index:
            offset += int(index.rstrip("]")) * sizeof(kind._type_)
    return offset


def encode(cases: Sequence[Case]) -> bytes:
    """The request file of harness/host.c."""
    return _u64(len(cases)) + b"".join(map(_encode_case, cases))


def _encode_case(case: Case) -> bytes:
    distinct = buffers(case)
    index = {id(buffer.array): i for i, buffer in enumerate(distinct)}
    parts = [_u64(case.threads, sizeof(case.args), len(distinct), len(case.pointers))]
    for buffer in distinct:
        parts += [_u64(buffer.size, buffer.align), buffer.content]
    parts.append(bytes(case.args))
    for name, pointer in case.pointers.items():
        at = as_at(pointer)
        offset = field_offset(type(case.args), name)
        parts.append(_u64(offset, index[id(at.array)], at.byte_offset))
    return b"".join(parts)


def _u64(*numbers: int) -> bytes:
    return np.array(numbers, "<u8").tobytes()
