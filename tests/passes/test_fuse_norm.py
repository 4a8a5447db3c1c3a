"""Norms that models write out: every spelling becomes `go.norm`, other formulas stay."""

import numpy as np
import pytest
from graphs import F32, Maker, X, add, check_pass, mul, ops

from graphopt.compiler.pipeline import PassManager, lowering_passes
from graphopt.config import Config
from graphopt.ir import scalar
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Norm, Reduce
from graphopt.passes.eliminate_dead_code import EliminateDeadCode
from graphopt.passes.fuse_norm import FuseNorm

torch = pytest.importorskip("torch")

from captured import Function  # noqa: E402

from graphopt.frontend.capture import capture  # noqa: E402

W, B = torch.linspace(0.5, 2, 8), torch.linspace(-1, 1, 8)


def mean(x):
    return x.mean(-1, keepdim=True)


#: Formula, and the operands that its norm has beside x.
FORMS = {
    "rms": (lambda x: W * (x * torch.rsqrt(mean(x.pow(2)) + 1e-6)), {"weight"}),
    "rms of a sum": (
        lambda x: x / ((x * x).sum(-1, keepdim=True) / 8 + 1e-5).sqrt() * W,
        {"weight"},
    ),
    "rms by a power": (
        lambda x: x * (1e-5 + mean(x.square())) ** -0.5 * (1 + W) + B,
        {"weight", "bias"},
    ),
    "layer": (
        lambda x: (d := x - mean(x)) / torch.sqrt(mean(d**2) + 1e-5) * W + B,
        {"weight", "bias"},
    ),
    "layer by its variance": (
        lambda x: W * (x - mean(x)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() + B,
        {"weight", "bias"},
    ),
    "layer alone": (lambda x: (x - mean(x)) * (mean((x - mean(x)) ** 2) + 1e-5).rsqrt(), set()),
}
OTHERS = {
    "an unbiased variance": lambda x: (x - mean(x)) / (x.var(-1, keepdim=True) + 1e-5).sqrt(),
    "a deviation": lambda x: (x - mean(x)) / (x.std(-1, keepdim=True, unbiased=False) + 1e-5),
    "no epsilon": lambda x: x * mean(x * x).rsqrt(),
    "a negative epsilon": lambda x: x * (mean(x * x) - 1e-3).rsqrt(),
    "another axis": lambda x: x * ((x * x).mean(1, keepdim=True) + 1e-5).rsqrt(),
    "two axes": lambda x: x * ((x * x).mean((1, 2), keepdim=True) + 1e-5).rsqrt(),
    "other rows": lambda x: (x + 1) * (mean(x * x) + 1e-5).rsqrt(),
    "rows less the mean of others": lambda x: (x - mean(x + 1)) / (mean(x * x) + 1e-5).sqrt(),
    "a root in place of its reciprocal": lambda x: x * (mean(x * x) + 1e-5).sqrt(),
    "a root over rows": lambda x: (mean(x * x) + 1e-5).sqrt() / x,
    "another width": lambda x: x / ((x * x).sum(-1, keepdim=True) / 7 + 1e-5).sqrt(),
    "doubles": lambda x: (d := x.double()) * (mean(d * d) + 1e-5).rsqrt(),
}


def lowered(function):
    """A graph up to the pass, and the position of that in its passes."""
    passes = lowering_passes()
    at = next(i for i, step in enumerate(passes) if isinstance(step, FuseNorm))
    graph = capture(Function(function), (torch.randn(2, 5, 8),)).graph
    PassManager(Config(verify=True)).run(graph, passes[:at])
    return graph


@pytest.mark.parametrize("name", FORMS)
def test_spellings_of_a_norm(name: str) -> None:
    function, operands = FORMS[name]
    graph = lowered(function)
    check_pass(FuseNorm(), graph)
    EliminateDeadCode().run(graph)
    (node,) = graph.nodes
    assert isinstance(node.op, Norm) and set(node.operands) == {"x", *operands}
    assert node.op.rms == ("rms" in name)


@pytest.mark.parametrize("name", OTHERS)
def test_other_formulas_stay(name: str) -> None:
    graph = lowered(OTHERS[name])
    assert not FuseNorm().run(graph) and "norm" not in ops(graph)


def test_rows_that_are_no_numbers() -> None:
    """Zeros, equal numbers, NaN, infinity and squares beyond f32 give what they gave."""
    x = np.ones((1, 5, 8), np.float32)
    x[0, 0], x[0, 2, 3], x[0, 3, 1], x[0, 4, 2] = 0, np.nan, np.inf, 1e30
    for function, _ in FORMS.values():
        graph = lowered(function)
        with np.errstate(all="ignore"):
            before = run_graph(graph, [x])[0]
            FuseNorm().run(graph)
            assert np.array_equal(np.isnan(run_graph(graph, [x])[0]), np.isnan(before))


def test_what_others_read_stays(golden) -> None:
    m = Maker()
    x, w = m.input("x", "B", "T", 8), m.constant("w", 8)
    square = m.op(Reduce("mean", (2,)), m.pointwise(mul(), x, x))
    root = m.pointwise(scalar.apply("rsqrt", add(X, scalar.const(1e-5, F32))), square)
    y = m.pointwise(mul(), x, root)
    graph = m.output(m.pointwise(mul(), y, w), y, square)
    golden("fuse_norm", check_pass(FuseNorm(), graph))
    (node,) = (n for n in graph.nodes if isinstance(n.op, Norm))
    assert "weight" not in node.operands, "the rows without it are a result too"
