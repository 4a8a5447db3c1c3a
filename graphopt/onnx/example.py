"""The example inputs of `optimize` through the compiled model and through another engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from graphopt.compiler.bounds import bound_of
from graphopt.dtype import DType
from graphopt.errors import ExampleMismatchError, OnnxModelError
from graphopt.ir.numbers import widen
from graphopt.onnx.files import Model
from graphopt.testing import relative_error

Array = np.ndarray[Any, Any]

_LEAST = 5e-7
"""Onnxruntime's sigmoid and the like err by 1e-7, however small the result; a few add up."""


def check_example(
    model: Model,
    precision: str,
    feeds: dict[str, Array],
    outputs: Sequence[tuple[str, DType]],
    run: Callable[[], Sequence[Array]],
) -> str:
    """Compares the results of the example with those of onnxruntime, or of onnx in numpy.

    Whole numbers, and bools, must be equal in fp32; in narrower precisions they are decisions that
    rounding may change.

    Args:
        model: the model.
        precision: with which it was compiled.
        feeds: the inputs by name, as stored.
        outputs: names and types of the results.
        run: computes the results, as stored.

    Returns:
        What was found, for the report.

    Raises:
        ExampleMismatchError: if a result is too far away.
    """
    if DType.BF16 in {dtype for _, dtype in outputs} or any(
        i.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16 for i in model.proto.graph.input
    ):
        return "example: not compared, it is bf16"
    engine, wanted = _reference(model, feeds)
    made, bound = run(), bound_of(precision)
    for (name, dtype), got, its in zip(outputs, made, wanted, strict=True):
        numbers = widen(np.asarray(got), dtype)
        if numbers.shape != its.shape:
            what = f"{name} has the shape {list(numbers.shape)}, not {list(its.shape)}"
            raise ExampleMismatchError(model.name, what, bound, f"compared with {engine}")
        if not dtype.is_float:
            if precision == "fp32" and not np.array_equal(numbers, its):
                what = f"{name} has other elements"
                raise ExampleMismatchError(model.name, what, bound, f"compared with {engine}")
            continue
        error = relative_error(numbers, its)
        if not error <= bound and not np.allclose(numbers, its, 0, _LEAST, equal_nan=True):
            what = f"{name} is off by {error:.2g} of its largest magnitude"
            raise ExampleMismatchError(model.name, what, bound, f"compared with {engine}")
    return f"example: as {engine}, within {bound:g}"


def _reference(model: Model, feeds: dict[str, Array]) -> tuple[str, list[Array]]:
    """The name of an engine, and what it computes."""
    try:
        if importlib.util.find_spec("onnxruntime") is not None:
            return "onnxruntime", _onnxruntime(model, feeds)
        from onnx.reference import ReferenceEvaluator

        found: Any = ReferenceEvaluator(_whole(model)).run(None, feeds)
        return "onnx in numpy", found
    except Exception as error:
        why = f"nothing runs it to compare with: {error}"
        raise OnnxModelError(model.name, f"{why}; pass check=False") from error


def _onnxruntime(model: Model, feeds: dict[str, Array]) -> list[Array]:
    source = _whole(model).SerializeToString() if model.path is None else str(model.path)
    made: list[Array] = session(source).run(None, feeds)
    return made


def session(source: str | bytes, threads: int = 1) -> Any:
    """A session of onnxruntime on the CPU that says nothing.

    Args:
        source: path of a model, or its bytes.
        threads: that it may use; 0 for all.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def ranks_of(model: Model, names: list[str], given: Any) -> dict[str, tuple[int, int]]:
    """Element types and numbers of axes of tensors, learnt from a run in onnxruntime.

    Args:
        model: the model.
        names: of the tensors.
        given: example inputs, in order or by name; None for inputs that are made up.

    Returns:
        By name; empty if the model does not run with what is made up.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(_whole(model))
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        held = session(proto.SerializeToString())
    except Exception:  # of pybind; then nothing is learnt
        return {}
    ports = held.get_inputs()
    if given is None:
        tries = [{port.name: _made_up(port, n) for port in ports} for n in (_MADE_UP, 1, 0)]
    else:
        named = [port.name for port in ports]
        feeds = given if isinstance(given, dict) else dict(zip(named, given, strict=False))
        tries = [{name: np.asarray(array) for name, array in feeds.items()}]
    for feeds in tries:
        try:
            made = held.run(names, feeds)
        except Exception:  # of pybind
            continue
        return {
            name: (onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.ndim)
            for name, array in zip(names, made, strict=True)
            if isinstance(array, np.ndarray)
        }
    return {}


_MADE_UP = 16
"""Elements along axes whose size a model leaves open, and whole numbers, which may be lengths."""


def _made_up(port: Any, number: int) -> Array:
    """An input of one number; its first axis has one element where the model leaves it open."""
    kinds = {"float": "f4", "double": "f8", "int64": "i8", "int32": "i4", "bool": "?"}
    kind = kinds.get(port.type.removeprefix("tensor(").removesuffix(")"), "u1")
    shape = [n if isinstance(n, int) else _MADE_UP if a else 1 for a, n in enumerate(port.shape)]
    return np.full(shape, number, kind)


def _whole(model: Model) -> onnx.ModelProto:
    """The model with the elements that lie in other files."""
    if model.path is None:
        return model.proto
    return onnx.load(model.path)
