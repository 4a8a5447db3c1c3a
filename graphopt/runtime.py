"""Compiled modules through their C interface, with numpy alone."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphopt import errors
from graphopt.dtype import DType

Array = np.ndarray[Any, Any]
MAX_RANK = 8
ABI_VERSION = 1

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


class Library:
    """One shared library with its weights mapped.

    Args:
        library: path of the shared library.
        weights: path of the weights file.
        input_names: names for error messages.
        input_shapes: extents as text, for error messages.

    Raises:
        PackageCorruptError: if the files do not fit together.
    """

    def __init__(
        self,
        library: Path,
        weights: Path,
        input_names: Sequence[str],
        input_shapes: Sequence[Sequence[object]],
    ) -> None:
        self._names, self._shapes = list(input_names), list(input_shapes)
        try:
            self._c = ctypes.CDLL(str(library))
            version = self._c.go_abi_version()
        except (OSError, AttributeError) as error:
            raise errors.PackageCorruptError(library, f"it does not load: {error}") from error
        if version != ABI_VERSION:
            raise errors.PackageCorruptError(library, f"interface {version}, not {ABI_VERSION}")
        self._c.go_last_error.restype = ctypes.POINTER(_Error)
        self._c.go_arena_bytes.restype = ctypes.c_size_t
        self._module = ctypes.c_void_p()
        if self._c.go_open(str(weights).encode(), ctypes.byref(self._module)):
            raise errors.PackageCorruptError(weights, "missing, or not of the right size")
        self._close = weakref.finalize(self, self._c.go_close, self._module)
        self.step_count = int(self._c.go_step_count(self._module))
        self._inputs = int(self._c.go_input_count(self._module))
        self._outputs = int(self._c.go_output_count(self._module))

    def context(self, threads: int | None) -> Context:
        """A context of its own memory and threads; all allowed CPUs if None."""
        return Context(self, threads or 0)

    def error(self, context: ctypes.c_void_p) -> errors.GraphoptError:
        """The typed form of the context's last error."""
        e = self._c.go_last_error(context).contents
        text = bytes(e.text).partition(b"\0")[0].decode(errors="replace")
        name = self._names[e.input] if 0 <= e.input < len(self._names) else "?"
        expected, got = int(e.expected), int(e.got)
        if e.code == 1:
            return errors.InputRankError(name, self._shapes[e.input], [0] * got)
        if e.code == 2:
            return errors.InputDtypeError(name, _dtype_name(expected), _dtype_name(got))
        if e.code == 3:
            return errors.InputShapeError(name, int(e.axis), expected, got)
        if e.code == 4:
            return errors.EmptyInputError(name, int(e.axis))
        if e.code == 5:
            return errors.InputValueError(text, expected, got)
        return errors.RunError(text)


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
        given = (Tensor * max(1, len(dense)))(*(_tensor(a) for a in dense))
        made = (Tensor * max(1, self._library._outputs))()
        if len(dense) != self._library._inputs:
            raise errors.InputCountError(f"{self._library._inputs} tensors", f"{len(dense)}")
        self._check(self._c.go_output_shapes(self._context, given, made))
        outputs = []
        for i in range(self._library._outputs):
            shape = tuple(made[i].shape[: made[i].rank])
            outputs.append(np.empty(shape, _DTYPES[made[i].dtype].numpy))
            made[i].data = outputs[-1].ctypes.data
        times = None if seconds is None else seconds.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        self._check(self._c.go_profile(self._context, given, made, times))
        return outputs

    def _check(self, code: int) -> None:
        if code:
            raise self._library.error(self._context)


def _tensor(array: Array) -> Tensor:
    if array.ndim > MAX_RANK:
        raise errors.InputRankError("?", ["at most 8"], array.shape)
    code = next((d.code for d in _DTYPES if d.numpy == array.dtype and d is not DType.BF16), None)
    if array.dtype == np.uint16:
        code = DType.BF16.code
    if code is None:
        raise errors.InputDtypeError("?", "a supported type", str(array.dtype))
    shape = (ctypes.c_int64 * MAX_RANK)(*array.shape)
    return Tensor(array.ctypes.data, code, array.ndim, shape)


def _dtype_name(code: int) -> str:
    return _DTYPES[code].value if 0 <= code < len(_DTYPES) else f"type {code}"
