"""Recurrent layers of torch as one op each, for capture.

torch.export writes LSTM, GRU and plain recurrent layers out step by step, which fixes their length.
While `RecurrentLayers` is active, each is a call of `torch.ops.graphopt.recurrent`, which compiles
to a kernel. Importing this module registers the op.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from torch import Tensor
from torch.nn.utils.rnn import pad_packed_sequence
from torch.overrides import TorchFunctionMode

from graphopt.errors import CaptureError

_LAYERS = {getattr(torch, name): name for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")}


@torch.library.custom_op("graphopt::recurrent", mutates_args=(), device_types="cpu")
def recurrent(
    x: Tensor,
    states: list[Tensor],
    weights: list[Tensor],
    lengths: Tensor | None,
    kind: str,
    biases: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> list[Tensor]:
    """All layers of an `nn.LSTM`, `nn.GRU` or `nn.RNN`.

    Args:
        x: [T, B, F], or [B, T, F] with `batch_first`.
        states: the state [layers * directions, B, width] and, of an LSTM, the cell
            [layers * directions, B, hidden].
        weights: as torch has them: for each layer and direction weight_ih, weight_hh, with `biases`
            bias_ih and bias_hh, and weight_hr of an LSTM with a projection.
        lengths: i64[B], steps of each item of a packed sequence; None if all have T. What is behind
            the last step of an item is zero in the result.
        kind: `lstm`, `gru`, `rnn_tanh` or `rnn_relu`.
        biases: whether there are biases.
        layers: number of layers.
        bidirectional: whether each layer has a second direction, back in time.
        batch_first: order of the first two axes of x and result.

    Returns:
        The result [T, B, directions * width] or [B, T, ...], and the last states, as `states`.
    """
    hx = states if kind == "lstm" else states[0]
    rest = (weights, biases, layers, 0.0, False, bidirectional)
    function = getattr(torch, kind)
    if lengths is None:
        y, *last = function(x, hx, *rest, batch_first)
        return [y.contiguous(), *last]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, lengths.cpu(), batch_first, enforce_sorted=False
    )
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None and back is not None, "it was asked not to rely on an order"
    ordered = [state.index_select(1, order) for state in states]
    hx = ordered if kind == "lstm" else ordered[0]
    y, *last = function(packed.data, packed.batch_sizes, hx, *rest)
    result = torch.nn.utils.rnn.PackedSequence(y, packed.batch_sizes, order, back)
    time = x.shape[1 if batch_first else 0]
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(result, batch_first, total_length=time)
    return [padded.contiguous(), *(state.index_select(1, back) for state in last)]


@recurrent.register_fake
def _recurrent_fake(
    x: Tensor, states: list[Tensor], weights: list[Tensor], lengths: Tensor | None, *options: Any
) -> list[Tensor]:
    *_, bidirectional, batch_first = options
    batch = x.shape[0 if batch_first else 1]
    sizes = [state.shape[1] for state in states]
    for size in [*sizes, *([] if lengths is None else [lengths.shape[0]])]:
        torch._check(size == batch)  # type: ignore[no-untyped-call]
    width = states[0].shape[2] * (2 if bidirectional else 1)
    return [x.new_empty(*x.shape[:2], width), *(torch.empty_like(state) for state in states)]


@dataclass(frozen=True)
class _Packed:
    """A packed sequence while it is captured: padded still, with the lengths beside it.

    Attributes:
        padded: [T, B, ...], or [B, T, ...] with `batch_first`.
        lengths: i64[B].
        batch_first: order of the first two axes.
        filled: whether what is behind the last step of an item is zero.
    """

    padded: Tensor
    lengths: Tensor
    batch_first: bool
    filled: bool = False

    @property
    def time(self) -> Any:
        """Steps that there is room for."""
        return self.padded.shape[1 if self.batch_first else 0]

    def unpacked(self, batch_first: bool, value: float, total: Any) -> Tensor:
        """The padded sequence with `total` steps, and a value behind the last of each item."""
        y = self.padded if self.batch_first else self.padded.transpose(0, 1)
        if not self.filled or value:
            going = torch.arange(self.time)[None] < self.lengths[:, None]
            y = torch.where(going.reshape(*going.shape, *[1] * (y.dim() - 2)), y, value)
        if total is not self.time:
            y = torch.nn.functional.pad(
                y, [0, 0] * (y.dim() - 2) + [0, total - self.time], value=value
            )
        return y if batch_first else y.transpose(0, 1)


_QUESTIONS = frozenset(
    [
        torch.Tensor.size,
        torch.Tensor.dim,
        torch.Tensor.dtype.__get__,  # type: ignore[attr-defined]
        torch.Tensor.device.__get__,
        torch.Tensor.is_complex,
    ]
)
"""What recurrent layers ask of the data of a packed sequence, and stand-ins can answer."""

_ROW_BY_ROW = frozenset(
    [
        *(torch.dropout, torch.relu, torch.sigmoid, torch.tanh),
        *(torch.Tensor.relu, torch.Tensor.sigmoid, torch.Tensor.tanh, torch.layer_norm),
        *(F.dropout, F.elu, F.embedding, F.gelu, F.layer_norm, F.leaky_relu, F.linear),
        *(F.relu, F.sigmoid, F.silu, F.softplus, F.tanh),
    ]
)
"""What makes of each row of its first argument, or index in it, a row of its own."""


class RecurrentLayers(TorchFunctionMode):
    """While it is active, recurrent layers are calls of `graphopt::recurrent`.

    The data of a packed sequence has a size that depends on lengths, so it stays padded: tensors
    stand for its data and its batch sizes, which only recurrent layers and `pad_packed_sequence`
    can read.
    """

    def __init__(self) -> None:
        super().__init__()
        self._data: dict[int, _Packed] = {}
        self._sizes: dict[int, _Packed] = {}
        self._stand_ins: list[Tensor] = []  # which must live as long as their ids count

    def __enter__(self) -> Any:
        self._expected = torch.nn.RNNBase.get_expected_hidden_size
        torch.nn.RNNBase.get_expected_hidden_size = _expected_hidden_size  # type: ignore
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        torch.nn.RNNBase.get_expected_hidden_size = self._expected  # type: ignore
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch._VF._pack_padded_sequence:
            return self._pack(*args)
        leaves = map(id, pytree.tree_leaves((args, kwargs)))
        if (self._data or self._sizes) and any(i in self._data or i in self._sizes for i in leaves):
            return self._read(func, args, kwargs or {})
        kind = _LAYERS.get(func)
        if kind is None or kwargs or len(args) != 9:
            return func(*args, **(kwargs or {}))
        x, hx, weights, *options, batch_first = args
        return self._layer(kind, x, None, hx, weights, options, batch_first) or func(*args)

    def refuse_packed(self, leaves: Iterable[Any]) -> None:
        """Raises CaptureError if a stand-in is among the leaves of a result."""
        if any(id(leaf) in self._data or id(leaf) in self._sizes for leaf in leaves):
            remedy = "it is a result; return what pad_packed_sequence makes of it"
            raise CaptureError("a packed sequence", None, remedy)

    def _layer(
        self,
        kind: str,
        x: Tensor,
        lengths: Tensor | None,
        hx: Any,
        weights: list[Tensor],
        options: list[Any],
        batch_first: bool,
    ) -> tuple[Tensor, ...] | None:
        """What the layers make; None if torch's own code has to run, because it drops numbers."""
        biases, layers, dropout, training, bidirectional = options
        if training and dropout:
            return None
        states = list(hx) if kind == "lstm" else [hx]
        rest = (kind, biases, layers, bidirectional, batch_first)
        return tuple(torch.ops.graphopt.recurrent(x, states, list(weights), lengths, *rest))

    def _pack(self, padded: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        packed = _Packed(padded, lengths, batch_first)
        sizes = torch.zeros(packed.time, dtype=torch.int64)
        self._sizes[id(sizes)] = packed
        return self._stand_in(packed, padded.flatten(0, 1)), self._kept(sizes)

    def _kept(self, stand_in: Tensor) -> Tensor:
        self._stand_ins.append(stand_in)
        return stand_in

    def _stand_in(self, packed: _Packed, data: Tensor) -> Tensor:
        self._data[id(data)] = packed
        return self._kept(data)

    def _read(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function makes of the stand-ins among its arguments."""
        packed, sizes = self._data.get(id(args[0])), self._sizes.get(id(args[0]))
        if packed is not None and func in _LAYERS and id(args[1]) in self._sizes:
            _, _, hx, weights, *options = args
            given = (packed.padded, packed.lengths, hx, weights, options, packed.batch_first)
            if (made := self._layer(_LAYERS[func], *given)) is not None:
                y, *states = made
                whole = replace(packed, padded=y, filled=True)
                return (self._stand_in(whole, y.flatten(0, 1)), *states)
        if packed is not None and func is torch._VF._pad_packed_sequence:
            _, _, batch_first, value, total = args
            if not _has_total_length():
                longest = packed.lengths.max().item()
                torch._check(longest == packed.time)  # type: ignore[no-untyped-call]
                total = packed.time
            return packed.unpacked(batch_first, value, total), packed.lengths
        if packed is not None and func in _ROW_BY_ROW:
            y = func(*args, **kwargs)
            rows = replace(packed, padded=y.unflatten(0, packed.padded.shape[:2]), filled=False)
            return self._stand_in(rows, y)
        if sizes is not None and func is torch.Tensor.__getitem__ and args[1] == 0:
            return sizes.padded.shape[0 if sizes.batch_first else 1]
        if func in _QUESTIONS:
            return func(*args)
        raise CaptureError(
            "a packed sequence",
            None,
            f"{getattr(func, '__name__', func)} reads its data; unpack it with "
            "pad_packed_sequence before, and pack the result again",
        )


def _has_total_length() -> bool:
    """Whether the `pad_packed_sequence` that is running was given the length of its result."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not pad_packed_sequence.__code__:
        frame = frame.f_back
    return frame is not None and frame.f_locals["total_length"] is not None


def _expected_hidden_size(layer: Any, x: Tensor, sizes: Tensor | None) -> tuple[Any, ...]:
    """As torch's own, which makes an int of the size of a packed batch and so fixes it."""
    batch = x.size(0 if layer.batch_first else 1) if sizes is None else sizes[0]
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    return (count, batch, layer.proj_size or layer.hidden_size)
