"""Weights that torchao quantized, taken as they are.

Classes and what their attributes mean: torchao/quantization/quantize_/workflows of torchao.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from graphopt.errors import UnsupportedDecoderError
from graphopt.kernels.reference import bf16_from_f32
from graphopt.llm.decoder.matrices import BlockMatrix, ByteMatrix, Matrix

Array = np.ndarray[Any, Any]

_KNOWN = ("Int8Tensor", "IntxUnpackedToInt8Tensor", "Int4Tensor")


def is_quantized(tensor: torch.Tensor) -> bool:
    """Whether a weight is a tensor of torchao."""
    return type(tensor).__module__.partition(".")[0] == "torchao"


def quantized_matrix(tensor: Any, name: str) -> Matrix:
    """A weight [out, in] of torchao; scales of 4 bits are rounded to bf16.

    Raises:
        UnsupportedDecoderError: for a class, a type or a block that no kernel takes.
    """
    kind, rows = type(tensor).__name__, tensor.shape[0]
    if kind not in _KNOWN or getattr(tensor, "act_pre_scale", None) is not None:
        raise UnsupportedDecoderError(name, f"weights of torchao's {kind}", _KNOWN)
    block = tuple(tensor.block_size)
    if kind == "Int4Tensor":
        q, zero = _unpacked(tensor.qdata), _f32(tensor.zero_point).T
        return _blocks(name, q, _f32(tensor.scale).T, zero, block)
    q, scale = tensor.qdata.cpu().numpy(), _f32(tensor.scale).reshape(rows // block[0], -1)
    scale = np.ascontiguousarray(np.broadcast_to(scale, (rows, scale.shape[1])))
    point = getattr(tensor, "zero_point", None)
    added = None if point is None or not point.any() else -scale * _f32(point).reshape(scale.shape)
    target = str(getattr(tensor, "target_dtype", "torch.int8"))
    if target == "torch.int4":
        return _blocks(name, q, scale, added, block)
    if target != "torch.int8" or added is not None or block[0] not in (1, rows):
        found = f"weights in {target} by blocks of {block}, or with zero points"
        raise UnsupportedDecoderError(name, found, ("torch.int4", "symmetric torch.int8"))
    return ByteMatrix(q, scale)


def _blocks(
    name: str, q: Array, scale: Array, shift: Array | None, block: tuple[int, ...]
) -> BlockMatrix:
    if block[0] != 1 or block[1] % 32 or block[1] > 1024:
        known = ("(1, 32 n), n up to 32",)
        raise UnsupportedDecoderError(name, f"int4 in blocks of {block}", known)
    shift = None if shift is None or not shift.any() else np.ascontiguousarray(shift)
    return BlockMatrix(q, bf16_from_f32(scale), shift)


def _unpacked(pairs: torch.Tensor) -> Array:
    """Int4 [out, in] of bytes [out, in / 2] that hold the value of even index below."""
    data = pairs.cpu().numpy().view(np.uint8)
    both = np.stack([data << 4, data & 0xF0], axis=-1).view(np.int8) >> 4
    q: Array = both.reshape(len(data), -1)
    return q


def _f32(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().float().cpu().contiguous().numpy()
    return array
