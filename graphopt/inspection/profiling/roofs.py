"""What this machine can do at most: multiply, and read from memory and from caches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from graphopt.bench.kernels.native import Kernels
from graphopt.config import Config
from graphopt.runtime.cpus import usable_cpus
from graphopt.target import native
from graphopt.toolchain.build import Builder

_MEMORY_BYTES = 256 << 20  # beyond any cache
_CACHE_BYTES = 256 << 10  # of each thread: within the second level
_PASSES = 15  # of which the fastest counts
_CACHE_REPEATS = 200
_PEAK_REPEATS = 2

#: Numbers that kernels multiply, by the format of the weights.
UNITS: Mapping[str, str] = {"int4": "int8", "int8": "int8", "bf16": "bf16"}


@dataclass(frozen=True)
class Roofs:
    """Rates of this machine.

    Attributes:
        threads: that reached them.
        macs: multiply-adds a second, by the numbers: `f32`, `bf16`, `int8`.
        memory: bytes a second that are read from memory.
        cache: bytes a second that are read from the second-level caches.
    """

    threads: int
    macs: Mapping[str, float]
    memory: float
    cache: float

    def peak(self, scheme: str) -> float:
        """Multiply-adds a second of products with weights of a format."""
        return self.macs.get(UNITS.get(scheme, "f32"), self.macs["f32"])

    @property
    def text(self) -> str:
        """The rates, for people."""
        peaks = ", ".join(f"{rate / 1e9:.0f} in {unit}" for unit, rate in self.macs.items())
        return (
            f"measured here on {self.threads} threads: {peaks} GMAC/s; "
            f"{self.memory / 1e9:.1f} GB/s from memory, {self.cache / 1e9:.0f} GB/s from caches"
        )

    def as_dict(self) -> dict[str, Any]:
        """The rates."""
        return {
            "threads": self.threads,
            "macs_per_second": dict(self.macs),
            "memory_bytes_per_second": self.memory,
            "cache_bytes_per_second": self.cache,
        }


@cache
def measure_roofs(threads: int) -> Roofs:
    """Measures the rates, once in a process: about a second.

    Args:
        threads: of a run.

    Raises:
        MissingCompilerError: without a compiler.
        RunError: if the threads cannot be started.
    """
    builder = Builder(Config.from_environment().cache, usable_cpus())
    macs: dict[str, float] = {}
    kernels = Kernels(builder.timed_kernels(native().isa_levels[-1]), threads)
    try:
        for loop in kernels.peak_loops():
            taken = min(loop.run(_PEAK_REPEATS) for _ in range(_PASSES))
            rate = loop.macs * _PEAK_REPEATS / taken
            macs[loop.unit] = max(rate, macs.get(loop.unit, 0.0))
        rates = []
        for size, repeats in ((_MEMORY_BYTES, 1), (_CACHE_BYTES * threads, _CACHE_REPEATS)):
            read = kernels.read_loop(size)
            rates.append(size * repeats / min(read(repeats) for _ in range(_PASSES)))
    finally:
        kernels.close()
    return Roofs(threads, macs, *rates)
