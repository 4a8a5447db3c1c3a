"""Arguments however they are given: names, tensors and dims belong together."""

from collections import namedtuple
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.export import Dim  # noqa: E402

from graphopt.compiler.module import OptimizedModule  # noqa: E402
from graphopt.compiler.options import Options  # noqa: E402
from graphopt.errors import InputCountError, InputRankError, OptionError  # noqa: E402
from graphopt.frontend.arguments import Arguments  # noqa: E402
from graphopt.frontend.capture import capture  # noqa: E402
from graphopt.frontend.dynamic_shapes import dims_of_tensors  # noqa: E402

Point = namedtuple("Point", "x y")


@dataclass
class Batch:
    tokens: Any
    scale: float = 1.0
    mask: Any = None


class Model(torch.nn.Module):
    def forward(
        self, a: Any, b: Any = None, c: Any = None, *, d: Any = None, e: float = 2, **rest: Any
    ) -> Any:
        y = a * e
        y = y if b is None else y - b.sum(-1, keepdim=True)
        y = y if c is None else y * c["z"] - c["more"][0]
        y = y if d is None else y / d
        for name, value in rest.items():
            y = y + len(name) * value
        return y


@pytest.fixture
def model() -> Any:
    return Model().eval()


def tensors(batch: int, length: int) -> dict[str, Any]:
    torch.manual_seed(batch)
    return {
        "a": torch.randn(batch, 4),
        "b": torch.randn(batch, length),
        "c": {"z": torch.randn(4), "more": [torch.randn(batch, 4)]},
        "d": torch.rand(batch, 1) + 1,
        "x": torch.randn(batch, 4),
        "long": torch.randn(1, 4),
    }


@pytest.mark.parametrize("keywords", [*permutations("abcd"), *permutations("cd")])
def test_names_and_dims_follow_tensors_in_any_order_of_keywords(
    model: Any, keywords: tuple[str, ...]
) -> None:
    given = tensors(3, 7)
    positional = () if "a" in keywords else (given["a"],)
    call = Arguments.of(
        model,
        positional,
        {name: given[name] for name in keywords} | {"long": given["long"], "x": given["x"]},
    )
    wanted = {
        "a": given["a"],
        **({"b": given["b"]} if "b" in keywords else {}),
        "c_z": given["c"]["z"],
        "c_more_0": given["c"]["more"][0],
        "d": given["d"],
        "long": given["long"],
        "x": given["x"],
    }
    assert call.tensor_names == [*wanted]
    assert all(t is wanted[n] for n, t in zip(call.tensor_names, call.tensors, strict=True))
    for rest in ({"x": {0: 3}}, {"rest": {"x": {0: 3}}}):  # as torch.export takes it, too
        shapes = {"d": {0: 3}, "c": {"z": {0: 4}}, **rest}
        dims = dims_of_tensors(call, "rest", shapes)
        by_name = dict(zip(call.tensor_names, dims, strict=True))
        assert {n: dim for n, dim in by_name.items() if dim} == {
            **{"c_z": {0: 4}, "d": {0: 3}, "x": {0: 3}}
        }


def test_one_capture_serves_calls_in_every_order(model: Any) -> None:
    varies = Dim("batch")
    shapes = {name: {0: varies} for name in "abdx"} | {"c": {"more": [{0: varies}]}}
    module = OptimizedModule(model, Options.of(check=False, dynamic_shapes=shapes))
    first, other = tensors(3, 7), tensors(5, 7)
    order = ["x", "d", "c", "a", "long", "b"]
    calls = [
        ((), {name: first[name] for name in order}),
        ((), {name: other[name] for name in ["a", "x", "long", "b", "d", "c"]}),
        ((other["a"], other["b"]), {name: other[name] for name in ["c", "x", "d", "long"]}),
        ((other["a"], other["b"], other["c"]), {n: other[n] for n in ["x", "long", "d"]}),
    ]
    for args, kwargs in calls:
        torch.testing.assert_close(module.interpret(*args, **kwargs), model(*args, **kwargs))
    (captured,) = module._captured()
    assert [value.name for value in captured.graph.inputs] == [
        *("a", "b", "c_z", "c_more_0", "d", "x", "long")
    ]
    with pytest.raises(InputRankError, match="input 'd' has 1 dimensions"):
        module.interpret(**{**{n: other[n] for n in order}, "d": torch.ones(5)})
    with pytest.raises(InputCountError, match="missing a required argument: 'a'"):
        module.interpret(d=other["d"])


def test_dims_of_objects_are_found_by_name() -> None:
    class Objects(torch.nn.Module):
        def forward(self, batch: Batch, point: Point, size: int) -> Any:
            return batch.tokens * batch.scale * batch.mask + point.x * size - point.y

    batch = Batch(torch.randn(3, 4), 0.5, torch.ones(3, 4))
    point = Point(torch.randn(3, 1), torch.randn(3, 1))
    shapes = {"point": {"y": {0: Dim.AUTO}, "x": {0: Dim.AUTO}}, "batch": {"mask": {0: Dim.AUTO}}}
    call = Arguments.of(Objects(), (), {"size": 2, "point": point, "batch": batch})
    assert call.tensor_names == ["batch_tokens", "batch_mask", "point_x", "point_y"]
    varies = {0: Dim.AUTO}
    assert dims_of_tensors(call, "", shapes) == [None, varies, varies, varies]
    assert dims_of_tensors(call, "", ((varies, None, None), [None, varies], None)) == [
        *(varies, None, None, varies)
    ]
    for wrong, name in (
        ({"batch": {"masks": varies}}, "masks"),
        ({"size": {0: Dim.AUTO}}, "a int there has no axes"),
        ({"batch": {"scale": varies}}, "a float there has no axes"),
        ({"point": {"z": None}}, "there are x, y"),
    ):
        with pytest.raises(OptionError, match=name):
            dims_of_tensors(call, "", wrong)
    captured = capture(Objects().eval(), (), {"size": 2, "batch": batch, "point": point})
    assert [value.name for value in captured.graph.inputs] == call.tensor_names
