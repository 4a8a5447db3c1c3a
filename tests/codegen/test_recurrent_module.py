"""Recurrent layers from torch to C, in every precision, on any level, over 300 steps."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from captured import arrays, captured, lowered  # noqa: E402
from graphs import build, emit, native_levels, ops  # noqa: E402
from torch import nn  # noqa: E402

from graphopt.compiler.pipeline import lowering_passes, precision_passes  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.testing import BF16_RELATIVE, FP32_SAME, relative_error, sqnr  # noqa: E402

STEPS = 300
#: Largest error over largest magnitude after any number of steps: what a step errs fades in those
#: behind it, because gates forget. bf16 has two products, of inputs and of states, in two layers.
BOUNDS = {"fp32": FP32_SAME, "bf16": 2 * BF16_RELATIVE}
#: dB of int8, likewise: 41 of the rounding of one factor in 8 bits, of states that are well within
#: their range, and as it was measured at least 38 behind two layers.
INT8_STEPS_SQNR = 36.0
#: A value that numpy, with other last bits, rounds to the next of 255 steps.
ONE_STEP = 1e-3


class Layers(nn.Module):
    """One of each kind: blocks of units that are whole and not, directions, orders of axes."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(24, 40, 2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(24, 33, bidirectional=True)
        self.projected = nn.LSTM(24, 48, proj_size=19)
        self.plain = nn.RNN(24, 32, nonlinearity="relu", bias=False, batch_first=True)
        self.tanh = nn.RNN(24, 16, batch_first=True)

    def forward(self, x: Any, h: Any, lengths: Any) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        y, last = self.lstm(packed)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        turned = x.transpose(0, 1)
        rest = self.gru(turned, h), self.projected(turned), self.plain(x), self.tanh(x)
        return y, last, rest


def _inputs(batch: int, steps: int) -> tuple[Any, ...]:
    drawn = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, steps, 24, generator=drawn)
    lengths = torch.randint(1, steps + 1, (batch,), generator=drawn).sort(descending=True)[0]
    return x, torch.randn(2, batch, 33, generator=drawn), lengths


CALLS = {
    "a few": _inputs(3, 11),
    "long": _inputs(2, STEPS),
    "one step": _inputs(4, 1),
    "many": _inputs(101, 4),
}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return Layers().eval()


@pytest.fixture(scope="module")
def wanted(model: Any) -> dict[str, list[np.ndarray]]:
    """What torch makes of each call in float64."""
    results = {}
    with torch.no_grad():
        for name, (x, h, lengths) in CALLS.items():
            results[name] = arrays(model.double()(x.double(), h.double(), lengths))
    model.float()
    return results


@pytest.mark.parametrize("precision", ["fp32", "int8", "bf16"])
def test_against_float64(tmp_path: Any, model: Any, wanted: Any, precision: str) -> None:
    """And the same bits on the lowest and the best level, by any number of threads."""
    graph = captured(lambda *given: given[-1](*given[:-1]), *CALLS["a few"], layers=model).graph
    graph = lowered(graph, [*lowering_passes(), *precision_passes(precision)])
    assert ops(graph).count("recurrent") == 6, ops(graph)
    plan = run_graph(graph, arrays(CALLS["a few"]))
    emitted = emit(graph)
    seen: dict[str, list[np.ndarray]] = {}
    lowest, *_, best = native_levels()
    for level in (best, lowest):
        library = build(emitted, level, tmp_path)
        for threads in (1, 2, 7):
            context = library.context(threads)
            for name, given in CALLS.items():
                if name == "long" and (level == lowest or threads == 7):
                    continue
                got = list(context.run(arrays(given)))
                for one, other in zip(got, seen.setdefault(name, got), strict=True):
                    assert np.array_equal(one, other), (name, level, threads)
    for name, results in seen.items():
        for got, exact in zip(results, wanted[name], strict=True):
            if precision == "int8":
                assert sqnr(got, exact) >= INT8_STEPS_SQNR, name
            else:
                assert relative_error(got, exact) <= BOUNDS[precision], name
    for got, planned in zip(seen["a few"], plan, strict=True):
        assert relative_error(got, planned) <= (ONE_STEP if precision == "int8" else FP32_SAME)


def test_an_item_does_not_depend_on_its_neighbours(tmp_path: Any, model: Any) -> None:
    """Nor on the steps that are padding: bit for bit, in int8."""
    graph = captured(lambda *given: given[-1](*given[:-1]), *CALLS["a few"], layers=model).graph
    graph = lowered(graph, [*lowering_passes(), *precision_passes("int8")])
    context = build(emit(graph), native_levels()[-1], tmp_path).context(2)
    x, h, lengths = CALLS["many"]
    y, last, *_ = context.run(arrays((x, h, lengths)))
    steps = int(lengths[-1])
    alone = arrays((x[-1:, :steps], h[:, -1:], lengths[-1:]))
    own, own_last, *_ = context.run(alone)
    assert np.array_equal(own[0], y[-1, :steps])
    assert np.array_equal(own_last[:, 0], last[:, -1])
    assert not y[-1, steps:].any()
