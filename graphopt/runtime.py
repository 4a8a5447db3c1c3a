"""Compiled modules through their C interface, with numpy alone."""

from __future__ import annotations

import ctypes
import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from graphopt import errors
from graphopt.dtype import DType

Array = np.ndarray[Any, Any]
Item = TypeVar("Item")
Made = TypeVar("Made")
MAX_RANK = 8
ABI_VERSIONS = (2, 3, 4)  # those of packages that run; 2 lends no threads

_DTYPES = list(DType)


class Tensor(ctypes.Structure):
    """`go_tensor` of graphopt.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * MAX_RANK),
    )


class _Error(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_int),
        ("input", ctypes.c_int32),
        ("axis", ctypes.c_int32),
        ("expected", ctypes.c_int64),
        ("got", ctypes.c_int64),
        ("text", ctypes.c_char * 256),
    )


class _Gate(ctypes.Structure):
    """`go_gate` of graphopt.h."""

    _fields_ = tuple(
        (name, ctypes.c_uint32) for name in ("limit", "running", "next", "serving", "changes")
    )


_gate = _Gate()


def limit_threads(threads: int) -> None:
    """Sets how many threads may compute at once, over all modules of this process.

    A run of more threads than that has as many as the limit; one whose threads are not free waits
    its turn. The limit in the beginning is the number of CPUs that the process may use. It counts
    from the next run on that begins or ends.

    Raises:
        ThreadCountError: for a number below 1.
    """
    if not isinstance(threads, int) or threads < 1:
        raise errors.ThreadCountError(threads)
    _gate.limit = threads


@dataclass(frozen=True)
class Failure:
    """`go_error` of graphopt.h: what a module says about a call that it refused or that failed."""

    code: int
    input: int
    axis: int
    expected: int
    got: int
    text: str

    def typed(
        self, names: Sequence[str], shapes: Sequence[Sequence[object]], inputs: Sequence[Array]
    ) -> errors.GraphoptError:
        """The exception to raise.

        Args:
            names: of the module's inputs.
            shapes: their extents.
            inputs: what the call gave.
        """
        name = names[self.input] if 0 <= self.input < len(names) else "?"
        if self.code == 1:
            return errors.InputRankError(name, shapes[self.input], inputs[self.input].shape)
        if self.code == 2:
            expected, got = _dtype_name(self.expected), _dtype_name(self.got)
            return errors.InputDtypeError(name, expected, got)
        if self.code == 3:
            return errors.InputShapeError(name, self.axis, self.expected, self.got)
        if self.code == 4:
            return errors.EmptyInputError(name, self.axis)
        if self.code == 5:
            return errors.InputValueError(self.text, self.expected, self.got)
        if self.code == 9:
            return errors.InputConditionError(self.text)
        return errors.RunError(self.text)


_open_libraries: dict[tuple[int, int], ctypes.CDLL] = {}


def _open_library(path: os.PathLike[str]) -> ctypes.CDLL:
    """Dlopen by file: for a name that it knows, glibc returns the file that was there before."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    status = os.fstat(file)
    key = status.st_dev, status.st_ino
    if key in _open_libraries:
        os.close(file)
        return _open_libraries[key]
    try:
        library = ctypes.CDLL(f"/proc/self/fd/{file}")
    except OSError:
        os.close(file)
        raise
    # The file stays open: no other file gets its inode, and none its number, which is its name.
    return _open_libraries.setdefault(key, library)


class Library:
    """One shared library with its weights mapped.

    Args:
        library: the shared library; its text names it in errors, as that of the weights.
        weights: the weights file.
        input_names: names for error messages.
        input_shapes: extents as text, for error messages.

    Raises:
        PackageCorruptError: if the files do not fit together.
    """

    def __init__(
        self,
        library: os.PathLike[str],
        weights: os.PathLike[str],
        input_names: Sequence[str],
        input_shapes: Sequence[Sequence[object]],
    ) -> None:
        self.input_names, self._shapes = list(input_names), list(input_shapes)
        try:
            self._c = _open_library(library)
            version = self._c.go_abi_version()
        except (OSError, AttributeError) as error:
            reason = str(error).partition(": ")[2] or str(error)
            raise errors.PackageCorruptError(library, f"it does not load: {reason}") from error
        if version not in ABI_VERSIONS:
            raise errors.PackageCorruptError(library, f"interface {version}, not {ABI_VERSIONS}")
        self._lends_threads = version >= 3
        self._c.go_last_error.restype = ctypes.POINTER(_Error)
        self._c.go_arena_bytes.restype = ctypes.c_size_t
        self._module = ctypes.c_void_p()
        if self._c.go_open(os.fsencode(weights), ctypes.byref(self._module)):
            raise errors.PackageCorruptError(weights, "missing, or not of the right size")
        self._c.go_share_gate(self._module, ctypes.byref(_gate))
        self._close = weakref.finalize(self, self._c.go_close, self._module)
        self.step_count = int(self._c.go_step_count(self._module))
        self._inputs = int(self._c.go_input_count(self._module))
        self._outputs = int(self._c.go_output_count(self._module))

    @property
    def ports(self) -> tuple[int, int]:
        """Number of inputs and of outputs."""
        return self._inputs, self._outputs

    def context(self, threads: int | None) -> Context:
        """A context of its own memory and threads; all allowed CPUs if None."""
        return Context(self, threads or 0)

    def map(
        self, function: Callable[[Item], Made], items: Sequence[Item], threads: int | None
    ) -> list[Made]:
        """What a function gives for each item, on threads that count as those of a run.

        Args:
            function: runs no module; where it computes, it lets other Python threads go on.
            items: no more threads are taken than these.
            threads: as for :meth:`context`, but never more than the allowed CPUs.
        """
        from concurrent.futures import ThreadPoolExecutor

        if not items or not self._lends_threads:
            return [function(item) for item in items]
        wanted = len(items) if threads is None else min(threads, len(items))
        taken = self._c.go_take_threads(self._module, wanted)
        try:
            if taken == 1:
                return [function(item) for item in items]
            with ThreadPoolExecutor(taken) as executor:
                return list(executor.map(function, items))
        finally:
            self._c.go_give_threads(self._module, taken)

    def error(self, context: ctypes.c_void_p, inputs: Sequence[Array]) -> errors.GraphoptError:
        """The typed form of the context's last error, for the inputs of that call."""
        e = self._c.go_last_error(context).contents
        text = bytes(e.text).partition(b"\0")[0].decode(errors="replace")
        found = Failure(e.code, e.input, e.axis, e.expected, e.got, text)
        return found.typed(self.input_names, self._shapes, inputs)


class Context:
    """Memory and threads for one run at a time."""

    def __init__(self, library: Library, threads: int) -> None:
        self._library = library
        self._c = library._c
        self._context = ctypes.c_void_p()
        code = self._c.go_context_new(library._module, threads, ctypes.byref(self._context))
        if code:
            raise errors.RunError(f"no context with {threads} threads (code {code})")
        self._free = weakref.finalize(self, self._c.go_context_free, self._context)
        self.threads = int(self._c.go_thread_count(self._context))
        self.abandoned = False
        _contexts.add(self)

    def abandon(self) -> None:
        """Gives memory and threads up without freeing them."""
        self.abandoned = True
        self._free.detach()

    @property
    def arena_bytes(self) -> int:
        """Working memory that the context holds now."""
        return int(self._c.go_arena_bytes(self._context))

    def run(self, inputs: Sequence[Array], seconds: Array | None = None) -> list[Array]:
        """Runs the module.

        Args:
            inputs: stored arrays (bf16 as uint16) in the order of the module.
            seconds: f64 array of `step_count`, filled with the time of each step.

        Raises:
            InputError: if an input does not fit.
        """
        dense = [np.ascontiguousarray(a) if a.ndim else a for a in inputs]
        names = [*self._library.input_names, *["?"] * len(dense)]
        given = (Tensor * max(1, len(dense)))(*map(_tensor, dense, names))
        made = (Tensor * max(1, self._library._outputs))()
        if len(dense) != self._library._inputs:
            raise errors.InputCountError(f"{self._library._inputs} tensors", f"{len(dense)}")
        self._check(self._c.go_output_shapes(self._context, given, made), dense)
        outputs = []
        for i in range(self._library._outputs):
            shape = tuple(made[i].shape[: made[i].rank])
            outputs.append(np.empty(shape, _DTYPES[made[i].dtype].numpy))
            made[i].data = outputs[-1].ctypes.data
        times = None if seconds is None else seconds.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        self._check(self._c.go_profile(self._context, given, made, times), dense)
        return [_as_made(array, tensor) for array, tensor in zip(outputs, made, strict=False)]

    def _check(self, code: int, inputs: Sequence[Array]) -> None:
        if code:
            raise self._library.error(self._context, inputs)


def _as_made(array: Array, made: Tensor) -> Array:
    """An output in the shape that the run gave it, which may be smaller than its memory."""
    shape = tuple(made.shape[: made.rank])
    return array if array.shape == shape else array.reshape(-1)[: math.prod(shape)].reshape(shape)


_contexts: weakref.WeakSet[Context] = weakref.WeakSet()


def _abandon_contexts() -> None:
    """For a forked child: the contexts' threads stayed in the parent, where nobody waits for it."""
    for context in _contexts:
        context.abandon()
    _gate.running, _gate.serving = 0, _gate.next


os.register_at_fork(after_in_child=_abandon_contexts)


def check_threads(threads: int | None) -> int | None:
    """The argument, if it is a number of threads or None; ThreadCountError otherwise."""
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise errors.ThreadCountError(threads)
    return threads


class ContextPool:
    """Contexts for callers on several threads: each takes an idle one, or makes its own.

    Args:
        threads: threads of a context; all allowed CPUs if None.

    Raises:
        ThreadCountError: for a number below 1.
    """

    def __init__(self, threads: int | None) -> None:
        self._threads = check_threads(threads)
        self._idle: list[Context] = []
        self._lock = threading.Lock()

    @property
    def arena_bytes(self) -> int:
        """Working memory of the idle contexts."""
        with self._lock:
            return sum(context.arena_bytes for context in self._idle if not context.abandoned)

    def run(
        self, library: Callable[[], Library], inputs: Sequence[Array], seconds: Array | None
    ) -> list[Array]:
        """Runs a module as `Context.run` does; `library` opens it, the first time."""
        with self._lock:
            while self._idle and self._idle[-1].abandoned:
                self._idle.pop()
            context = self._idle.pop() if self._idle else library().context(self._threads)
        try:
            return context.run(inputs, seconds)
        finally:
            with self._lock:
                self._idle.append(context)


def dtype_code(array: Array, name: str) -> int:
    """The `go_dtype` of a stored array; raises the typed error for what no module takes."""
    if array.ndim > MAX_RANK:
        raise errors.InputRankError(name, ["at most 8"], array.shape)
    if array.dtype == np.uint16:
        return DType.BF16.code
    try:
        return DType.of(array).code
    except KeyError:
        raise errors.InputDtypeError(name, "a supported type", str(array.dtype)) from None


def _tensor(array: Array, name: str) -> Tensor:
    shape = (ctypes.c_int64 * MAX_RANK)(*array.shape)
    return Tensor(array.ctypes.data, dtype_code(array, name), array.ndim, shape)


def _dtype_name(code: int) -> str:
    if not 0 <= code < len(_DTYPES):
        return f"type {code}"
    dtype = _DTYPES[code]
    return "bfloat16" if dtype is DType.BF16 else dtype.numpy.name
