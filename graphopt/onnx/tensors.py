"""Tensors of ONNX files as numpy arrays, those in files beside the model mapped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from graphopt.errors import OnnxModelError
from graphopt.ir import DType

Array = np.ndarray[Any, Any]

#: Element types of ONNX that graphs have.
DTYPES: dict[int, DType] = {
    TensorProto.FLOAT: DType.F32,
    TensorProto.BFLOAT16: DType.BF16,
    TensorProto.DOUBLE: DType.F64,
    TensorProto.BOOL: DType.BOOL,
    TensorProto.UINT8: DType.U8,
    TensorProto.INT8: DType.I8,
    TensorProto.INT16: DType.I16,
    TensorProto.INT32: DType.I32,
    TensorProto.INT64: DType.I64,
    TensorProto.FLOAT16: DType.F16,
}


def type_name(element: int) -> str:
    """What ONNX calls an element type, in lower case; a number that it does not have as it is."""
    try:
        return str(TensorProto.DataType.Name(element)).lower()
    except ValueError:
        return f"element type {element}"


def array_of(tensor: onnx.TensorProto, folder: Path | None, model: object) -> Array:
    """The elements of a tensor, bf16 as its 16 bits.

    Args:
        tensor: of the model; one of 2 or 4 bits comes with an element in each byte.
        folder: where files of external data lie; None for a model that is in no file.
        model: its name, for errors.

    Raises:
        OnnxModelError: if the elements are missing, too few, or in a file that is missing or lies
            outside of the folder.
    """
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, folder, model)
    if any(extent < 0 for extent in tensor.dims):
        raise OnnxModelError(model, f"tensor {tensor.name!r} has the shape {list(tensor.dims)}")
    try:
        array = numpy_helper.to_array(tensor)
    except Exception as error:
        why = f"tensor {tensor.name!r} of {type_name(tensor.data_type)} cannot be read: {error}"
        raise OnnxModelError(model, why) from error
    return _stored(array)


def _stored(array: Array) -> Array:
    """Elements as graphs hold them: 16 bits of bf16, a byte for less than that."""
    name = array.dtype.name
    if name == "bfloat16":
        return array.view(np.uint16)
    if name in ("int4", "int2"):
        return array.astype(np.int8)
    if name in ("uint4", "uint2"):
        return array.astype(np.uint8)
    return array


def _external(tensor: onnx.TensorProto, folder: Path | None, model: object) -> Array:
    """Elements that a file holds, mapped."""
    named = {entry.key: entry.value for entry in tensor.external_data}
    location, what = named.get("location", ""), f"tensor {tensor.name!r}"
    if folder is None:
        raise OnnxModelError(
            model, f"{what} is in the file {location!r}; give the path of the model instead"
        )
    try:
        path = (folder / location).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise OnnxModelError(model, f"{what} is in {location!r}, no path: {error}") from error
    if not location or not path.is_relative_to(folder.resolve()):
        raise OnnxModelError(model, f"{what} is in {location!r}, outside of the model's folder")
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None:
        why = f"{what} in {location!r} is of {type_name(tensor.data_type)}"
        raise OnnxModelError(model, why)
    try:
        offset = int(named.get("offset") or 0)
        shape = tuple(tensor.dims)
        size = math.prod(shape) * dtype.itemsize
        length = int(named.get("length") or size)
    except ValueError:
        raise OnnxModelError(model, f"{what} has an offset or length that is no number") from None
    if offset < 0 or length != size or any(extent < 0 for extent in shape):
        why = f"{what} has {length} bytes at {offset} of {location!r}, its shape asks for {size}"
        raise OnnxModelError(model, why)
    try:
        if path.exists() and not path.is_file():
            raise OnnxModelError(model, f"{what} is in {location!r}, which is no plain file")
        if path.stat().st_size < offset + size:
            raise OnnxModelError(model, f"{what} goes beyond the end of {location!r}")
        if size == 0:
            return np.zeros(shape, dtype.numpy)
        return np.memmap(path, dtype.numpy, "r", offset, shape)
    except OSError as error:
        why = f"{what} is in {location!r}, which cannot be read: {error.strerror or error}"
        raise OnnxModelError(model, why) from error
