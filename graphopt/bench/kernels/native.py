"""Our kernels on this machine, called directly and timed around the calls alone."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.bench.kernels.workloads import Array, Step
from graphopt.errors import RunError
from graphopt.kernels.host_case import as_at, buffers, field_offset
from graphopt.runtime.library import start_level

_ALIGN = 64  # of every buffer, as in a module's arena
_PEAK_TASKS, _PEAK_STEPS = 16, 4096


class _PeakLoop(ctypes.Structure):
    """go_peak_loop of harness/peak.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("loop", ctypes.c_void_p),
        ("macs", ctypes.c_size_t),
    )


class _PeakArgs(ctypes.Structure):
    """go_peak_args of harness/peak.h."""

    _fields_ = (("tasks", ctypes.c_size_t), ("steps", ctypes.c_size_t))


class _ReadArgs(ctypes.Structure):
    """go_read_args of harness/peak.h."""

    _fields_ = (("src", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


class _CountArgs(ctypes.Structure):
    """go_count_args of harness/peak.h."""

    _fields_ = (("additions", ctypes.c_size_t),)


class _Call(ctypes.Structure):
    """go_call of harness/timer.h."""

    _fields_ = (("kernel", ctypes.c_void_p), ("args", ctypes.c_void_p))


@dataclass(frozen=True)
class Calls:
    """Kernel calls with memory of their own.

    Attributes:
        run: ``run(repeats)`` gives the seconds of all calls, ``repeats`` times over.
        written: the buffer of each pointer of the last call, by name.
    """

    run: Callable[[int], float]
    written: dict[str, Array]


@dataclass(frozen=True)
class PeakLoop:
    """A loop of one sequence of instructions.

    Attributes:
        unit: what it multiplies: ``f32``, ``bf16`` or ``int8``.
        sequence: its instructions.
        macs: multiply-accumulates of one repeat.
        run: ``run(repeats)`` gives seconds.
    """

    unit: str
    sequence: str
    macs: int
    run: Callable[[int], float]


class Kernels:
    """The kernels of one level with a team of threads.

    Args:
        library: made by :meth:`graphopt.toolchain.build.Builder.timed_kernels`.
        threads: size of the team.

    Raises:
        LevelStartError: if this process cannot run the level.
        RunError: if the threads cannot be started.
    """

    def __init__(self, library: Path, threads: int) -> None:
        self._c = ctypes.CDLL(str(library))
        start_level(self._c)
        self._c.go_timer_pool.restype = ctypes.c_void_p
        self._c.go_timer_kernel.restype = ctypes.c_void_p
        self._c.go_timer_peaks.restype = ctypes.POINTER(_PeakLoop)
        self._c.go_timer_read.restype = ctypes.c_void_p
        self._c.go_timer_count.restype = ctypes.c_void_p
        self._c.go_timer_run.restype = ctypes.c_double
        self._pool = ctypes.c_void_p(self._c.go_timer_pool(threads))
        if not self._pool:
            raise RunError(f"no pool of {threads} threads")

    def close(self) -> None:
        """End the threads; nothing made by this object may be run any more."""
        self._c.go_timer_pool_free(self._pool)

    def prepare(self, steps: Sequence[Step]) -> Calls:
        """Copies of the arrays in aligned memory, and the calls on them in order.

        An array that is the same object in several steps is one buffer.

        Raises:
            KeyError: if the level has no such kernel.
        """
        memory: dict[int, Array] = {}
        for step in steps:
            for buffer in buffers(step.case):
                if id(buffer.array) not in memory:
                    memory[id(buffer.array)] = _aligned(buffer.array)
        calls, kept = (_Call * len(steps))(), []
        for call, step in zip(calls, steps, strict=True):
            kind = type(step.case.args)
            args = kind.from_buffer_copy(step.case.args)
            for name, pointer in step.case.pointers.items():
                at = as_at(pointer)
                address = memory[id(at.array)].ctypes.data + at.byte_offset
                field = ctypes.c_void_p.from_buffer(args, field_offset(kind, name))
                field.value = address
            kernel = self._c.go_timer_kernel(step.generic.encode())
            if not kernel:
                raise KeyError(f"the level has no {step.generic}")
            call.kernel, call.args = kernel, ctypes.addressof(args)
            kept.append(args)
        pointers = steps[-1].case.pointers
        written = {name: memory[id(as_at(p).array)] for name, p in pointers.items()}
        return Calls(self._runner(calls, [kept, memory]), written)

    def peak_loops(self) -> list[PeakLoop]:
        """The instruction loops of the level."""
        table, loops = self._c.go_timer_peaks(), []
        args = _PeakArgs(_PEAK_TASKS, _PEAK_STEPS)
        for loop in iter(_entries(table)):
            calls = (_Call * 1)(_Call(loop.loop, ctypes.addressof(args)))
            _, unit, sequence = loop.name.decode().split("_", 2)
            macs = loop.macs * _PEAK_TASKS * _PEAK_STEPS
            loops.append(PeakLoop(unit, sequence, macs, self._runner(calls, [args])))
        return loops

    def read_loop(self, size: int) -> Callable[[int], float]:
        """A function like :attr:`Calls.run` that only reads ``size`` bytes of memory."""
        memory = _aligned(np.ones(size, np.uint8))
        args = _ReadArgs(memory.ctypes.data, size)
        calls = (_Call * 1)(_Call(self._c.go_timer_read(), ctypes.addressof(args)))
        return self._runner(calls, [args, memory])

    def count_loop(self, additions: int) -> Callable[[int], float]:
        """A function like :attr:`Calls.run` whose every addition takes one cycle of one core."""
        args = _CountArgs(additions)
        calls = (_Call * 1)(_Call(self._c.go_timer_count(), ctypes.addressof(args)))
        return self._runner(calls, [args])

    def _runner(self, calls: Any, kept: list[Any]) -> Callable[[int], float]:
        """A function that times the calls; ``kept`` is memory that they point into."""

        def run(repeats: int, kept: list[Any] = kept) -> float:
            count, times = ctypes.c_size_t(len(calls)), ctypes.c_size_t(repeats)
            return float(self._c.go_timer_run(self._pool, calls, count, times))

        return run


def _entries(table: Any) -> list[_PeakLoop]:
    entries: list[_PeakLoop] = []
    while table[len(entries)].name:
        entries.append(table[len(entries)])
    return entries


def _aligned(array: Array) -> Array:
    """A copy that begins at a multiple of 64 bytes."""
    memory = np.empty(array.nbytes + _ALIGN, np.uint8)
    start = -memory.ctypes.data % _ALIGN
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
