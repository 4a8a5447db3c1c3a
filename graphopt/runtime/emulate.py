"""Runs generated Arm code on a machine of another architecture, under user-mode qemu."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.dtype import DType
from graphopt.errors import GraphoptError, MissingEmulatorError, RunError
from graphopt.kernels import registry
from graphopt.kernels.registry import Level
from graphopt.runtime.library import MAX_RANK, Failure, dtype_code
from graphopt.scratch_folder import ScratchFolder
from graphopt.toolchain.build import Builder

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
        input_names: names of the module's inputs, for error messages.
        input_shapes: their extents, likewise.
        states: numbers of the inputs that the module writes to.
    """

    builder: Builder
    source: str
    arch: str
    input_names: Sequence[str]
    input_shapes: Sequence[Sequence[object]]
    states: Sequence[int] = ()

    def run(
        self, weights: os.PathLike[str], inputs: Sequence[Array], level: str, sve_bits: int
    ) -> list[Array]:
        """Runs the program once; calls that share states follow one another as steps.

        Args:
            weights: weights file of the architecture.
            inputs: stored arrays (bf16 as uint16); the states among them are written to.
            level: ISA level to build.
            sve_bits: length of an SVE vector, 128 to 2048; for SME in streaming mode.

        Raises:
            MissingEmulatorError: if qemu is not installed.
            InputError: if an input does not fit.
            RunError: if the program fails.
        """
        emulator = shutil.which(f"qemu-{self.arch}")
        if emulator is None:
            raise MissingEmulatorError(f"qemu-{self.arch}")
        row = registry.level(self.arch, level)
        program = self.builder.program(self.source, row)
        with ScratchFolder() as folder:
            given, made = folder / "inputs.bin", folder / "outputs.bin"
            given.write_bytes(pack_arrays(inputs))
            files = [os.fspath(path) for path in (weights, given, made)]
            files += map(str, self.states)
            command = [emulator, "-cpu", emulated_cpu(row, sve_bits), str(program), *files]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise self._error(result.stderr, result.returncode, inputs)
            arrays = unpack_arrays(bytearray(made.read_bytes()))
        outputs = arrays[: len(arrays) - len(self.states)]
        for number, state in zip(self.states, arrays[len(outputs) :], strict=True):
            np.copyto(inputs[number], state)
        return outputs

    def _error(self, said: str, status: int, inputs: Sequence[Array]) -> GraphoptError:
        """What the program said on standard error, as the exception that the runtime raises."""
        words = said.partition("go_error ")[2].split(maxsplit=5)
        if len(words) < 6:
            return RunError(f"under qemu-{self.arch}: {said.strip() or f'exit status {status}'}")
        code, index, axis, expected, got = map(int, words[:5])
        failure = Failure(code, index, axis, expected, got, words[5].strip())
        return failure.typed(self.input_names, self.input_shapes, inputs)


def emulated_cpu(level: Level, sve_bits: int) -> str:
    """The `-cpu` of qemu: Neoverse N1 for levels that it has, else all that qemu knows."""
    if "i8mm" not in level.features:
        return "neoverse-n1"
    return f"max,{'sme' if 'sme' in level.features else 'sve'}{sve_bits}=on"


def pack_arrays(arrays: Sequence[Array]) -> bytes:
    """Stored arrays in the format of runtime/main.c."""
    return b"".join(_header(a) + a.tobytes() for a in arrays)


def _header(array: Array) -> bytes:
    return _HEADER.pack(
        dtype_code(array, "?"), array.ndim, *array.shape, *[0] * (MAX_RANK - array.ndim)
    )


def unpack_arrays(data: bytes | bytearray) -> list[Array]:
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
