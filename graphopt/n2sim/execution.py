"""Run a program under qemu and learn which blocks ran, how often, and in which order."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphopt.errors import CompilerError, MissingEmulatorError, PricingError
from graphopt.n2sim.disassembly import Instruction
from graphopt.scratch_folder import ScratchFolder
from graphopt.toolchain.build import Toolchain

_SOURCE = Path(__file__).parent / "plugin.c"
_EMULATOR = "qemu-aarch64"


@dataclass(frozen=True)
class Execution:
    """What ran.

    Attributes:
        counts: how often each address ran, of the whole program.
        blocks: (address, instructions) of the blocks that qemu translated.
        order: indices into ``blocks``, of the chosen functions, in the order they ran.
        exit_status: of the program.
    """

    counts: Mapping[int, int]
    blocks: Sequence[tuple[int, int]]
    order: NDArray[np.uint32]
    exit_status: int

    def recorded(self) -> int:
        """Instructions whose order is known."""
        return int(self.ends()[-1]) if len(self.order) else 0

    def ends(self) -> NDArray[Any]:
        """Instructions up to and with each block of ``order``."""
        lengths = np.array([length for _, length in self.blocks], np.int64)
        return np.cumsum(lengths[self.order])


def execute(
    command: Sequence[str],
    code: Mapping[int, Instruction],
    functions: set[str],
    vector_bits: int,
    cap: int,
) -> Execution:
    """Run ``command`` under qemu with the plugin; its output goes to standard error.

    Args:
        command: program and arguments.
        code: its disassembly.
        functions: functions whose blocks are recorded in order.
        vector_bits: length of SVE vectors.
        cap: blocks to record at most.

    Raises:
        MissingEmulatorError: if qemu-aarch64 is not installed.
        MissingCompilerError: if nothing can build the plugin.
        PricingError: if qemu fails before the program ends.
    """
    emulator = shutil.which(_EMULATOR)
    if emulator is None:
        raise MissingEmulatorError(_EMULATOR)
    with ScratchFolder() as folder:
        ranges = "".join(f",range={low:x}-{high:x}" for low, high in _spans(code, functions))
        files = f"out={folder / 'counts'},trace={folder / 'trace'},cap={cap}{ranges}"
        plugin = ["-plugin", f"{_plugin().file},{files}"]
        done = subprocess.run(
            [emulator, "-cpu", f"max,sve{vector_bits}=on", *plugin, *command],
            stdout=sys.stderr.fileno() if _has_descriptor() else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if not (folder / "counts").exists() or not (folder / "counts").stat().st_size:
            raise PricingError(f"{_EMULATOR} failed: {done.stderr.strip()[-1000:]}")
        rows = [line.split() for line in (folder / "counts").read_text().splitlines()]
        order = np.frombuffer((folder / "trace").read_bytes(), "<u4")
    blocks = [(int(address, 16), int(length)) for address, length, _ in rows]
    counts: dict[int, int] = {}
    for (start, length), row in zip(blocks, rows, strict=True):
        for address in range(start, start + 4 * length, 4):
            counts[address] = counts.get(address, 0) + int(row[2])
    return Execution(counts, blocks, order, done.returncode)


def _has_descriptor() -> bool:
    try:
        sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _spans(code: Mapping[int, Instruction], functions: set[str]) -> list[tuple[int, int]]:
    """Address ranges of the functions."""
    spans: list[tuple[int, int]] = []
    for address, instruction in code.items():
        if instruction.function not in functions:
            continue
        if spans and spans[-1][1] == address:
            spans[-1] = (spans[-1][0], address + 4)
        else:
            spans.append((address, address + 4))
    return spans


@dataclass(frozen=True)
class _Plugin:
    """The compiled plugin, in a folder that lives as long as this process."""

    folder: ScratchFolder

    @property
    def file(self) -> Path:
        return self.folder.path / "plugin.so"


@lru_cache(maxsize=1)
def _plugin() -> _Plugin:
    """Compile the plugin for this machine; its calls of qemu are resolved when qemu loads it."""
    tools = Toolchain.find(platform.machine())
    plugin = _Plugin(ScratchFolder(prefix="n2sim-"))
    target = ("-target", f"{tools.arch}-linux-gnu.2.17") if tools.is_zig else ()
    command = [*tools.command, *target, "-O2", "-shared", "-fPIC", "-Wl,--allow-shlib-undefined"]
    command += ["-Wl,-z,lazy", "-o", str(plugin.file), str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompilerError(command, done.stderr, _SOURCE.name)
    return plugin
