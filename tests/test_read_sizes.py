"""Sizes and numbers that a model reads from tensors: those of inputs, and those torch finds."""

from typing import Any

import pytest

import graphopt
from graphopt.errors import CaptureError, InputValueError

torch = pytest.importorskip("torch")

import sympy  # noqa: E402
from captured import Function, arrays, captured, lowered  # noqa: E402
from graphs import assert_close  # noqa: E402

from graphopt.frontend.data_sizes import sizes_of_inputs  # noqa: E402
from graphopt.frontend.whole_numbers import symbolic_int  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402


class Reads(torch.nn.Module):
    """A mask as long as the input, rows where something holds, and as many steps as it reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(8, 8)
        self.eval()

    def forward(self, x: Any, lengths: Any) -> Any:
        y = self.linear(x)
        shown = y * (torch.arange(int(lengths.max())) < lengths[:, None])[..., None]
        positive = y[..., 0] > 0
        picked = self.linear(y[positive]).relu()
        steps = torch.arange(int(lengths[-1])).float() * 2 + y.mean()
        return (
            shown,
            picked,
            positive.nonzero() + 1,
            steps,
            y * int(lengths.sum()),
            y[:, : steps.shape[0]],
        )


def example(time: int, *lengths: int) -> tuple[Any, Any]:
    torch.manual_seed(time)
    return torch.randn(len(lengths), time, 8), torch.tensor(lengths)


@pytest.fixture(scope="module")
def fast() -> Any:
    return graphopt.optimize(Reads(), precision="fp32", example_inputs=example(9, 9, 4))


@pytest.mark.parametrize("inputs", [(9, 9, 4), (11, 5, 2, 11), (3, 3), (6, 6, 1)], ids=str)
def test_what_torch_finds_is_a_size_of_the_parts_behind_it(fast: Any, inputs: Any) -> None:
    model = Reads()
    with torch.no_grad():
        for given in (example(*inputs), (example(*inputs)[0] * 3, example(*inputs)[1])):
            got, wanted = fast(*given), model(*given)
            assert [t.shape for t in got] == [t.shape for t in wanted]
            assert_close(arrays(got), arrays(wanted), FP32_RELATIVE)


def test_only_what_finds_a_size_stays_in_torch(fast: Any) -> None:
    left = {row.op for row in fast.report().in_torch}
    assert left == {"aten.item"}


def test_a_size_that_must_be_one_of_the_inputs_is_checked(fast: Any) -> None:
    with pytest.raises(InputValueError, match="differs from its shape"):
        fast(*example(9, 8, 4))


def test_a_size_below_zero_is_refused(fast: Any) -> None:
    with pytest.raises(InputValueError, match="negative"):
        fast(*example(9, 9, -1))


def test_a_mask_that_is_cut_like_its_operand_is_as_long_as_the_input() -> None:
    def halved(x: Any, lengths: Any) -> Any:
        mask = torch.arange(lengths.max().item()) < lengths[:, None]
        return x[:, :-2:2] * mask[:, :-2:2, None]

    graph = lowered(captured(halved, *example(12, 12, 7)).graph)
    assert all(n.is_lowered for n in graph.nodes)
    for given in (example(12, 12, 7), example(15, 4, 15), example(21, 21)):
        assert_close(run_graph(graph, arrays(given)), arrays(halved(*given)), FP32_RELATIVE)


def test_which_numbers_are_sizes_of_inputs() -> None:
    u, v, s, t = sympy.symbols("u v s t", integer=True)
    hints = {s: 12, t: 12}
    halves = sympy.Eq(sympy.floor((u - 1) / 2), sympy.floor((t + 1) / 2) - 1)
    assert sizes_of_inputs([u >= 0, halves], hints) == {u: t}
    assert sizes_of_inputs([sympy.Eq(u, 2 * s)], hints) == {u: 2 * s}
    assert sizes_of_inputs([sympy.Eq(u + v, s)], hints) == {}


def test_an_int_that_keeps_symbols_is_an_int_otherwise() -> None:
    names: dict[str, Any] = {}
    with symbolic_int([names]):
        own = names["int"]
        assert own("12", 16) == 18 and own() == 0 and own(2.9) == 2 and type(own(True)) is int
        assert isinstance(3, own) and issubclass(bool, own) and not isinstance("3", own)
        assert own(torch.tensor(4)) == 4
    assert not names


def test_the_numbers_of_a_model_are_whole_afterwards() -> None:
    model = Function(lambda x, n: x * int(n))
    found = graphopt.frontend.capture.capture(model, (torch.randn(3), torch.tensor(2)))
    assert found.graph.outputs and "int" not in globals()


def test_what_a_model_asserts_of_values_is_checked() -> None:
    def model(x: Any) -> Any:
        torch._check((x < 9).all().item())
        return x * 2

    x = torch.rand(3) + 1
    fast = graphopt.optimize(Function(model), precision="fp32", example_inputs=(x,))
    assert torch.equal(fast(x), x * 2)
    with pytest.raises(InputValueError):
        fast(x + 9)


def test_a_number_that_is_asserted_to_be_an_expression_is_that() -> None:
    number, size = sympy.Symbol("u0", integer=True), sympy.Symbol("s0", integer=True, positive=True)
    halved = sympy.floor((size - 1) / 2) + 1
    assert sizes_of_inputs([sympy.Eq(halved, number)], {size: 9}) == {number: halved}
    assert sizes_of_inputs([sympy.Eq(number + 1, halved)], {size: 9}) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_a_number_among_the_results_is_refused(dtype: Any) -> None:
    model = Function(lambda x: (x * 2, x.sum().item()))
    with pytest.raises(CaptureError, match=r"a number depends|which tensor values decide"):
        captured(model, torch.ones(3, dtype=dtype))
