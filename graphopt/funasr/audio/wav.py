"""WAV files: where their samples lie and what they are, for what is stored as plain numbers.

RIFF, RIFX (big-endian), RF64 and BW64; integers of 8 to 32 bits and floats, also in the extensible
form. A header written before the length was known says 0 bytes or as many as it can.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

Array = np.ndarray[Any, Any]

_FORMS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_INTEGERS, _FLOATS, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")  # behind the tag in the extensible form
_ENDLESS = 0x7FFF0000  # bytes; a header that says more was written before the length was known
_BLOCK = 1 << 16  # frames
_MOST_CHUNKS = 10000


@dataclass(frozen=True)
class Wav:
    """Samples of a WAV file, of all channels.

    Attributes:
        rate: frames per second.
        channels: samples of a frame.
        number: kind, bytes and byte order of a sample: `<i2`, `|u1`, `<i3`, `>f8`.
        begin: where they begin in the file.
        frames: how many frames there are.
    """

    rate: int
    channels: int
    number: str
    begin: int
    frames: int

    def read(self, file: BinaryIO) -> Iterator[Array]:
        """Blocks of f32[frames, channels]; integers of full scale reach from -1 to 1."""
        file.seek(self.begin)
        frame = self.channels * int(self.number[2:])
        for at in range(0, self.frames, _BLOCK):
            data = file.read(min(_BLOCK, self.frames - at) * frame)
            yield self._numbers(data).reshape(-1, self.channels)

    def _numbers(self, data: bytes) -> Array:
        order, kind, width = self.number[0], self.number[1], int(self.number[2:])
        if kind == "f":
            return np.frombuffer(data, self.number).astype(np.float32)
        if width == 3:  # the high bytes of 32 bits
            stored = np.frombuffer(data, np.uint8).reshape(-1, 3)
            wide = np.zeros((len(stored), 4), np.uint8)
            wide[:, 1:] = stored if order == "<" else stored[:, ::-1]
            integers: Array = wide.view("<i4")[:, 0]
            width = 4
        else:
            integers = np.frombuffer(data, self.number)
        numbers = integers.astype(np.float32)
        if kind == "u":
            numbers -= 128
        numbers /= np.float32(1 << (8 * width - 1))
        return numbers


def find_samples(file: BinaryIO) -> Wav | None:
    """Reads the header of a file; None if it is of another format, or its samples are coded.

    Raises:
        ValueError: saying what is wrong with a WAV file.
    """
    size = os.fstat(file.fileno()).st_size
    head = file.read(12)
    if len(head) < 12 or head[:4] not in _FORMS or head[8:] != b"WAVE":
        return None
    order = ">" if head[:4] == b"RIFX" else "<"
    (said,) = struct.unpack(f"{order}I", head[4:8])
    form: tuple[int, int, str] | None = None
    long_size = 0
    for name, at, length in _chunks(file, len(head), size, order):
        if name == b"ds64" and length >= 16:
            (long_size,) = struct.unpack(f"{order}8xQ", file.read(16))
        elif name == b"fmt ":
            if form is not None:
                raise ValueError("it says twice what its samples are")
            form = _form(file.read(min(length, 40)), order)
            if form is None:
                return None
        elif name == b"data":
            if form is None:
                raise ValueError("it has samples before it says what they are")
            if long_size and length == 0xFFFFFFFF:
                length = long_size
            endless = length > _ENDLESS and at + length > size
            behind = list(_chunks(file, _end(at, length), size, order))
            _, last, last_length = behind[-1] if behind else (name, at, length)
            are_chunks = _end(last, last_length) - size in (0, 1)
            unsaid = not length and (said + 8 != size or not are_chunks)
            if endless or unsaid:
                return _samples(*form, at, size - at, size)
            if any(name == b"data" for name, _, _ in behind):
                raise ValueError("its samples are in several parts")
            return _samples(*form, at, length, size)
    raise ValueError("it has no samples" if form else "it does not say what its samples are")


def _chunks(file: BinaryIO, at: int, size: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and bytes of each chunk from a place of the file on, as long as there are any.

    Raises:
        ValueError: if they are too many.
    """
    for _ in range(_MOST_CHUNKS):
        if at + 8 > size:
            return
        file.seek(at)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if not (name.isascii() and name.decode().isprintable()):
            return
        yield name, at + 8, length
        at = _end(at + 8, length)
    raise ValueError(f"it has more than {_MOST_CHUNKS} chunks")


def _end(begin: int, length: int) -> int:
    """Where the next chunk begins behind one of odd or even length."""
    return begin + length + length % 2


def _form(chunk: bytes, order: str) -> tuple[int, int, str] | None:
    """Rate, channels and kind of number; None if samples are coded."""
    if len(chunk) < 16:
        raise ValueError("it does not say what its samples are")
    tag, channels, rate, _, frame, bits = struct.unpack(f"{order}HHIIHH", chunk[:16])
    if tag == _EXTENSIBLE and len(chunk) == 40 and chunk[26:] == _SUBFORMAT:
        (tag,) = struct.unpack(f"{order}H", chunk[24:26])
    width = frame // channels if channels else 0
    if tag not in (_INTEGERS, _FLOATS):
        return None
    known = (1, 2, 3, 4) if tag == _INTEGERS else (4, 8)
    if not width or frame != width * channels or width not in known or not 0 < bits <= 8 * width:
        raise ValueError(f"it says {bits} bits, {channels} channels and frames of {frame} bytes")
    if tag == _FLOATS:
        return rate, channels, f"{order}f{width}"
    return rate, channels, "|u1" if width == 1 else f"{order}i{width}"


def _samples(rate: int, channels: int, number: str, begin: int, length: int, size: int) -> Wav:
    if begin + length > size:
        raise ValueError(f"it says {length} bytes of samples and has {size - begin}")
    return Wav(rate, channels, number, begin, length // (channels * int(number[2:])))
