"""Ops that are captured as what torch makes of them."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from captured import Function, arrays  # noqa: E402
from graphs import assert_close  # noqa: E402

from graphopt.compiler.pipeline import PassManager, lowering_passes  # noqa: E402
from graphopt.config import Config  # noqa: E402
from graphopt.frontend.capture import capture  # noqa: E402
from graphopt.frontend.decompositions import DECOMPOSED  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.passes.lower_aten import RULES  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402

AUTO, linalg = torch.export.Dim.AUTO, torch.linalg


def norms(x: Any) -> Any:
    whole = (linalg.norm(x), linalg.norm(x, dim=-1, keepdim=True), linalg.norm(x, "fro", (1, 2)))
    lines = (linalg.norm(x, 3, 1), linalg.norm(x, float("-inf"), 0), linalg.vecdot(x, x + 1))
    return whole + lines


def lines(x: Any) -> Any:
    return (
        torch.diff(x, dim=1),
        torch.trapezoid(x, dim=0),
        torch.isclose(x, x * 1.00001),
        linalg.cross(x[..., :3], x[..., 1:4]),
        x.nanmean(1),
    )


def losses(x: Any) -> Any:
    y = x.flip(0).sigmoid()
    pairs = (F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div, F.soft_margin_loss)
    return (
        *(loss(x, y) for loss in pairs),
        F.binary_cross_entropy(x.sigmoid(), y),
        F.binary_cross_entropy_with_logits(x, y, reduction="none"),
    )


@pytest.mark.parametrize("function", [norms, lines, losses])
def test_what_torch_makes_of_ops_is_compiled(function: Callable[..., Any]) -> None:
    calls = torch.randn(3, 5, 4), torch.randn(2, 7, 4)
    varies = ({0: AUTO, 1: AUTO},)
    graph = capture(Function(function), calls[:1], dynamic_shapes=varies).graph
    PassManager(Config(verify=True)).run(graph, lowering_passes())
    assert [n.op.name for n in graph.nodes if not n.is_lowered] == []
    for x in calls:
        assert_close(run_graph(graph, arrays(x)), arrays(function(x)), FP32_RELATIVE)


def test_no_op_that_is_taken_apart_has_a_rule() -> None:
    assert DECOMPOSED & {name.split(".")[1] for name in RULES} == set()
