"""Compiled modules through their C interface, with numpy alone."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np

from graphopt import errors
from graphopt.dtype import DType
from graphopt.runtime import process
from graphopt.runtime.cpus import usable_cpus
from graphopt.worker_threads import map_on_threads

Array = np.ndarray[Any, Any]
Item = TypeVar("Item")
Made = TypeVar("Made")
MAX_RANK = 8
ABI_VERSION, OLDEST_ABI_VERSION = 7, 4  # of graphopt.h, and what is enough of it
MAX_THREADS = 4095  # of a run, and of all runs together

_DTYPES = list(DType)


class Code(IntEnum):
    """`go_code` of graphopt.h."""

    OK = 0
    RANK = 1
    DTYPE = 2
    SHAPE = 3
    EMPTY = 4
    VALUE = 5
    MEMORY = 6
    FILE = 7
    THREADS = 8
    CONDITION = 9
    LEVEL = 10


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


class _Port(ctypes.Structure):
    """`go_port` of graphopt.h."""

    _fields_ = (("dtype", ctypes.c_int32), ("rank", ctypes.c_int32), ("written", ctypes.c_int32))


class _Gate(ctypes.Structure):
    """`go_gate` of graphopt.h."""

    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in ("limit", "running", "next", "serving", "changes", "process")
    )


_gate = _Gate()


def limit_threads(threads: int | None) -> None:
    """Sets how many threads may compute at once, over all modules of this process.

    A run of more threads than that has as many as the limit; one whose threads are not free waits
    its turn. The limit in the beginning is the number of CPUs that the process may use. It counts
    from the next run on that begins or ends.

    Args:
        threads: 1 to 4095, or None for the number of CPUs.

    Raises:
        ThreadCountError: for another number.
    """
    _gate.limit = check_threads(threads, "the limit of threads") or usable_cpus()


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
        if self.code == Code.RANK:
            return errors.InputRankError(name, shapes[self.input], inputs[self.input].shape)
        if self.code == Code.DTYPE:
            expected, got = _dtype_name(self.expected), _dtype_name(self.got)
            return errors.InputDtypeError(name, expected, got)
        if self.code == Code.SHAPE:
            return errors.InputShapeError(name, self.axis, self.expected, self.got)
        if self.code == Code.EMPTY:
            return errors.EmptyInputError(name, self.axis)
        if self.code == Code.VALUE:
            return errors.InputValueError(self.text, self.expected, self.got)
        if self.code == Code.CONDITION:
            return errors.InputConditionError(self.text, names, shapes)
        if self.code == Code.MEMORY:
            return errors.OutOfMemoryError(self.text)
        if self.code == Code.THREADS:
            return errors.ThreadStartError(int(self.expected))
        if self.code == Code.LEVEL:
            level, _, reason = self.text.partition(": ")
            return errors.LevelStartError(level, reason)
        return errors.RunError(self.text)


class _CLibrary:
    """The functions of a shared library, which is closed with the last user of this object."""

    def __init__(self, path: os.PathLike[str]) -> None:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._functions = ctypes.CDLL(_unique_name(file))
        finally:
            os.close(file)
        _at_end(self, _close_library, self._functions._handle)

    def __getattr__(self, name: str) -> Any:
        # By item, not by attribute: those a CDLL keeps, and they keep the CDLL.
        return self._functions[name]


_opened = itertools.count(1)


def _unique_name(file: int) -> str:
    """A name of an open file that no library had before.

    For a name that it knows, the loader gives the library that had it, even if the file is another
    by now. So the bits of a number are spelled between the folders, which changes no path.
    """
    bits = "".join("./" if bit == "1" else "/" for bit in f"{next(_opened):b}")
    return f"/proc/self/fd/{bits}{file}"


def _close_library(handle: int) -> None:
    ctypes.CDLL(None).dlclose(ctypes.c_void_p(handle))


def _at_end(owner: object, function: Callable[..., object], *args: object) -> None:
    """Calls a function when its owner is gone.

    Not at the end of the process, where threads that still run would lose the memory under them.
    """
    weakref.finalize(owner, function, *args).atexit = False


class _Module:
    """An open `go_module` with its weights mapped.

    Args:
        library: path of the shared library.
        weights: path of the weights file.
    """

    def __init__(self, library: os.PathLike[str], weights: os.PathLike[str]) -> None:
        try:
            self.c = _CLibrary(library)
            version = self.c.go_abi_version()
        except (OSError, AttributeError) as error:
            reason = str(error).partition(": ")[2] or str(error)
            raise errors.PackageCorruptError(library, f"it does not load: {reason}") from error
        if not OLDEST_ABI_VERSION <= version <= ABI_VERSION:
            raise errors.PackageVersionError(library, f"interface {version}", str(ABI_VERSION))
        self.pointer = ctypes.c_void_p()
        code = self.c.go_open(os.fsencode(weights), ctypes.byref(self.pointer))
        if code == Code.LEVEL:
            start_level(self.c)
        if code == Code.MEMORY:
            raise errors.OutOfMemoryError(f"{weights} cannot be mapped")
        if code:
            raise errors.PackageCorruptError(weights, "missing, or not of the right size")
        _at_end(self, _close_module, self.c, self.pointer)
        self.c.go_share_gate(self.pointer, ctypes.byref(_gate))


def start_level(c: Any) -> None:
    """Starts the ISA level of a C library, if it has not started yet.

    Raises:
        LevelStartError: if the system does not let this process run it.
    """
    level, refusal = c.go_level, c.go_level_refusal
    level.restype = refusal.restype = ctypes.c_char_p
    reason = refusal()
    if reason is not None:
        raise errors.LevelStartError(level().decode(), reason.decode())


def _close_module(c: _CLibrary, module: ctypes.c_void_p) -> None:
    c.go_close(module)


@dataclass(frozen=True)
class PortType:
    """What a library says of an input or output.

    Attributes:
        dtype: of its elements.
        rank: number of its dimensions.
        written: whether a run writes to it, though it is an input.
    """

    dtype: str
    rank: int
    written: bool


class MachineCode:
    """What holds compiled code, which never changes: copies share it, no other process can."""

    def __copy__(self) -> Any:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """The same."""
        return self

    def __reduce__(self) -> Any:
        raise errors.PackageError(
            "a compiled module cannot be pickled, because it holds machine code; write it with "
            ".save(path) and open the package with graphopt.load(path) where it is needed"
        )


class Library(MachineCode):
    """One shared library with its weights mapped; both are closed with the last user.

    Args:
        library: the shared library; its text names it in errors, as that of the weights.
        weights: the weights file.
        input_names: names for error messages.
        input_shapes: extents as text, for error messages.

    Attributes:
        inputs, outputs: what the library takes and makes.
        step_count: steps of a run.

    Raises:
        PackageCorruptError: if the files do not fit together.
        PackageVersionError: if the library has another interface.
        LevelStartError: if this process cannot run the library's ISA level.
        OutOfMemoryError: if the weights cannot be mapped.
    """

    def __init__(
        self,
        library: os.PathLike[str],
        weights: os.PathLike[str],
        input_names: Sequence[str],
        input_shapes: Sequence[Sequence[object]],
    ) -> None:
        self.input_names, self._shapes = list(input_names), list(input_shapes)
        with process.changes:
            self._module = _Module(library, weights)
        c, pointer = self._module.c, self._module.pointer
        self.step_count = int(c.go_step_count(pointer))
        self.inputs = _ports(c.go_input_ports, c.go_input_count(pointer), pointer)
        self.outputs = _ports(c.go_output_ports, c.go_output_count(pointer), pointer)

    def times(self, repeats: int) -> Array:
        """Room for the seconds of every step in `repeats` runs, f64 [repeats, steps]."""
        return np.zeros((repeats, self.step_count))

    def symbol(self, name: str) -> Any:
        """A C function of the library that is not in graphopt.h."""
        return getattr(self._module.c, name)

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
        if not items:
            return []
        wanted = min(threads or len(items), len(items), MAX_THREADS)
        c, module = self._module.c, self._module.pointer
        take, give, taken = c.go_take_threads, c.go_give_threads, list[int]()
        try:
            # In one call, so that an interrupt cannot come between taking threads and knowing it.
            taken.extend(map(take, [module], [wanted]))
            if taken == [1]:
                return [function(item) for item in items]
            return map_on_threads(function, items, taken[0])
        finally:
            for count in taken:
                give(module, count)

    def error(self, context: ctypes.c_void_p, inputs: Sequence[Array]) -> errors.GraphoptError:
        """The typed form of the context's last error, for the inputs of that call."""
        last_error = self._module.c.go_last_error
        last_error.restype = ctypes.POINTER(_Error)
        e = last_error(context).contents
        text = bytes(e.text).partition(b"\0")[0].decode(errors="replace")
        found = Failure(e.code, e.input, e.axis, e.expected, e.got, text)
        return found.typed(self.input_names, self._shapes, inputs)


def _ports(function: Any, count: int, module: ctypes.c_void_p) -> tuple[PortType, ...]:
    function.restype = ctypes.POINTER(_Port)
    rows = function(module)[:count]
    return tuple(PortType(_DTYPES[row.dtype].value, row.rank, bool(row.written)) for row in rows)


class Context:
    """Memory and threads for one run at a time.

    Raises:
        ThreadStartError: if the system does not let so many threads start.
        OutOfMemoryError: without memory.
    """

    def __init__(self, library: Library, threads: int) -> None:
        self._library = library
        module = library._module
        self._c = c = module.c
        self._context = ctypes.c_void_p()
        code = c.go_context_new(module.pointer, threads, ctypes.byref(self._context))
        if code == Code.THREADS:
            raise errors.ThreadStartError(threads)
        if code:
            raise errors.OutOfMemoryError("none for another context")
        _at_end(self, _free_context, module, self._context)
        self.threads = int(c.go_thread_count(self._context))
        self._run, self._shape_outputs = c.go_profile, c.go_output_shapes
        self._given = (Tensor * max(1, len(library.inputs)))()
        self._made = (Tensor * max(1, len(library.outputs)))()
        self._row = 1 + 2 * library.step_count  # marks of a thread
        self._bytes = c.go_arena_bytes
        self._bytes.restype = ctypes.c_size_t

    @property
    def arena_bytes(self) -> int:
        """Working memory that the context holds now."""
        return int(self._bytes(self._context))

    def run(
        self,
        inputs: Sequence[Array],
        seconds: Array | None = None,
        marks: list[Array] | None = None,
    ) -> list[Array]:
        """Runs the module.

        Args:
            inputs: stored arrays (bf16 as uint16) in the order of the module.
            seconds: f64 array of `step_count`, filled with the time of each step.
            marks: gets one more array, f64 [threads, 1 + 2 * step_count]: seconds since the run
                began when each thread began, and for each step when it had no more to do and when
                it went on; 0 where a thread took no part. With `seconds` alone.

        Raises:
            InputError: if an input does not fit.
        """
        library, given, made = self._library, self._given, self._made
        if len(inputs) != len(library.inputs):
            raise errors.InputCountError(f"{len(library.inputs)} tensors", f"{len(inputs)}")
        dense = list(map(_dense, inputs, library.input_names))
        for tensor, array, name in zip(given, dense, library.input_names, strict=False):
            _describe(tensor, array, name)
        self._check(self._shape_outputs(self._context, given, made), dense)
        outputs = []
        for tensor in made[: len(library.outputs)]:
            outputs.append(_empty(tuple(tensor.shape[: tensor.rank]), _DTYPES[tensor.dtype]))
            tensor.data = outputs[-1].ctypes.data
        times = None if seconds is None else _doubles(seconds)
        if marks is None:
            self._check(self._run(self._context, given, made, times), dense)
        else:
            marks.append(np.zeros((self.threads, self._row)))
            run = self._library.symbol("go_profile_threads")
            self._check(run(self._context, given, made, times, _doubles(marks[-1])), dense)
        return [_as_made(array, tensor) for array, tensor in zip(outputs, made, strict=False)]

    def _check(self, code: int, inputs: Sequence[Array]) -> None:
        if code:
            raise self._library.error(self._context, inputs)


def _doubles(array: Array) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


def _as_made(array: Array, made: Tensor) -> Array:
    """An output in the shape that the run gave it, which may be smaller than its memory."""
    shape = tuple(made.shape[: made.rank])
    return array if array.shape == shape else array.reshape(-1)[: math.prod(shape)].reshape(shape)


def dense_tensor(tensor: Any) -> Any:
    """A torch tensor on the CPU, row-major, without a copy where possible.

    Raises:
        OutOfMemoryError: without memory for a copy.
    """
    try:
        return tensor.detach().cpu().contiguous()
    except RuntimeError as error:
        if str(tensor.layout) != "torch.strided":
            raise
        text = f"none for a dense copy of a tensor of shape {list(tensor.shape)}"
        raise errors.OutOfMemoryError(text) from error


def _dense(array: Array, name: str) -> Array:
    try:
        return np.ascontiguousarray(array) if array.ndim else array
    except MemoryError:
        text = f"none for a dense copy of input {name!r} of shape {list(array.shape)}"
        raise errors.OutOfMemoryError(text) from None


def _empty(shape: tuple[int, ...], dtype: DType) -> Array:
    try:
        return np.empty(shape, dtype.numpy)
    except (MemoryError, ValueError):
        raise errors.OutOfMemoryError(f"none for an output of shape {list(shape)}") from None


def zeros(shape: Sequence[int], dtype: DType) -> Array:
    """Zeros, as stored.

    Raises:
        OutOfMemoryError: without memory for them.
    """
    try:
        return np.zeros(shape, dtype.numpy)
    except (MemoryError, ValueError):
        raise errors.OutOfMemoryError(f"none for an input of shape {list(shape)}") from None


def _free_context(module: _Module, context: ctypes.c_void_p) -> None:
    module.c.go_context_free(context)


def check_threads(threads: int | None, name: str = "num_threads") -> int | None:
    """The argument `name`, if it is 1 to 4095 threads or None; ThreadCountError otherwise."""
    if threads is None:
        return None
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MAX_THREADS:
        raise errors.ThreadCountError(threads, name, MAX_THREADS)
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

    @property
    def arena_bytes(self) -> int:
        """Working memory of the idle contexts."""
        return sum(context.arena_bytes for context in list(self._idle))

    def run(
        self,
        library: Callable[[], Library],
        inputs: Sequence[Array],
        seconds: Array | None,
        marks: list[Array] | None = None,
    ) -> list[Array]:
        """Runs a module as `Context.run` does, in an idle context or in a new one.

        Args:
            library: gives the module, for a new context.
            inputs: as for `Context.run`.
            seconds: as for `Context.run`; None if no times are wanted.
            marks: as for `Context.run`; None if they are not wanted.

        Raises:
            InputError: if an input does not fit.
        """
        with process.calls:
            try:
                context = self._idle.pop()
            except IndexError:
                context = library().context(self._threads)
            try:
                return context.run(inputs, seconds, marks)
            finally:
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


def _describe(tensor: Tensor, array: Array, name: str) -> None:
    """Puts into a tensor of C what it is to know of an array."""
    tensor.dtype, tensor.rank = dtype_code(array, name), array.ndim
    tensor.data = array.ctypes.data
    tensor.shape[: array.ndim] = array.shape


def _dtype_name(code: int) -> str:
    if not 0 <= code < len(_DTYPES):
        return f"type {code}"
    dtype = _DTYPES[code]
    return "bfloat16" if dtype is DType.BF16 else dtype.numpy.name
