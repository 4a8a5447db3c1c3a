"""Results that no operation computes: inputs, parameters, constants and views handed on."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

import graphopt

torch = pytest.importorskip("torch")

from captured import Function  # noqa: E402

X = torch.arange(24.0).reshape(2, 3, 4)


def same(got: Any, expected: Any) -> None:
    assert torch.utils._pytree.tree_structure(got) == torch.utils._pytree.tree_structure(expected)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_a_graph_without_a_node(tmp_path: Path) -> None:
    model = Function(
        lambda x, linear, dropout: {
            "given": (x, x.contiguous(), dropout(x).clone(), x.detach(), x),
            "kept": [linear.weight, linear.weight, linear.bias],
            "view": x.reshape(x.shape[0], -1),
            "ordered": OrderedDict(b=x, a=(x,)),
        },
        linear=torch.nn.Linear(3, 2),
        dropout=torch.nn.Dropout(),
    )
    fast = graphopt.optimize(model, precision="fp32", strict=True, example_inputs=(X,))
    fast.save(tmp_path / "none.gopt")
    loaded = graphopt.load(tmp_path / "none.gopt")
    for x in (X, X[:1, :2] + 1):
        with torch.no_grad():
            same(fast(x), model(x))
            same(loaded(x), model(x))
    kept = fast(X)["kept"][0]
    kept.zero_()
    same(fast(X)["kept"][0], model(X)["kept"][0].detach())


def test_results_beside_a_node_that_stays_in_torch() -> None:
    model = Function(
        lambda x, linear: (
            torch.special.i0e(x),
            x,
            linear.weight,
            x.transpose(1, 2),
            torch.special.i0e(torch.full((5,), 2.0)),  # of constants: there before the first call
            torch.zeros(x.shape[1], 2) + 1,
        ),
        linear=torch.nn.Linear(3, 2),
    )
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(X,))
    assert [row.op for row in fast.report().in_torch] == ["aten.special_i0e"]
    for x in (X, X[:1, :2] + 1):
        with torch.no_grad():
            same(fast(x), model(x))
    fast(X)[2].zero_()
    same(fast(X)[2], model(X)[2].detach())
