"""Recurrent layers of torch as one op each, for capture.

torch.export writes LSTM, GRU and plain recurrent layers out step by step, which fixes their length.
While `RecurrentLayers` is active, each is a call of `torch.ops.graphopt.recurrent`, which compiles
to a kernel. Importing this module registers the op.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
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
    ordered = [state.index_select(1, order) for state in states]
    hx = ordered if kind == "lstm" else ordered[0]
    y, *last = function(packed.data, packed.batch_sizes, hx, *rest)
    result = torch.nn.utils.rnn.PackedSequence(y, packed.batch_sizes, order, back)
    time = x.shape[1 if batch_first else 0]
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(result, batch_first, total_length=time)
    return [padded.contiguous(), *(state.index_select(1, back) for state in last)]


@recurrent.register_fake
def _recurrent_fake(
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


def _asks_type(func: Any) -> bool:
    return func in (torch.Tensor.dtype.__get__, torch.Tensor.device.__get__)


class RecurrentLayers(TorchFunctionMode):
    """While it is active, recurrent layers are calls of `graphopt::recurrent`.

    The data of a packed sequence has a size that depends on lengths, so it stays padded: tensors
    stand for its data and its batch sizes, which only recurrent layers and `pad_packed_sequence`
    can read.
    """

    def __init__(self) -> None:
        super().__init__()
        self._packed: dict[int, _Packed] = {}
        self._stand_ins: list[Tensor] = []  # which must live as long as their ids count

    def __enter__(self) -> Any:
        self._expected = torch.nn.RNNBase.get_expected_hidden_size
        torch.nn.RNNBase.get_expected_hidden_size = _expected_hidden_size  # type: ignore
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.nn.RNNBase.get_expected_hidden_size = self._expected  # type: ignore
        super().__exit__(*error)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch._VF._pack_padded_sequence:
            return self._pack(*args)
        given = next((self._packed[id(a)] for a in args if id(a) in self._packed), None)
        if given is not None:
            return self._read(given, func, args)
        kind = _LAYERS.get(func)
        if kind is None or kwargs or len(args) != 9:
            return func(*args, **(kwargs or {}))
        x, hx, weights, *options, batch_first = args
        return self._layer(kind, x, None, hx, weights, options, batch_first) or func(*args)

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
        return self._stand_in(_Packed(padded, lengths, batch_first))

    def _stand_in(self, packed: _Packed, sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        data = packed.padded.flatten(0, 1)
        sizes = torch.zeros(packed.time, dtype=torch.int64) if sizes is None else sizes
        self._stand_ins += [data, sizes]
        self._packed |= {id(data): packed, id(sizes): packed}
        return data, sizes

    def _read(self, packed: _Packed, func: Any, args: tuple[Any, ...]) -> Any:
        kind = _LAYERS.get(func)
        if kind is not None:
            _, sizes, hx, weights, *options = args
            given = (packed.padded, packed.lengths, hx, weights, options, packed.batch_first)
            made = self._layer(kind, *given)
            if made is not None:
                y, *states = made
                whole = replace(packed, padded=y, filled=True)
                return (self._stand_in(whole, sizes)[0], *states)
        if func is torch._VF._pad_packed_sequence:
            _, _, batch_first, value, total = args
            if sys._getframe(2).f_locals.get("total_length") is None:
                longest = packed.lengths.max().item()
                torch._check(longest == packed.time)  # type: ignore[no-untyped-call]
                total = packed.time
            return packed.unpacked(batch_first, value, total), packed.lengths
        if func is torch.Tensor.__getitem__ and args[1] == 0:
            return packed.padded.shape[0 if packed.batch_first else 1]
        if func in (torch.Tensor.size, torch.Tensor.dim) or _asks_type(func):
            return func(*args)
        raise CaptureError(
            "a packed sequence",
            None,
            f"{getattr(func, '__name__', func)} reads its data; unpack it with "
            "pad_packed_sequence before, and pack the result again",
        )


def _expected_hidden_size(layer: Any, x: Tensor, sizes: Tensor | None) -> tuple[Any, ...]:
    """As torch's own, which makes an int of the size of a packed batch and so fixes it."""
    batch = x.size(0 if layer.batch_first else 1) if sizes is None else sizes[0]
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    return (count, batch, layer.proj_size or layer.hidden_size)
