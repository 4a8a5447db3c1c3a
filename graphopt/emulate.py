"""Runs generated Arm code on a machine of another architecture, under user-mode qemu."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.codegen.build import Builder
from graphopt.dtype import DType
from graphopt.errors import MissingEmulatorError, RunError
from graphopt.kernels import registry
from graphopt.runtime import MAX_RANK

Array = np.ndarray[Any, Any]
_HEADER = struct.Struct(f"<ii{MAX_RANK}q")
_DTYPES = list(DType)


@dataclass(frozen=True)
class Emulation:
    """A generated module as a static program of its own.

    Attributes:
        builder: compiles it.
        source: C of the module.
        arch: architecture of the program.
    """

    builder: Builder
    source: str
    arch: str

    def run(self, weights: Path, inputs: Sequence[Array], level: str, sve_bits: int) -> list[Array]:
        """Runs the program once.

        Args:
            weights: weights file of the architecture.
            inputs: stored arrays (bf16 as uint16).
            level: ISA level to build.
            sve_bits: length of an SVE vector, 128 to 2048.

        Raises:
            MissingEmulatorError: if qemu is not installed.
            RunError: if the program refuses the inputs or fails.
        """
        emulator = shutil.which(f"qemu-{self.arch}")
        if emulator is None:
            raise MissingEmulatorError(f"qemu-{self.arch}")
        program = self.builder.program(self.source, registry.level(self.arch, level))
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder) / "inputs.bin", Path(folder) / "outputs.bin"
            given.write_bytes(pack_arrays(inputs))
            cpu = f"max,sve{sve_bits}=on"
            command = [emulator, "-cpu", cpu, str(program), str(weights), str(given), str(made)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise RunError(f"under {emulator}: {result.stderr.strip() or result.returncode}")
            return unpack_arrays(made.read_bytes())


def pack_arrays(arrays: Sequence[Array]) -> bytes:
    """Stored arrays in the format of runtime/main.c; KeyError for a dtype that the IR lacks."""
    return b"".join(_header(a) + a.tobytes() for a in arrays)


def _header(array: Array) -> bytes:
    code = DType.BF16.code if array.dtype == np.uint16 else DType.of(array).code
    return _HEADER.pack(code, array.ndim, *array.shape, *[0] * (MAX_RANK - array.ndim))


def unpack_arrays(data: bytes) -> list[Array]:
    """The stored arrays of a file in that format."""
    arrays, at = [], 0
    while at < len(data):
        code, rank, *shape = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        dtype = _DTYPES[code].numpy
        count = int(np.prod(shape[:rank], dtype=np.int64))
        arrays.append(np.frombuffer(data, dtype, count, at).reshape(shape[:rank]))
        at += count * dtype.itemsize
    return arrays
