"""Functions of torch that are captured in the form of others."""

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
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402

AUTO = torch.export.Dim.AUTO
TABLE = torch.randn(7, 4)
BOUNDS = torch.tensor([0, 2, 2, 5])
ROWS = torch.randint(7, (3, 5)), torch.randint(7, (2, 8))
#: Indices, where bags begin (two of them empty), weights; the last is the end in a case.
FLAT = (
    (torch.randint(7, (9,)), torch.tensor([0, 2, 2, 5, 9]), torch.rand(9)),
    (torch.randint(7, (6,)), torch.tensor([0, 1, 4, 4, 6]), torch.rand(6)),
)


def bag(mode: str, weighted: bool = False, **options: Any) -> Callable[..., Any]:
    def function(x: Any, *rest: Any) -> Any:
        offsets, weights = (*rest, None, None)[:2]
        given = weights if weighted else None
        return F.embedding_bag(x, TABLE, offsets, mode=mode, per_sample_weights=given, **options)

    return function


#: A function, and two calls of it; what is captured for the first serves the second.
CASES: dict[str, tuple[Callable[..., Any], Any]] = {
    "bags by row": (
        lambda x: tuple(bag(mode)(x) for mode in ("sum", "mean", "max")),
        tuple((x,) for x in ROWS),
    ),
    "bags by row with padding": (
        lambda x: tuple(bag(mode, padding_idx=-5)(x) for mode in ("sum", "mean", "max")),
        tuple((x,) for x in ROWS),
    ),
    "bags between offsets": (
        lambda *given: (
            bag("mean")(*given),
            bag("max", padding_idx=3)(*given),
            bag("sum", weighted=True, padding_idx=2)(*given),
            bag("mean", include_last_offset=True)(*given),
        ),
        FLAT,
    ),
    "places in sorted lines": (
        lambda x: (
            torch.bucketize(x, BOUNDS),
            torch.isin(x, BOUNDS, invert=True),
            torch.linspace(-1, 2, x.shape[1]),
            torch.linspace(-1, 2, x.shape[0] - 1),
            torch.bucketize(x.float().sqrt(), BOUNDS, right=True, out_int32=True),
            torch.searchsorted(x.float().cumsum(-1), x.float(), side="right"),
            torch.searchsorted(x, x[:, :3], sorter=x.argsort(dim=-1, stable=True)),
        ),
        tuple((x,) for x in ROWS),
    ),
    "slices folded by index": (
        lambda x: (
            TABLE.index_reduce(0, x[0], TABLE[x[1]] + 1, "amax"),
            TABLE.index_reduce(0, x[0], TABLE[x[1]], "mean", include_self=False),
        ),
        tuple((x,) for x in ROWS),
    ),
    "deviations behind a write": (
        lambda x: (
            (y := x.float().clone()).mul_(0.5),
            *torch.std_mean(y, (1,), False),
            *torch.std_mean(y, 0, unbiased=True, keepdim=True),
            *torch.std_mean(y, unbiased=False),
        ),
        tuple((x,) for x in ROWS),
    ),
    "squeezed axes": (
        lambda x: (x[..., ::4].squeeze(-1).transpose(0, 1), torch.squeeze(x, (0, 2))),
        tuple((x.float().unsqueeze(1)[..., :4],) for x in ROWS),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_forms_give_what_the_functions_give(name: str) -> None:
    function, calls = CASES[name]
    dims = tuple(dict.fromkeys(range(x.dim()), AUTO) for x in calls[0])
    graph = capture(Function(function), calls[0], dynamic_shapes=dims).graph
    PassManager(Config(verify=True)).run(graph, lowering_passes())
    assert [n.op.name for n in graph.nodes if not n.is_lowered] == []
    for call in calls:
        wanted = arrays(function(*call))
        assert_close(run_graph(graph, arrays(call)), wanted, FP32_RELATIVE)


def test_whether_an_axis_is_squeezed_is_a_condition() -> None:
    for size in (1, 3):
        model = Function(lambda x: x.squeeze(1))
        graph = capture(model, (torch.ones(2, size),), dynamic_shapes=({1: AUTO},)).graph
        assert graph.outputs[0].rank == (1 if size == 1 else 2)
        sizes = graph.hints()
        holds = [c.subs({symbol: 4 - size for symbol in sizes}) for c in graph.conditions]
        fixed = graph.inputs[0].shape == (2, size)
        assert fixed or False in [bool(h) for h in holds]
