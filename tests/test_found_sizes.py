"""Sizes that data decide, found by compiled code: what masks pick, and numbers that are read."""

from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.errors import InputConditionError, InputValueError
from graphopt.ir.interpret import run_graph
from graphopt.ir.symbolic import found_symbol, most, symbol
from graphopt.testing import FP32_RELATIVE

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from tests.support.captured import Function, arrays, captured, lowered  # noqa: E402
from tests.support.graphs import assert_close  # noqa: E402

Tensors = tuple[torch.Tensor, ...]


class Packed(nn.Module):
    """Tokens without padding, experts, and scores above a threshold: all of sizes of data."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.inner, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(24, 8)
        self.router, self.experts = nn.Linear(8, 3), nn.Parameter(torch.randn(3, 8, 8) / 3)
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor, held: torch.Tensor, first: torch.Tensor) -> Any:
        tokens = x[held]
        mixed = tokens + self.out(F.gelu(self.inner(self.norm(tokens))))
        unpacked = torch.zeros_like(x)
        unpacked[held] = mixed
        by_expert = torch.zeros_like(mixed)
        chosen = self.router(mixed).argmax(-1)
        for number in range(3):
            (rows,) = torch.where(chosen == number)
            by_expert.index_add_(0, rows, F.linear(mixed[rows], self.experts[number]))
        counts = F.one_hot(chosen, 3).sum(0).tolist()
        parts = mixed[chosen.argsort(stable=True)].split(counts)
        joined = torch.cat([part * (i + 1) for i, part in enumerate(parts)])
        attended = (mixed @ mixed.T / 8**0.5).softmax(-1) @ mixed
        positive = mixed[mixed[:, 0] > 0]
        begun = int(first.max())
        rest = x[:, begun:].sum(1), x[:, :begun] * 2
        return unpacked, by_expert, joined, attended, positive.sum(0), mixed.T @ mixed, *rest


def example(batch: int, time: int, share: float, first: int = 1) -> Tensors:
    generator = torch.Generator().manual_seed(batch * 100 + time)
    x = torch.randn(batch, time, 8, generator=generator)
    held = torch.rand(batch, time, generator=generator) < share
    return x, held, torch.tensor([0, first])


CALLS = [
    example(2, 7, 0.5, 3),
    example(3, 11, 0.0, 0),
    example(1, 9, 2.0, 9),
    example(4, 1, 0.5),
    example(2, 300, 0.4, 999),
]


@pytest.fixture(scope="module")
def fast() -> Any:
    return graphopt.optimize(Packed(), precision="fp32", example_inputs=CALLS[0], strict=True)


@pytest.mark.parametrize("given", CALLS, ids=lambda given: str(tuple(given[0].shape)))
def test_results_have_the_sizes_that_data_decide(fast: Any, given: Tensors) -> None:
    model = Packed()
    wanted = model.double()(given[0].double(), *given[1:])
    for got in (fast(*given), fast.interpret(*given)):
        assert [t.shape for t in got] == [t.shape for t in wanted]
        assert_close(arrays(got), [a.astype(np.float32) for a in arrays(wanted)], FP32_RELATIVE)


def test_bits_do_not_depend_on_threads(fast: Any) -> None:
    options = {"precision": "fp32", "example_inputs": CALLS[0], "num_threads": 1}
    one = graphopt.optimize(Packed(), **options)
    for mine, theirs in zip(one(*CALLS[4]), fast(*CALLS[4]), strict=True):
        assert torch.equal(mine, theirs)


def test_a_number_below_zero_is_refused(fast: Any) -> None:
    with pytest.raises(InputValueError, match="negative"):
        fast(*example(2, 7, 0.5, 0)[:2], torch.tensor([-2, -1]))


def interpreted(function: Any, *calls: Tensors) -> Any:
    """Asserts that a function compiles whole and gives the same for all calls; its graph."""
    graph = lowered(captured(function, *calls[0]).graph)
    assert not [n.reasons for n in graph.nodes if not n.is_lowered]
    for given in calls:
        got, wanted = run_graph(graph, arrays(given)), arrays(function(*given))
        assert [a.shape for a in got] == [a.shape for a in wanted]
        assert_close(got, wanted, FP32_RELATIVE)
    return graph


def boxes(count: int, low: float = 0.0) -> Tensors:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, 4, generator=generator), low + torch.rand(count, generator=generator)


FORMS: dict[str, tuple[Any, list[Tensors]]] = {
    "boxes above a score": (
        lambda boxes, scores: (boxes[(k := scores > 0.5)], scores[k].sort(descending=True)),
        [boxes(9), boxes(5, 1.0), boxes(7, -1.0)],
    ),
    "one mask after the other": (
        lambda boxes, scores: (lambda b: b[b[:, 0] > b[:, 1]])(boxes[scores > 0.3]),
        [boxes(9), boxes(12), boxes(7, -1.0)],
    ),
    "what is left": (
        lambda boxes, scores: torch.cat([boxes[scores > 0.5], boxes[~(scores > 0.5)]]),
        [boxes(9), boxes(5, 1.0), boxes(7, -1.0)],
    ),
    "places": (
        lambda boxes, scores: torch.stack(torch.where(boxes > scores[:, None]), -1) * 2,
        [boxes(9), boxes(6, -1.0), boxes(3, 1.0)],
    ),
    "the longest": (
        lambda x, lengths: x[:, : int(lengths.max())] + 1,
        [(torch.rand(2, 6), torch.tensor([3, 4])), (torch.rand(3, 2), torch.tensor([0, 9]))],
    ),
    "a mask that is as long as the longest": (
        lambda x, lengths: x[:, : (n := int(lengths.max()))] * (torch.arange(n) < lengths[:, None]),
        [(torch.rand(2, 6), torch.tensor([3, 4])), (torch.rand(2, 5), torch.tensor([0, 0]))],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    function, calls = FORMS[name]
    interpreted(function, *calls)


def test_two_masks_of_which_one_has_to_have_as_many_elements_as_the_other() -> None:
    def function(x: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return x[one] + x[other]

    x, one = torch.rand(4, 3), torch.tensor([True, False, True, False])
    graph = interpreted(function, (x, one, ~one), (x, one, one.roll(1)))
    with pytest.raises(InputConditionError, match="do not satisfy"):
        run_graph(graph, arrays((x, one, one | True)))


def test_a_size_that_nobody_reads_is_not_looked_for() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        torch.arange(int(x.sum()))
        return x * 2

    graph = interpreted(function, (torch.tensor([1, 2]),))
    assert [n.op.name for n in graph.nodes] == ["go.pointwise"] and not graph.computed_dims()


def test_a_number_without_a_bound_stays_in_torch() -> None:
    graph = captured(lambda n: torch.arange(int(n.max())) * 2, torch.tensor([3])).graph
    left = [n for n in lowered(graph).nodes if not n.is_lowered]
    assert [n.op.name for n in left] == ["aten.item"] and "has no bound" in left[0].reasons[0]


def test_a_condition_on_found_sizes_ends_the_run() -> None:
    model = Function(lambda x, held, n: x[held].squeeze() * x[:, : int(n)].sum())
    given = torch.rand(3, 5), torch.tensor([True, True, False]), torch.tensor(2)
    fast = graphopt.optimize(model, precision="fp32", example_inputs=given, strict=True)
    assert torch.allclose(fast(*given), model(*given))
    with pytest.raises(InputConditionError, match=r"do not satisfy Ne\(N, 1\)"):
        fast(given[0], torch.tensor([True, False, False]), given[2])
    assert torch.allclose(fast(*given), model(*given))


def test_memory_is_for_the_largest_that_sizes_can_be() -> None:
    n, m, t = found_symbol("N"), found_symbol("M"), symbol("T")
    bounds = {n: t, m: 2 * t}
    assert most(t - n, bounds) == t and most(t + 3 * n, bounds) == 4 * t
    assert most(n * m, bounds) == 2 * t**2 and most((t - n) * n, bounds) == t**2
    assert most((n + 1) // 2, bounds) == (t + 1) // 2 and most(t % 5, bounds) == t % 5
