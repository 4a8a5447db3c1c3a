"""What threads read from memory, measured beside the engines that wait for it."""

from __future__ import annotations

from pathlib import Path

from graphopt.bench.kernels.native import Kernels
from graphopt.config import Config
from graphopt.runtime.cpus import usable_cpus
from graphopt.target import native
from graphopt.toolchain.build import Builder

_BYTES = 256 << 20  # beyond any cache
_PASSES = 8  # of which some meet threads of an engine that still spin


class ReadLoop:
    """A loop that only reads, on a team of its own.

    Args:
        threads: of the team.

    Raises:
        MissingCompilerError: without a compiler.
        RunError: if the threads cannot be started.
    """

    def __init__(self, threads: int) -> None:
        builder = Builder(Config.from_environment().cache, usable_cpus())
        self._kernels = Kernels(builder.timed_kernels(native().isa_levels[-1]), threads)
        self._run = self._kernels.read_loop(_BYTES)

    def rate(self) -> float:
        """Bytes a second of the fastest of some passes through the memory."""
        return _BYTES / min(self._run(1) for _ in range(_PASSES))

    def close(self) -> None:
        """Ends the threads."""
        self._kernels.close()


def weights_bytes(package: Path) -> int:
    """Bytes of the packed weights of a language model's package.

    A token reads all of them, but for an embedding that is a table apart from the head.
    """
    return (package / "decoder" / "weights.bin").stat().st_size
