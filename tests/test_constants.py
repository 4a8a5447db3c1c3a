"""What depends on constants alone is computed while a model is captured."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from captured import Function, arrays, captured  # noqa: E402
from graphs import assert_close  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

from graphopt.compiler.pipeline import PassManager, lowering_passes  # noqa: E402
from graphopt.config import Config  # noqa: E402
from graphopt.frontend.capture import capture  # noqa: E402
from graphopt.ir import Graph  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.ir.ops import Conv, Linear  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402

NARROW = torch.randn(8, 8).to(torch.float8_e4m3fn)


class Reparametrized(torch.nn.Module):
    """Linear layers and a convolution whose weights are computed from others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.utils.weight_norm(torch.nn.Conv1d(4, 8, 3, padding=1))
        layers = [torch.nn.Linear(8, 8) for _ in range(5)]
        parametrizations.weight_norm(layers[0])
        parametrizations.spectral_norm(layers[1])
        parametrizations.orthogonal(layers[2])
        prune.l1_unstructured(layers[3], "weight", 0.3)
        torch.nn.utils.spectral_norm(layers[4])
        self.layers = torch.nn.Sequential(*layers)
        self.attention = torch.nn.MultiheadAttention(8, 2)
        self.register_buffer("narrow", NARROW)
        self.eval()

    def forward(self, x: Any) -> Any:
        y = self.layers(self.conv(x).transpose(1, 2))
        y = torch.nn.functional.linear(y, self.attention.in_proj_weight[8:16])
        return torch.nn.functional.linear(y, self.narrow.float() * 0.5)


def lowered(graph: Graph) -> Graph:
    return PassManager(Config(verify=True)).run(graph, lowering_passes())


def test_weights_that_are_computed_are_constants() -> None:
    model, x = Reparametrized(), torch.randn(2, 4, 9)
    graph = lowered(capture(model, (x,)).graph)
    products = [n for n in graph.nodes if isinstance(n.op, Conv | Linear)]
    assert len(products) == 8 and all(n.is_lowered for n in graph.nodes)
    assert all(n.operands["weight"].is_constant for n in products)
    with torch.no_grad():
        assert_close(run_graph(graph, arrays(x)), arrays(model(x)), FP32_RELATIVE)


def test_ops_without_a_rule_run_in_torch_while_a_model_is_captured() -> None:
    table = torch.randn(5, 4)
    graph = captured(
        lambda x: x + torch.linalg.inv(table.T @ table) + torch.unique(table).sort().values[0],
        torch.randn(3, 4, 4),
    ).graph
    assert [n.op.name for n in graph.nodes] == ["aten.add", "aten.add"]


def test_a_number_that_is_read_from_a_constant_is_a_number() -> None:
    count = torch.tensor(3)
    model = Function(lambda x: x[:, : count.item()] * count.item())
    graph = lowered(capture(model, (torch.randn(2, 5),)).graph)
    x = torch.randn(4, 6)
    assert all(n.is_lowered for n in graph.nodes)
    assert_close(run_graph(graph, arrays(x)), arrays(x[:, :3] * 3), FP32_RELATIVE)


def test_what_is_random_or_needs_an_input_is_computed_by_every_call() -> None:
    table = torch.randn(4)

    def names(function: Any) -> list[str]:
        return [n.op.name for n in captured(function, torch.randn(3, 4)).graph.nodes]

    assert "aten.bernoulli" in names(lambda x: x + torch.bernoulli(table.sigmoid()))
    assert "aten.randn_like" in names(lambda x: x + torch.randn_like(table))
    assert "aten.tile" in names(lambda x: table.tile((x.shape[0], 1)) + x)


def test_constants_that_cost_memory_and_no_time_are_not_made() -> None:
    row = torch.randn(4)

    def names(function: Any) -> list[str]:
        return [n.op.name for n in captured(function, torch.randn(3, 4)).graph.nodes]

    assert names(lambda x: x.mean() + row.expand(9, 4)) == ["aten.mean", "aten.expand", "aten.add"]
    large = names(lambda x: x.mean() + row.repeat(1 << 23, 1))
    assert large == ["aten.mean", "aten.repeat", "aten.add"]
