"""What graphopt refuses: each a typed error that names the thing and the remedy."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt import errors
from graphopt.runtime import emulate

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import models  # noqa: E402

from graphopt.frontend.capture import capture  # noqa: E402


@pytest.fixture(scope="module")
def fast() -> Any:
    example = (torch.randn(2, 5, 48),)
    return graphopt.optimize(models.network(), precision="fp32", example_inputs=example)


CALLS = {
    "dtype": (lambda: [torch.ones(2, 3, 48).double()], errors.InputDtypeError, "float64"),
    "bf16": (lambda: [torch.ones(2, 3, 48).bfloat16()], errors.InputDtypeError, "bfloat16"),
    "integers": (lambda: [torch.ones(2, 3, 48).long()], errors.InputDtypeError, "int64"),
    "rank": (lambda: [torch.ones(3, 48)], errors.InputRankError, r"\[3, 48\].*\[B, T, 48\]"),
    "scalar": (lambda: [torch.tensor(1.0)], errors.InputRankError, "0 dimensions"),
    "fixed": (lambda: [torch.ones(2, 3, 47)], errors.InputShapeError, "47 along axis 2.*for 48"),
    "no batch": (lambda: [torch.ones(0, 3, 48)], errors.EmptyInputError, "axis 0.*skip the call"),
    "no length": (lambda: [torch.ones(2, 0, 48)], errors.EmptyInputError, "axis 1"),
    "nothing": (list, errors.InputCountError, "missing a required argument: 'input'"),
    "too many": (lambda: [torch.ones(2, 3, 48)] * 2, errors.InputCountError, "too many"),
    "list": (lambda: [[[[1.0] * 48]]], errors.InputCountError, "tensor.*called with list"),
    "number": (lambda: [3], errors.InputCountError, "tensor.*called with int"),
    "none": (lambda: [None], errors.InputCountError, "tensor.*called with NoneType"),
    "numpy": (lambda: [np.ones((2, 3, 48))], errors.InputCountError, "torch.from_numpy"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), CALLS.values(), ids=CALLS)
def test_call(fast: Any, arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        fast(*arguments())
    with pytest.raises(errors.InputError):
        fast.profile(*arguments())
    assert fast(torch.ones(1, 2, 48)).shape == (1, 2, 24)  # and it still works
    assert len(fast._captured()) == 1


def test_first_call_with_a_list() -> None:
    with pytest.raises(errors.InputCountError, match="at least one tensor"):
        graphopt.optimize(models.network())([[0.5] * 48])


def test_keyword_of_no_parameter(fast: Any) -> None:
    with pytest.raises(errors.InputCountError, match="unexpected keyword argument 'speech'"):
        fast(torch.ones(2, 3, 48), speech=torch.ones(2, 3, 48))


def test_another_dtype_where_one_is_captured() -> None:
    fast = graphopt.optimize(models.Lookup().eval(), precision="fp32")
    with torch.inference_mode():
        fast(torch.tensor([[1, 2]]))
    with pytest.raises(
        errors.InputDtypeError, match="'tokens' has dtype int32, compiled for int64"
    ):
        fast(torch.tensor([[1, 2]], dtype=torch.int32))


def test_index_out_of_range() -> None:
    fast = graphopt.optimize(models.Lookup().eval(), precision="fp32", num_threads=2)
    good = torch.arange(10).repeat(3, 5)
    expected = fast(good)
    for wrong in (10, -11, 2**40):
        tokens = good.clone()
        tokens[1, 7] = wrong
        with pytest.raises(errors.InputValueError, match=f"got {wrong}"):
            fast(tokens)
        assert torch.equal(fast(good), expected)


def test_sizes_that_must_agree() -> None:
    class Sum(torch.nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return left + right.relu()

    fast = graphopt.optimize(Sum().eval(), precision="fp32")
    fast(torch.ones(2, 5), torch.ones(2, 5))
    fast(torch.ones(4, 3), torch.ones(4, 3))
    with pytest.raises(errors.InputShapeError, match="'right' has size 4 along axis 1"):
        fast(torch.ones(2, 3), torch.ones(2, 4))


def test_training_mode() -> None:
    with pytest.raises(errors.TrainingModeError, match=r"Sequential is in.*model.eval\(\)"):
        graphopt.optimize(models.network().train())
    model = models.network()
    fast = graphopt.optimize(model)
    model.train()
    with pytest.raises(errors.TrainingModeError):
        fast(torch.ones(1, 2, 48))


def _exported() -> Any:
    return torch.export.export(models.network(), (torch.ones(2, 5, 48),))


def _quantized() -> Any:
    return torch.ao.quantization.quantize_dynamic(models.network(), {torch.nn.Linear})


NO_MODELS = {
    "traced": (lambda: torch.jit.trace(models.network(), torch.ones(1, 2, 48)), "that it was made"),
    "scripted": (lambda: torch.jit.script(models.network()), "that it was made of"),
    "file": (lambda: "model.pt", r"'model\.pt' is a name; load"),
    "path": (lambda: Path("model.pth"), r"model\.pth.* is a name"),
    "program": (_exported, r"ExportedProgram.*\.module\(\)"),
    "class": (lambda: torch.nn.GELU, r"GELU is a class; give an instance"),
    "function": (lambda: torch.relu, "function is no module"),
    "nothing": (lambda: None, "NoneType is no module"),
    "weights": (lambda: models.network().state_dict(), "OrderedDict is no module.*load_state_dict"),
    "parallel": (lambda: torch.nn.DataParallel(models.network()).eval(), r"give its \.module"),
    "list": (lambda: torch.nn.ModuleList().eval(), "ModuleList has no forward"),
    "quantized": (_quantized, "module '0', is quantized by torch.ao; give the float model"),
    "meta": (lambda: models.network().to("meta"), "'0.weight'.*meta device; load"),
    "lazy": (lambda: torch.nn.LazyLinear(3).eval(), "'weight' of LazyLinear has no values yet"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", NO_MODELS)
def test_what_is_no_model(kind: str) -> None:
    make, message = NO_MODELS[kind]
    with pytest.raises(errors.ModelError, match=message):
        graphopt.optimize(make(), example_inputs=(torch.ones(2, 5, 48),))


def test_an_exported_program_as_a_module() -> None:
    capture(_exported().module(), (torch.ones(2, 5, 48),))  # which cannot be set to evaluation


def test_names() -> None:
    model = models.network()
    with pytest.raises(errors.UnknownTargetError, match="did you mean 'neoverse-n2'"):
        graphopt.optimize(model, target="neoverse_n2")
    with pytest.raises(errors.UnknownPrecisionError, match="fp32, bf16, int8"):
        graphopt.optimize(model, precision="int3")


def test_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = graphopt.optimize(models.network(), precision="fp32")
    monkeypatch.setenv("CC", "no-such-compiler -O3")
    with pytest.raises(errors.MissingCompilerError, match="CC=no-such-compiler"):
        fast(torch.ones(1, 2, 48))
    monkeypatch.delenv("CC")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "ziglang" else find(name, *a)
    )
    with pytest.raises(errors.MissingCompilerError, match=r"graphopt\[compile\]"):
        fast(torch.ones(1, 2, 48))
    monkeypatch.undo()
    assert fast(torch.ones(1, 2, 48)).shape == (1, 2, 24)


def test_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(errors.CompilerError, match="false"):
        graphopt.optimize(models.network())(torch.ones(1, 2, 48))


def test_missing_emulator(fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulate.shutil, "which", lambda name: None)
    with pytest.raises(errors.MissingEmulatorError, match=r"qemu-.*apt-get install qemu-user"):
        fast.emulate(torch.ones(1, 2, 48))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_cannot_be_quantized(value: float) -> None:
    model = models.network()
    with torch.no_grad():
        model[3].weight[3, 5] = value
    x = torch.ones(1, 2, 48)
    with pytest.raises(errors.WeightError, match=r"'3\.weight' contains NaN or infinity"):
        graphopt.optimize(model, precision="int8", example_inputs=(x,))
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(x,))
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), model(x), equal_nan=True, rtol=1e-4, atol=1e-5)


def test_model_that_cannot_be_captured() -> None:
    class Branch(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if float(x.sum()) > 0:  # the line at fault
                return x
            return -x

    with pytest.raises(
        errors.CaptureError, match=r"test_bad_input\.py:\d+.*line at fault"
    ) as caught:
        graphopt.optimize(Branch().eval(), example_inputs=(torch.ones(2, 3),))
    assert "rewrite that line" in str(caught.value)


class Constructs(torch.nn.Module):
    """Uses one construct that no graph holds; `how` says which."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        if self.how == "cond":
            return torch.cond(x.sum() > 0, lambda x: x[x.long()], torch.cos, (x[0],))
        if self.how == "set":
            return {x * 2}
        if self.how == "fraction":
            return x * x.shape[1] ** (1 / 3)
        return x @ x.reshape(x.shape[1], x.shape[0]).T


CONSTRUCTS = {
    "cond": r"cond holds a graph of its own; optimize the branches",
    "set": r"its result is a set; return the tensors that it holds",
    "fraction": r"the size .*\(axis 1 of x\).*exponent 0\.33.* is not a whole number of eighths",
    "sizes": r"test_bad_input\.py:\d+ \(return x @.*got \[\(a size\)",
}


@pytest.mark.parametrize("how", CONSTRUCTS)
def test_constructs_that_no_graph_holds(how: str) -> None:
    with pytest.raises(errors.CaptureError, match=CONSTRUCTS[how]) as caught:
        capture(Constructs(how).eval(), (torch.ones(2, 3),))
    assert not re.search(r"\b[su]\d+\b|tensors_\d|get_attr|<string>|<eval", str(caught.value))


def test_more_threads_than_there_can_be() -> None:
    for wrong in (0, -1, "2", 1.5, 2**31 - 1):
        with pytest.raises(errors.ThreadCountError, match="num_threads is"):
            graphopt.optimize(models.network(), num_threads=wrong)
