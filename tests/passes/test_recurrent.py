"""Recurrent layers, cells and packed sequences: captured, and run in numpy, against torch."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from captured import arrays, captured  # noqa: E402
from graphs import assert_close  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils.rnn import (  # noqa: E402
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)

from graphopt.errors import CaptureError  # noqa: E402
from graphopt.ir import DType  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.passes.lower_aten import LowerAten  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402

_random = torch.Generator().manual_seed(0)
torch.manual_seed(0)


def randn(*shape: int) -> Any:
    return torch.randn(*shape, generator=_random)


LSTM, GRU = nn.LSTM(8, 6, 2, bidirectional=True), nn.GRU(8, 6, batch_first=True)
PROJECTED = nn.LSTM(8, 18, 2, bias=False, dropout=0.5, proj_size=3)
PLAIN = nn.RNN(8, 17, 2, nonlinearity="relu", batch_first=True, bidirectional=True)
LSTM_CELL, GRU_CELL = nn.LSTMCell(8, 6), nn.GRUCell(8, 6, bias=False)
TANH_CELL, RELU_CELL = nn.RNNCell(8, 6), nn.RNNCell(8, 6, nonlinearity="relu")


def packed(x: Any, lengths: Any, layer: Any, total: bool = True, value: float = 0.0) -> Any:
    first = layer.batch_first
    y, last = layer(pack_padded_sequence(x, lengths, first))
    time = x.shape[1 if first else 0] + 2 if total else None
    return (*pad_packed_sequence(y, first, value, time), last)


LENGTHS = torch.tensor([5, 4, 1])
CASES: dict[str, Any] = {
    "lstm": (lambda x, layer: layer(x), [(5, 3, 8), (9, 2, 8)], LSTM),
    "lstm with states": (
        lambda x, h, c, layer: layer(x, (h, c)),
        [(5, 3, 8), (4, 3, 6), (4, 3, 6)],
        LSTM,
    ),
    "lstm without a batch": (lambda x, layer: layer(x), [(5, 8), (2, 8)], LSTM),
    "lstm, projected": (lambda x, layer: layer(x), [(5, 3, 8), (2, 2, 8)], PROJECTED),
    "gru": (lambda x, h, layer: layer(x, h), [(3, 5, 8), (1, 3, 6)], GRU),
    "gru without bias": (lambda x, layer: layer(x), [(5, 3, 8)], nn.GRU(8, 6, bias=False)),
    "plain": (lambda x, layer: layer(x), [(3, 5, 8), (2, 1, 8)], PLAIN),
    "lstm cell": (lambda x, h, c, cell: cell(x, (h, c)), [(3, 8), (3, 6), (3, 6)], LSTM_CELL),
    "gru cell": (lambda x, h, cell: cell(x, h), [(3, 8), (3, 6)], GRU_CELL),
    "tanh cell": (lambda x, h, cell: cell(x, h), [(3, 8), (3, 6)], TANH_CELL),
    "relu cell without a batch": (lambda x, cell: cell(x), [(8,)], RELU_CELL),
}


def lower(function: Any, tensors: Any, layer: Any) -> Any:
    graph = captured(function, *tensors, layer=layer).graph
    LowerAten().run(graph)
    assert all(n.is_lowered for n in graph.nodes), [n.reasons for n in graph.nodes]
    return graph


def compare(graph: Any, function: Any, tensors: Any, layer: Any) -> None:
    with torch.no_grad():
        wanted = arrays(function(*tensors, layer.eval()))
    got = run_graph(graph, arrays(tensors))
    dtypes = [DType.of(w) for w in wanted]
    assert_close(got, wanted, FP32_RELATIVE, dtypes)


@pytest.mark.parametrize("name", CASES)
def test_against_torch(name: str) -> None:
    """At the sizes of the example, and of layers of one input at others."""
    function, shapes, layer = CASES[name]
    count = function.__code__.co_argcount - 1
    graph = lower(function, [randn(*s) for s in shapes[:count]], layer)
    for first in range(0, len(shapes), count):
        compare(graph, function, [randn(*s) for s in shapes[first : first + count]], layer)


@pytest.mark.parametrize("layer", [LSTM, GRU, PLAIN], ids=lambda layer: type(layer).__name__)
def test_packed_sequences(layer: Any) -> None:
    """With a total length, another value for padding, and other sizes than the example's."""

    def function(x: Any, lengths: Any, layer: Any) -> Any:
        return packed(x, lengths, layer, value=0.5)

    order = (0, 1, 2) if layer.batch_first else (1, 0, 2)
    x = randn(3, 5, 8).permute(order).contiguous()
    graph = lower(function, (x, LENGTHS), layer)
    compare(graph, function, (x, LENGTHS), layer)
    more = randn(2, 7, 8).permute(order).contiguous()
    compare(graph, function, (more, torch.tensor([7, 6])), layer)


def test_the_longest_length_is_checked_where_it_is_the_size_of_the_result() -> None:
    def function(x: Any, lengths: Any, layer: Any) -> Any:
        return packed(x, lengths, layer, total=False)

    x = randn(3, 5, 8)
    graph = lower(function, (x, LENGTHS), GRU)
    (check,) = [n.op for n in graph.nodes if n.op.is_check]
    assert check.size == graph.inputs[0].shape[1]
    compare(graph, function, (x, LENGTHS), GRU)


def test_rows_of_a_packed_sequence_may_be_changed_one_by_one() -> None:
    def function(x: Any, lengths: Any, layer: Any) -> Any:
        y = pack_padded_sequence(x, lengths, True)
        for _ in range(2):
            rows = torch.tanh(F.linear(y.data, layer.weight_ih_l0[:8]))
            y = PackedSequence(rows, y.batch_sizes)
        return pad_packed_sequence(layer(y)[0], True, total_length=x.shape[1])

    x = randn(3, 5, 8)
    compare(lower(function, (x, LENGTHS), GRU), function, (x, LENGTHS), GRU)


@pytest.mark.parametrize(
    "read",
    [
        lambda y: y.data.mean(0),
        lambda y: y.data[0],
        lambda y: torch.cat([y.data, y.data]),
        lambda y: y.batch_sizes + 1,
        lambda y: LSTM(PackedSequence(randn(10, 8), y.batch_sizes))[1],
        lambda y: (y.data, y.batch_sizes),
        lambda y: y,
    ],
    ids=["mean", "row", "cat", "sizes", "other data", "parts of a result", "a result"],
)
def test_the_data_of_a_packed_sequence_cannot_be_read(read: Any) -> None:
    def function(x: Any, lengths: Any) -> Any:
        return read(pack_padded_sequence(x, lengths, True))

    with pytest.raises(CaptureError, match=r"(reads its data|is a result); .* pad_packed"):
        captured(function, randn(3, 5, 8), LENGTHS)


def test_weights_computed_at_run_time_stay_in_torch() -> None:
    def function(x: Any, layer: Any) -> Any:
        weights = [w * x.mean() for w in layer._flat_weights]
        zeros = x.new_zeros(1, x.shape[0], 6)
        return torch.gru(x, zeros, weights, True, 1, 0.0, False, False, True)

    graph = captured(function, randn(3, 5, 8), layer=GRU).graph
    LowerAten().run(graph)
    reason = "a recurrent layer with weights computed at run time"
    assert [r for n in graph.nodes if not n.is_lowered for r in n.reasons] == [
        f"lower_aten: left in torch: {reason}"
    ]


@pytest.mark.parametrize("layer", [LSTM, PROJECTED, PLAIN], ids=lambda layer: type(layer).__name__)
def test_the_op_that_torch_runs(layer: Any) -> None:
    """In float64, with and without lengths."""
    layer = layer.double().eval()
    order = (0, 1, 2) if layer.batch_first else (1, 0, 2)
    x, lengths = randn(3, 5, 8).double().permute(order), torch.tensor([2, 5, 3])
    directions = 2 if layer.bidirectional else 1
    count, kind = layer.num_layers * directions, layer.mode.lower()
    widths = [layer.proj_size or layer.hidden_size] + [layer.hidden_size] * (kind == "lstm")
    states = [randn(count, 3, width).double() for width in widths]
    options = (kind, layer.bias, layer.num_layers, layer.bidirectional, layer.batch_first)
    hx = tuple(states) if kind == "lstm" else states[0]
    with torch.no_grad():
        for known in (None, lengths):
            rest = (list(layer._flat_weights), known, *options)
            got = torch.ops.graphopt.recurrent(x, states, *rest)
            if known is None:
                y, last = layer(x, hx)
            else:
                given = pack_padded_sequence(x, lengths, layer.batch_first, enforce_sorted=False)
                y, last = layer(given, hx)
                y, _ = pad_packed_sequence(y, layer.batch_first)
            wanted = [y, *(last if kind == "lstm" else [last])]
            assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    layer.float()
