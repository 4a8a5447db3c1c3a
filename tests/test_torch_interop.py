"""The optimized module inside torch: as a custom op, compiled, exported, under other modes."""

import copy
import gc
from typing import Any

import pytest

import graphopt
from graphopt.errors import ProgramError, TorchNodeError

torch = pytest.importorskip("torch")

import models  # noqa: E402
from captured import Function  # noqa: E402


@pytest.fixture(scope="module")
def fast() -> Any:
    example = (torch.randn(2, 5, 48),)
    return graphopt.optimize(models.network(), precision="fp32", example_inputs=example)


class Around(torch.nn.Module):
    """A model of which one part is optimized."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.scale = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.relu()) * self.scale


def program(fast: Any) -> int:
    """The number of the one program of a module that is compiled as a whole."""
    (specialization,) = fast._captured()
    ((_, _, number),) = specialization._programs()
    return number


@pytest.mark.parametrize("shape", [(2, 5, 48), (1, 1, 48)])
def test_opcheck(fast: Any, shape: tuple[int, ...]) -> None:
    outcome = torch.library.opcheck(
        torch.ops.graphopt.run.default, (program(fast), [torch.randn(shape)])
    )
    assert outcome["test_aot_dispatch_dynamic"] == "SUCCESS" and len(outcome) == 4


def test_opcheck_of_several_outputs_and_dtypes() -> None:
    class Several(torch.nn.Module):
        def forward(self, x: torch.Tensor, n: torch.Tensor) -> Any:
            halves = x.reshape(x.shape[0], -1, 2)
            return halves.sum(-1), n + 1, (x > 0), x.transpose(1, 2), n

    inputs = torch.randn(2, 5, 4), torch.arange(3)
    fast = graphopt.optimize(Several().eval(), precision="fp32", example_inputs=inputs, strict=True)
    torch.library.opcheck(torch.ops.graphopt.run.default, (program(fast), list(inputs)))
    for got, expected in zip(fast(*inputs), Several()(*inputs), strict=True):
        torch.testing.assert_close(got, expected)


def test_torch_compile_without_recompiling(fast: Any) -> None:
    graphs: list[Any] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(Around(fast), backend=backend, dynamic=True, fullgraph=True)
    for length in (5, 9, 33):
        x = torch.randn(2, length, 48)
        with torch.inference_mode():
            torch.testing.assert_close(compiled(x), Around(fast)(x))
    assert len(graphs) == 1 and "graphopt.run" in graphs[0].code


def test_torch_compile_of_the_module_itself(fast: Any) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(fast, backend="aot_eager")
    x = torch.randn(2, 7, 48)
    with torch.inference_mode():
        assert torch.equal(compiled(x), fast(x))


@pytest.mark.parametrize("strict", [False, True])
def test_torch_export(fast: Any, strict: bool) -> None:
    x = torch.randn(2, 5, 48)
    dims = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},)
    exported = torch.export.export(Around(fast), (x,), dynamic_shapes=dims, strict=strict)
    assert "graphopt.run" in exported.graph_module.code
    for shape in ((2, 5, 48), (3, 17, 48)):
        x = torch.randn(shape)
        torch.testing.assert_close(exported.module()(x), Around(fast)(x))


@pytest.mark.parametrize("by_name", [False, True])
def test_torch_export_knows_the_arguments_of_the_model(fast: Any, by_name: bool) -> None:
    free = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    shapes = {"input": free} if by_name else (free,)
    program = torch.export.export(fast, (torch.randn(2, 5, 48),), dynamic_shapes=shapes)
    x = torch.randn(3, 8, 48)
    assert torch.equal(program.module()(x), fast(x))


def test_an_exported_graph_takes_no_other_program_for_its_own() -> None:
    """Its number is of no program that is compiled later, here or in another process."""
    x = torch.randn(2, 3)
    fast = graphopt.optimize(Function(torch.relu), precision="fp32", example_inputs=(x,))
    program = torch.export.export(fast, (x,))
    del fast
    gc.collect()
    other = graphopt.optimize(Function(torch.neg), precision="fp32", example_inputs=(x,))
    with pytest.raises(ProgramError, match="another process, or one that is gone"):
        program.module()(x)
    assert torch.equal(other(x), -x)


def test_optimizing_a_model_that_contains_an_optimized_one(fast: Any) -> None:
    outer = graphopt.optimize(Around(fast).eval(), precision="fp32")
    x = torch.randn(2, 5, 48)
    torch.testing.assert_close(outer(x), Around(fast)(x), rtol=1e-5, atol=1e-6)
    (row,) = outer.report().in_torch
    assert "graphopt.run" in row.op


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_grad_modes(fast: Any, mode: Any) -> None:
    with mode():
        assert fast(torch.randn(1, 2, 48)).shape == (1, 2, 24)
    x = torch.randn(1, 2, 48)
    with torch.inference_mode():
        y = torch.randn(1, 2, 48)
    assert fast(y).shape == fast(x).shape  # an inference tensor outside of its mode


def test_autocast_does_not_matter(fast: Any) -> None:
    x = torch.randn(1, 2, 48)
    wanted = fast(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fast(x), wanted)
        assert torch.equal(copy.copy(fast)(x), wanted)
        again = graphopt.optimize(fast.original, precision="fp32", example_inputs=(x,))
    assert torch.equal(again(x), wanted)


def test_the_default_dtype_is_that_of_the_call() -> None:
    model = Function(lambda x: x + torch.ones(3) / torch.arange(1.0, 4.0))
    x = torch.randn(2, 3)
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(x,))
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(fast(x), model(x), rtol=0, atol=1e-15)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(fast(x), model(x))


def test_an_error_of_a_node_in_torch_names_it() -> None:
    fast = graphopt.optimize(
        Function(lambda x: torch.linalg.cholesky(x) * 2),
        precision="fp32",
        example_inputs=(torch.eye(3),),
    )
    with pytest.raises(TorchNodeError, match=r"linalg_cholesky at .*captured.*positive-definite"):
        fast(-torch.eye(3))
