"""Layers of a decoder, from tensors under the names of any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from graphopt.errors import OptionError
from graphopt.llm.architectures.architecture import Architecture, Names
from graphopt.llm.decoder.graph import DecoderShape, LayerWeights
from graphopt.llm.decoder.matrices import Matrix, extents_of, stack_rows, take_rows

Array = np.ndarray[Any, Any]


class Tensors(Protocol):
    """The tensors of a file or a model."""

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of this name."""

    def matrix(self, name: str) -> Matrix:
        """The weight of a linear; `name` is without `.weight`."""

    def array(self, name: str) -> Array:
        """A tensor in f32."""


def read_layers(
    tensors: Tensors,
    architecture: Architecture,
    names: Names,
    places: Sequence[str],
    shape: DecoderShape,
    rotary: HeadOrder,
) -> list[LayerWeights]:
    """All layers.

    Args:
        tensors: of the decoder.
        architecture: its class.
        names: of the parts of a layer in this format.
        places: what stands in front of these names in each layer.
        shape: sizes.
        rotary: how heads of query and key lie in this format.
    """
    extents = architecture.graph_class.extents(shape)
    common = {field.name for field in fields(LayerWeights)}

    def layer(where: str) -> LayerWeights:
        parts: dict[str, Any] = {}
        for part, found in names.items():
            full = [f"{where}.{name}" for name in found]
            if len(extents[part]) == 1:
                parts[part] = tensors.array(f"{full[0]}.weight")
            else:
                parts[part] = stack_rows([tensors.matrix(name) for name in full])
            if part == "qkv" and f"{full[0]}.bias" in tensors:
                parts["qkv_bias"] = np.concatenate([tensors.array(f"{n}.bias") for n in full])
        for part in parts.keys() & {"qkv", "qkv_bias"}:
            parts[part] = rotary.ordered(parts[part], shape)
        more = {part: value for part, value in parts.items() if part not in common}
        return LayerWeights(**{part: parts[part] for part in parts.keys() & common}, more=more)

    return [layer(where) for where in places]


@dataclass(frozen=True)
class HeadOrder:
    """Which values of a head of query or key are rotated together.

    Attributes:
        rotated: how many values are rotated, from the first on; None for all.
        interleaved: whether pairs are neighbours, and not half of `rotated` apart.
    """

    rotated: int | None = None
    interleaved: bool = False

    def ordered(self, qkv: Matrix, shape: DecoderShape) -> Matrix:
        """Rows of query, key and value with heads in the order of `LayerWeights`.

        What is not rotated makes pairs too, behind the others; their frequencies are 0. Rows of
        another number than `shape` says, which nobody can split into heads, stay as they are.
        """
        width, turned = shape.head_dim, shape.heads + shape.kv_heads
        count = (turned + shape.kv_heads) * width
        rotated = width if self.rotated is None else self.rotated
        whole = rotated == width and not self.interleaved
        if whole or extents_of(qkv)[0] != count or width % 2 or rotated % 2:
            return qkv
        numbers = np.arange(width)
        if self.interleaved:
            head = numbers.reshape(-1, 2).T.reshape(-1)
        else:
            halves = [part.reshape(2, -1) for part in (numbers[:rotated], numbers[rotated:])]
            head = np.concatenate(halves, axis=1).reshape(-1)
        heads = np.arange(turned)[:, None] * width + head
        return take_rows(qkv, np.concatenate([heads.reshape(-1), np.arange(turned * width, count)]))


def limited(context: int, asked: int | None) -> int:
    """The context of a decoder: as many positions as its file says, or as are asked for.

    Raises:
        OptionError: if it has not as many.
    """
    if asked is not None and not 0 < asked <= context:
        raise OptionError("context", asked, f"give 1 to {context}, as the model has")
    return asked or context


def pair_frequencies(frequencies: Array, shape: DecoderShape) -> Array:
    """Frequencies of all pairs of a head, f32 [head_dim / 2], from those of what is rotated."""
    rest = shape.head_dim // 2 - len(frequencies)
    return np.concatenate([frequencies, np.zeros(rest, np.float32)]) if rest > 0 else frequencies
