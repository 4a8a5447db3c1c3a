"""The weights file: every constant once, in the form that kernels read, aligned to 64 bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.ir import Value
from graphopt.kernels import winograd
from graphopt.kernels.formats import F32, Format

_ALIGNMENT = 64
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(eq=False)
class WeightsFile:
    """Collects constants and their offsets; packs them in parallel when written.

    Attributes:
        arch: decides the packed layouts.
    """

    arch: str
    _offsets: dict[tuple[Value, str], int] = field(default_factory=dict)
    _makers: list[tuple[int, int, Callable[[], Bytes]]] = field(default_factory=list)
    bytes: int = 0

    def bytes_of(self, values: Collection[Value]) -> int:
        """Bytes of the constants among some values, each in every form that is in the file."""
        offsets = {at for (value, _), at in self._offsets.items() if value in values}
        return sum(size for at, size, _ in self._makers if at in offsets)

    def raw(self, value: Value) -> int:
        """Offset of the constant as it is, row-major."""
        data = value.data
        assert data is not None
        return self._place(value, "raw", data.nbytes, lambda: _bytes(data))

    def gemm(self, value: Value, format: Format, group: int = 0, scale: Value | None = None) -> int:
        """Offset of weights [n, k], packed for the right operand of a GEMM.

        Args:
            value: f32 constant, torch order; i8 where `scale` is given.
            format: of the weights.
            group: of int4, values that share a scale; 0 for a scale per channel.
            scale: constant of quantized weights, bf16 [n, k / group] or f32 [n].
        """
        n, k = value.shape
        size = format.packed_bytes(self.arch, n, k, group)
        form, layout = f"{format.token} {group}", format.layout(self.arch)

        def make() -> Bytes:
            data = value.data
            assert data is not None
            return format.pack(layout, data, None if scale is None else scale.data)

        return self._place(value, form, size, make)

    def conv(self, value: Value, groups: int) -> int:
        """Offset of convolution weights [out, in / groups, (kh,) kw], packed group by group.

        Depthwise (one input channel per group and one output): [kh][kw][out].
        """
        data = value.data
        assert data is not None
        w = data if data.ndim == 4 else data[:, :, None, :]
        out_c, in_c, kh, kw = w.shape
        if in_c == 1 and groups == out_c:
            taps = np.ascontiguousarray(w[:, 0].transpose(1, 2, 0))
            return self._place(value, "taps", taps.nbytes, lambda: _bytes(taps))
        per_group = F32.packed_bytes(self.arch, out_c // groups, kh * kw * in_c)

        def make() -> Bytes:
            rows = w.transpose(0, 2, 3, 1).reshape(groups, out_c // groups, -1)
            return self._one_after_another(rows)

        return self._place(value, "conv", per_group * groups, make)

    def winograd(self, value: Value) -> int:
        """Offset of weights [out, in, 3, 3], transformed and packed for `go_winograd`."""
        data = value.data
        assert data is not None
        size = F32.packed_bytes(self.arch, data.shape[0], winograd.VALUES * data.shape[1])
        layout = F32.layout(self.arch)
        return self._place(
            value, "winograd", size, lambda: F32.pack(layout, winograd.transformed(data), None)
        )

    def experts(self, value: Value) -> int:
        """Offset of weights [experts, n, k], each matrix packed for the right operand of a GEMM."""
        data = value.data
        assert data is not None
        count, n, k = data.shape
        size = count * F32.packed_bytes(self.arch, n, k)
        return self._place(value, "experts", size, lambda: self._one_after_another(data))

    def _one_after_another(self, matrices: np.ndarray[Any, Any]) -> Bytes:
        """Matrices [count, n, k], each packed by itself."""
        layout = F32.layout(self.arch)
        return np.concatenate([F32.pack(layout, matrix, None) for matrix in matrices])

    def _place(self, value: Value, form: str, size: int, make: Callable[[], Bytes]) -> int:
        key = (value, form)
        if key not in self._offsets:
            self._offsets[key] = self.bytes
            self._makers.append((self.bytes, size, make))
            self.bytes += -(-size // _ALIGNMENT) * _ALIGNMENT
        return self._offsets[key]

    def build(self, threads: int) -> Bytes:
        """The whole file, in memory."""
        file = np.zeros(self.bytes, np.uint8)
        self._fill(file, threads)
        return file

    def write(self, path: Path, threads: int) -> None:
        """Writes the file; of what is packed only the parts in work are in memory of ours.

        Raises:
            OSError: if there is no room for all of it.
        """
        with path.open("wb") as empty:
            if self.bytes:
                os.posix_fallocate(empty.fileno(), 0, self.bytes)
        if self.bytes:
            self._fill(np.memmap(path, np.uint8, "r+"), threads)

    def _fill(self, file: Bytes, threads: int) -> None:
        def fill(entry: tuple[int, int, Callable[[], Bytes]]) -> None:
            offset, size, make = entry
            packed = make()
            if packed.size != size:
                raise ValueError(f"packed weights have {packed.size} bytes, planned {size}")
            file[offset : offset + size] = packed

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, self._makers))


def _bytes(data: np.ndarray[Any, Any]) -> Bytes:
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
