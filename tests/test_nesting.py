"""Arguments and results of any kind, taken apart and put together again."""

import collections
import dataclasses
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from captured import Function, arrays, captured, lowered  # noqa: E402

from graphopt.frontend import nesting  # noqa: E402
from graphopt.frontend.capture import capture  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402


@dataclasses.dataclass
class Plain:
    value: Any
    more: Any = None
    count: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    value: Any


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Items(list):
    pass


class Pairs(collections.OrderedDict):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.name = "pairs"


class Triple(tuple):
    pass


Named = collections.namedtuple("Named", "value more")
X = torch.arange(6.0).reshape(2, 3)
OBJECTS = [
    Plain(X, {"a": [X, None]}, 3),
    Frozen((X,)),
    Slotted([X]),
    Items([X, "text"]),
    Pairs({"b": X, "a": 1}),
    Triple((X, 2, 3)),
    Named(X, {1: X}),
    torch.distributions.Normal(X, X + 1),
    collections.UserDict(a=X),
    torch.nn.utils.rnn.PackedSequence(X, torch.tensor([2])),
    Plain(Items([Frozen(Pairs({"x": X}))])),
]


def content(thing: Any) -> str:
    """All that there is in a thing, with its classes, as text."""
    leaves, spec = nesting.flatten(thing)
    return f"{spec} {leaves}"


@pytest.mark.parametrize("thing", OBJECTS, ids=lambda thing: type(thing).__name__)
def test_objects_go_in_and_come_out(thing: Any) -> None:
    """As an argument, as a result, and as another one made of it."""
    leaves, spec = nesting.flatten(thing)
    assert any(leaf is X for leaf in leaves)

    def doubled(_: Any) -> Any:
        numbers = [v * 2 if isinstance(v, torch.Tensor) else v for v in leaves]
        return torch.utils._pytree.tree_unflatten(numbers, spec)

    found = captured(lambda x: (doubled(x), x.shape), X)
    outputs = run_graph(lowered(found.graph), arrays(found.call.flatten((X,), {})))
    got = found.call.unflatten([torch.from_numpy(y.copy()) for y in outputs], (X,), {})
    assert content(got) == content((doubled(X), X.shape))
    assert type(got[0]) is type(thing) and type(got[1]) is torch.Size


def test_an_object_that_is_given_is_returned_and_changed_itself() -> None:
    def extended(state: Any) -> Any:
        state.value = torch.cat([state.value, state.value * 2])
        state.count += 1
        state.more["new"] = Frozen(state.value)
        return {"state": state, "y": state.value + 1}

    state = Plain(X, {"old": X}, 1)
    found = capture(Function(extended), (dataclasses.replace(state, more={"old": X}),))
    outputs = run_graph(lowered(found.graph), arrays(found.call.flatten((state,), {})))
    got = found.call.unflatten([torch.from_numpy(y.copy()) for y in outputs], (state,), {})
    assert got["state"] is state and state.more["old"] is X
    other = Plain(X, {"old": X}, 1)
    assert content(got) == content(extended(other))


@pytest.mark.parametrize("thing", [object(), threading.Lock(), torch.Generator(), iter([X])])
def test_what_has_no_parts_is_a_leaf(thing: Any) -> None:
    leaves, _ = nesting.flatten({"a": thing, "b": [X]})
    assert leaves[0] is thing and leaves[1] is X


def test_an_object_in_itself_is_a_leaf_there() -> None:
    thing = Plain(X)
    thing.more = [thing]
    leaves, _ = nesting.flatten(thing)
    assert leaves[0] is X and leaves[1] is thing
