"""Sizes that a graph computes from data: how many tokens continuous integrate-and-fire makes."""

import shutil
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.errors import InputConditionError, InputValueError
from graphopt.ir.interpret import run_graph
from graphopt.testing import FP32_RELATIVE

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphopt.funasr.layers import cif as cif  # noqa: E402
from tests.support.captured import Function, captured, lowered  # noqa: E402


class Tokens(nn.Module):
    """Hidden frames to tokens, then a layer over them: what a predictor and a decoder do."""

    def __init__(self, left_in_torch: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.linear = nn.LayerNorm(20), nn.Linear(20, 33)
        self.left_in_torch = left_in_torch

    def forward(self, hidden: torch.Tensor, alphas: torch.Tensor) -> Any:
        tokens, peaks, counts = torch.ops.graphopt.cif(hidden, alphas, 1.0, "prefix", "floor")
        if self.left_in_torch:
            tokens = torch.special.i0e(tokens)
        scores = self.linear(self.norm(tokens))
        steps = torch.arange(tokens.shape[1])
        shown = scores * (steps[None, :] < counts[:, None]).float()[:, :, None]
        return shown, shown.argmax(-1), counts, peaks, tokens.transpose(1, 2)


def example(batch: int, frames: int, scale: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch * 1000 + frames)
    hidden = torch.randn(batch, frames, 20, generator=generator)
    return hidden, scale * torch.rand(batch, frames, generator=generator)


def assert_same(got: Any, expected: Any) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        assert tuple(mine.shape) == tuple(theirs.shape)
        assert np.abs(np.asarray(mine) - theirs.numpy()).max(initial=0) < 1e-4


@pytest.fixture(scope="module")
def fast() -> Any:
    return graphopt.optimize(
        Tokens().eval(), precision="fp32", example_inputs=example(2, 24), strict=True
    )


@pytest.mark.parametrize(("batch", "frames"), [(2, 24), (1, 1), (3, 57), (1, 200), (5, 2)])
def test_every_batch_has_the_tokens_of_its_longest_item(fast: Any, batch: int, frames: int) -> None:
    given = example(batch, frames)
    with torch.no_grad():
        assert_same(fast(*given), Tokens().eval()(*given))


@pytest.mark.parametrize(("batch", "frames"), [(1, 24), (3, 57), (2, 1)])
def test_captured_with_one_item(batch: int, frames: int) -> None:
    model = Tokens().eval()
    fast = graphopt.optimize(model, precision="fp32", example_inputs=example(1, 24), strict=True)
    with torch.no_grad():
        assert_same(fast(*example(batch, frames)), model(*example(batch, frames)))


class FixedBatch(Tokens):
    """A product with a vector, for which torch.export fixes a transposed batch of one at one."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(20, 1)

    def forward(self, hidden: torch.Tensor, alphas: torch.Tensor) -> Any:
        frames = hidden.transpose(1, 2)
        return super().forward(frames, alphas + 0.1 * torch.sigmoid(self.score(frames)).squeeze(-1))


def test_a_batch_that_torch_fixes_at_one() -> None:
    def given(batch: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, alphas = example(batch, frames)
        return hidden.transpose(1, 2).contiguous(), alphas

    model = FixedBatch().eval().requires_grad_(False)
    fast = graphopt.optimize(model, precision="fp32", example_inputs=given(1, 24), strict=True)
    with torch.no_grad():
        for batch, frames in ((1, 57), (2, 24)):  # another batch has one of its own
            assert_same(fast(*given(batch, frames)), model(*given(batch, frames)))


def test_no_token_at_all(fast: Any) -> None:
    shown, ids, counts, _, tokens = fast(*example(2, 24, scale=0.0))
    assert shown.shape == (2, 0, 33) and ids.shape == (2, 0) and tokens.shape == (2, 20, 0)
    assert counts.tolist() == [0, 0]


def test_more_tokens_than_frames_and_none_that_can_be_counted_are_errors(fast: Any) -> None:
    hidden, alphas = example(2, 24)
    with pytest.raises(InputValueError, match="expected 24, got 39"):
        fast(hidden, alphas * 6)
    alphas[1, 3] = float("nan")
    with pytest.raises(InputValueError, match="got -1"):
        fast(hidden, alphas)
    with torch.no_grad():
        assert_same(fast(*example(1, 9)), Tokens().eval()(*example(1, 9)))


def test_the_bits_do_not_depend_on_threads(fast: Any) -> None:
    given = example(3, 91)
    one = graphopt.optimize(
        Tokens().eval(), precision="fp32", example_inputs=example(2, 24), num_threads=1
    )
    for mine, theirs in zip(one(*given), fast(*given), strict=True):
        assert torch.equal(mine, theirs)


def test_between_nodes_that_stay_in_torch() -> None:
    """The part that computes the size, torch in between, and a part that is given it."""
    model = Tokens(left_in_torch=True).eval()
    mixed = graphopt.optimize(model, precision="fp32", example_inputs=example(2, 24))
    assert len(mixed.dump().split("graph ")) > 2
    with torch.no_grad():
        for given in (example(2, 24), example(3, 70)):
            assert_same(mixed(*given), model(*given))


def test_package_and_profile(fast: Any, tmp_path: Any) -> None:
    fast.save(tmp_path / "tokens.gopt")
    loaded = graphopt.load(tmp_path / "tokens.gopt")
    assert loaded.manifest.outputs[0].shape == ("B", "N", 33)
    given = example(3, 41)
    with torch.no_grad():
        expected = Tokens().eval()(*given)
    assert_same(loaded(*(t.numpy() for t in given)), expected)
    rows = {row["op"]: row for row in fast.profile(*given, repeats=1)}
    assert rows["go.linear"]["macs"] == 3 * expected[0].shape[1] * 20 * 33
    assert loaded.profile(*(t.numpy() for t in given), repeats=1)


@pytest.mark.filterwarnings("ignore::graphopt.compiler.program.OtherMachineWarning")
@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed")
def test_emulated_code_makes_the_same_tokens(fast: Any) -> None:
    model = graphopt.optimize(
        Tokens().eval(), "neoverse-n2", precision="fp32", example_inputs=example(2, 24)
    )
    given = example(3, 37)
    for mine, theirs in zip(model.emulate(*given), fast(*given), strict=True):
        assert torch.equal(mine, theirs)


def test_torch_compile_sees_a_size_of_its_own(fast: Any) -> None:
    given = example(2, 33)
    compiled = torch.compile(lambda *tensors: fast(*tensors)[0] * 2, fullgraph=True)
    assert torch.equal(compiled(*given), fast(*given)[0] * 2)


def test_graph_in_numpy() -> None:
    given = example(2, 24)
    graph = lowered(captured(Tokens(), *given).graph)
    assert graph.computed_dims() == ["N"] and str(graph.dims["N"].bound) == "T"
    with torch.no_grad():
        assert_same(run_graph(graph, [t.numpy() for t in given]), Tokens().eval()(*given))


@pytest.mark.parametrize("rule", ["integrate", "prefix"])
@pytest.mark.parametrize("count", ["floor", "round", "fires"])
def test_every_rule(rule: str, count: str) -> None:
    def tokens(hidden: torch.Tensor, alphas: torch.Tensor) -> Any:
        return torch.ops.graphopt.cif(hidden, alphas, 0.9, rule, count)

    given = example(3, 30)
    model = Function(tokens)
    ours = graphopt.optimize(model, precision="fp32", example_inputs=given, strict=True)
    assert_same(ours(*given), model(*given))


def test_argmax_takes_the_first_of_equals_and_nan() -> None:
    x = torch.tensor([[1.0, 3.0, 3.0, 2.0], [0.0, float("nan"), 5.0, float("nan")]])
    for axis in (0, 1, -1):
        model = Function(lambda t, axis=axis: t.argmax(axis))
        ours = graphopt.optimize(model, precision="fp32", example_inputs=(x,), strict=True)
        assert torch.equal(ours(x), model(x))


def test_a_view_that_crosses_parts_is_read_where_it_lies() -> None:
    """The part that reads it lays it out in its own way."""

    def function(x: torch.Tensor) -> torch.Tensor:
        half = (x * 2).unsqueeze(2)
        return torch.special.i0e(x).unsqueeze(2) * half

    model = Function(function)
    x = torch.rand(2, 5)
    ours = graphopt.optimize(model, precision="fp32", example_inputs=(x,))
    assert torch.allclose(ours(x), model(x))


def _behind_torch(x: torch.Tensor) -> torch.Tensor:
    """The second part has no tensor with the size that it multiplies by."""
    return torch.special.i0e(x.sum(1)) * x.shape[1]


def _one_more_token(x: torch.Tensor) -> torch.Tensor:
    """The second part has a computed size in a sum alone; torch pads by a negative number."""
    tokens = torch.ops.graphopt.cif(x, torch.sigmoid(x[..., 0]), 1.0, "prefix", "floor")[0]
    return nn.functional.pad(tokens, (-1, 1, 1, 0)).relu()


@pytest.mark.parametrize("function", [_behind_torch, _one_more_token])
def test_a_part_learns_the_sizes_that_it_computes_with(function: Any) -> None:
    ours = graphopt.optimize(Function(function), precision="fp32")
    for shape in ((2, 9, 3), (1, 14, 3)):
        x = torch.rand(shape)
        assert torch.allclose(ours.interpret(x), function(x), rtol=FP32_RELATIVE)


def test_a_computed_size_that_a_squeeze_would_remove_is_refused_by_the_call() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        tokens = torch.ops.graphopt.cif(x, torch.sigmoid(x[..., 0]), 1.0, "prefix", "floor")[0]
        return tokens[..., 0].squeeze()

    graph = lowered(captured(function, x := torch.rand(2, 9, 3)).graph)
    assert run_graph(graph, [x.numpy()])[0].shape == function(x).shape
    with pytest.raises(InputConditionError, match=r"do not satisfy Ne\(N, 1\)"):
        run_graph(graph, [np.full((2, 2, 3), 0.5, np.float32)])


def test_parts_whose_sizes_torch_finds_stay_in_torch() -> None:
    model = Function(lambda x: x.chunk(3)[-1].tensor_split(3)[-1] * 2)
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(torch.randn(16),))
    assert [row.op for row in fast.report() if not row.compiled] == ["aten.tensor_split"]
    for size in (16, 19):
        x = torch.randn(size)
        torch.testing.assert_close(fast(x), model(x))
