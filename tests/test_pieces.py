"""Models that no graph holds: their Python runs, around submodules that are compiled."""

import copy
from typing import Any

import pytest

import graphopt

torch = pytest.importorskip("torch")

from graphopt import errors  # noqa: E402
from graphopt.compiler import pieces  # noqa: E402
from graphopt.compiler.specialization import Specialization  # noqa: E402
from graphopt.frontend import nesting  # noqa: E402


class Model(torch.nn.Module):
    """Some layers in eval mode; subclasses add `forward`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU())
        self.layers = torch.nn.ModuleList([torch.nn.Linear(8, 8) for _ in range(2)])
        self.dropout = torch.nn.Dropout()
        self.register_buffer("count", torch.tensor(0))
        self.calls, self.seen = 0, []
        self.eval()


class Branch(Model):
    def forward(self, x):
        y = self.encoder(x)
        for layer in self.layers[: 1 if x.sum() > 0 else 2]:
            y = layer(y)
        return self.dropout(y)


class Through(Model):
    """Through numpy, with a whole number and a list of unknown length."""

    def forward(self, x):
        rows = torch.from_numpy(self.encoder(x).numpy() * 2)
        n = int(x[0, 0]) % 2 + 1
        return {"rows": [self.layers[0](row) for row in rows[:n]], "n": n}


class Counts(Model):
    """Its Python and its buffers change with every call."""

    def forward(self, x):
        self.calls += 1
        self.count += 2
        return self.layers[0](self.encoder(x)) * self.calls + self.count


class Chooses(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.left(x) if x.mean() > 0.2 else self.right(x)


class Nested(Model):
    def __init__(self) -> None:
        super().__init__()
        self.choose = Chooses().eval()

    def forward(self, x):
        return self.layers[1](self.choose(self.encoder(x)))


class Counter(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.register_buffer("steps", torch.zeros(8))

    def forward(self, x):
        self.steps += 1
        return self.linear(x) + self.steps


class Counters(Model):
    """A compiled submodule with a buffer, which is called once or twice."""

    def __init__(self) -> None:
        super().__init__()
        self.counter = Counter().eval()

    def forward(self, x):
        y = self.counter(self.encoder(x))
        return self.counter(y) if y.sum() > 40 else y


class Pokes(Model):
    """Changes what a submodule holds from outside."""

    def forward(self, x):
        y = self.layers[0](self.encoder(x))
        self.layers[1].extra = float(x.sum())
        return self.layers[1](y) + self.layers[1].extra


class Hooked(Model):
    """A hook writes down what it sees, and changes the result."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder.register_forward_hook(lambda _, __, y: self.seen.append(y.sum()) or y * 2)

    def forward(self, x):
        return self.layers[0](self.encoder(x)), len(self.seen)


KINDS = {
    Branch: {"", "dropout"},
    Through: {""},
    Counts: {""},
    Nested: {"", "choose"},
    Counters: {""},
    Pokes: {"", "layers.1"},
    Hooked: {"", "encoder", "encoder.1"},
}


@pytest.fixture
def in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled parts run in numpy: what is compiled is not tested here."""
    monkeypatch.setattr(Specialization, "run", Specialization.interpret)
    monkeypatch.setattr(Specialization, "build", lambda _: None)


def close(got: Any, wanted: Any) -> None:
    (mine, spec), (its, expected) = nesting.flatten(got), nesting.flatten(wanted)
    assert spec == expected
    for one, other in zip(mine, its, strict=True):
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        else:
            assert one == other


def held(model: torch.nn.Module) -> str:
    modules = [(type(m), list(vars(m)), m.training) for m in model.modules()]
    return repr((modules, model.calls, model.seen, model.state_dict()))


@pytest.mark.usefixtures("in_numpy")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_model_runs_in_python_around_compiled_submodules(kind: Any, capfd: Any) -> None:
    model = kind()
    before, reference = held(model), copy.deepcopy(model)
    if kind is Hooked:  # a copy of a function is the function
        reference = kind()
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(torch.full((2, 4), 2.0),))
    assert held(model) == before
    for batch, value in ((2, 1.0), (3, 2.0), (2, -1.0), (2, 3.0)):
        x = torch.full((batch, 4), value) + torch.linspace(0, 0.5, 4)
        with torch.no_grad():
            close(fast(x.clone()), reference(x.clone()))
            close(dict(model.named_buffers()), dict(reference.named_buffers()))
    rows = {row.module for row in fast.report().in_torch if row.kernel == "python"}
    assert rows == KINDS[kind]
    assert any(row.compiled for row in fast.report())
    assert all(
        type(m) is type(n) for m, n in zip(model.modules(), reference.modules(), strict=True)
    )
    assert "forward" not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("in_numpy")
def test_what_needs_one_graph_is_refused_by_name() -> None:
    x = torch.ones(2, 4)
    with pytest.raises(errors.CaptureError, match=r"test_pieces\.py:\d+ \(for layer in"):
        graphopt.optimize(Branch(), precision="fp32", strict=True, example_inputs=(x,))
    fast = graphopt.optimize(Branch(), precision="fp32", example_inputs=(x,))
    for refused in (
        lambda: fast.save("nowhere"),
        lambda: fast.emulate(x),
        lambda: fast.balance(x, cores=2),
    ):
        with pytest.raises(errors.UnsupportedNodesError, match=r"python Branch .*if x\.sum"):
            refused()
    assert fast.dump().count("go.linear") == 2
    close(fast.interpret(x), Branch()(x).detach())


def test_a_model_of_which_nothing_is_compiled_is_refused() -> None:
    class Bare(Model):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    for model in (Bare(), torch.nn.Sequential(Bare())):
        with pytest.raises(errors.CaptureError, match=r"return x if x\.sum\(\) > 0 else -x"):
            graphopt.optimize(model.eval(), example_inputs=(torch.ones(2, 4),))


@pytest.mark.usefixtures("in_numpy")
def test_a_difference_between_submodules_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces.Pieces, "run", lambda self, args, kwargs: self.model(*args) + 1)
    with pytest.raises(errors.ExampleMismatchError, match="between them"):
        graphopt.optimize(Branch(), precision="fp32", example_inputs=(torch.ones(2, 4),))


def test_a_model_that_does_not_take_its_example() -> None:
    with pytest.raises(errors.CaptureError, match="cannot capture Branch"):
        graphopt.optimize(Branch(), precision="fp32", example_inputs=(torch.ones(2, 5),))
