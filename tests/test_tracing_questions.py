"""Models that do something else when they are traced, and models that a run changes."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from graphopt.compiler.module import OptimizedModule  # noqa: E402
from graphopt.compiler.options import Options  # noqa: E402
from graphopt.errors import CaptureError  # noqa: E402
from graphopt.frontend.capture import capture  # noqa: E402
from graphopt.frontend.tracing_questions import TracingQuestions  # noqa: E402

is_compiling = torch.compiler.is_compiling  # as libraries import it

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Asks(torch.nn.Module):
    def __init__(self, asks: Any) -> None:
        super().__init__()
        self.inner, self.asks = torch.nn.Linear(4, 4), asks
        self.eval()

    def forward(self, x: Any) -> Any:
        x = self.inner(x)
        return x * 2 if self.asks(x) else x


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: torch.compiler.is_exporting(),
        lambda x: not is_compiling(),
        lambda x: isinstance(x, torch._subclasses.FakeTensor),
    ],
    ids=["exporting", "compiling", "fake"],
)
def test_a_graph_is_what_the_model_computes_when_it_is_not_traced(asks: Any) -> None:
    model = Asks(asks)
    module = OptimizedModule(model, Options.of(check=False))
    with torch.no_grad():
        torch.testing.assert_close(module.interpret(X), model(X))
    assert len(module.report().in_torch) == 0
    assert torch.compiler.is_compiling is is_compiling and not is_compiling()


def test_what_cannot_be_captured_then_runs_in_python_with_the_reason() -> None:
    model = Asks(lambda x: not is_compiling() and bool((x > -1e9).all()))
    module = OptimizedModule(model, Options.of(check=False))
    with torch.no_grad():
        torch.testing.assert_close(module.interpret(X), model(X))
    (row,) = [row for row in module.report().in_torch if not row.module]
    assert "asks there whether it is traced, and computes something else then" in row.reasons[0]
    with pytest.raises(CaptureError, match=r"test_tracing_questions.py:\d+; it asks there"):
        capture(model, (X,))


def test_torch_itself_gets_the_truth() -> None:
    own = torch._subclasses.fake_tensor.FakeTensor
    with TracingQuestions(True) as asked:
        assert torch.compiler.is_exporting() and is_compiling()
        assert isinstance(X, torch._subclasses.FakeTensor) and not isinstance(X, own)
        assert not torch._dynamo.external_utils.is_compiling()  # asks in a line of torch's own
    assert len(asked.lines) == 3
    assert torch._subclasses.FakeTensor is own and not torch.compiler.is_exporting()


class Changes(torch.nn.Module):
    def __init__(self, change: Any, ending: str) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)
        self.scale = torch.nn.Parameter(torch.ones(4))
        self.register_buffer("seen", torch.zeros(4))
        self.change, self.ending = change, ending
        self.eval()

    def forward(self, x: Any) -> Any:
        self.change(self)
        if self.ending == "fails":
            raise ValueError("as it likes")
        if self.ending == "branches" and x.sum() > -1e9:
            x = x + 1
        return self.inner(x) * self.scale + self.seen[:4]


def _moved(model: Any) -> None:
    model.scale.data = model.scale.data * 2


CHANGES = {
    "data of a weight": lambda model: model.scale.data.mul_(0.5),
    "another memory": _moved,
    "a part of a weight": lambda model: model.inner.weight.data[0].fill_(7),
    "many at once": lambda model: torch._foreach_mul_([p.data for p in model.parameters()], 2),
    "the size of a buffer": lambda model: model.seen.resize_(8).fill_(2),
}


@pytest.mark.parametrize("ending", ["branches", "fails"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_model_that_changes_its_weights_is_left_as_it_was(change: Any, ending: str) -> None:
    model = Changes(change, ending)
    tensors = [*model.parameters(), *model.buffers()]
    before = [t.detach().clone() for t in tensors]
    module = OptimizedModule(model, Options.of(target="neoverse-n2"))
    if ending == "fails":
        with pytest.raises(CaptureError, match="as it likes"):
            module.prepare(X)
    else:
        module.prepare(X)
        assert module.report().in_torch
    after = [*model.parameters(), *model.buffers()]
    assert all(a is t for a, t in zip(after, tensors, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
