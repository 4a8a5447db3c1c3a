"""Options of `optimize`: each is used, or refused by name before anything slow."""

import dataclasses
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import graphopt
from graphopt.compiler.options import Options
from graphopt.errors import CalibrationError, GraphoptError, OptionError
from graphopt.llm.compiled import check_options
from graphopt.llm.package import compile_llm

X = torch.randn(2, 3)


class Model(nn.Module):
    """Must never be captured here."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("captured")


def refused(error: type[Exception], match: str, model: Any = None, **options: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        graphopt.optimize(model or Model().eval(), **options)
    assert isinstance(caught.value, GraphoptError)


UNUSED: list[tuple[str, Any]] = [
    ("kv_cache", "f32"),
    ("kv_cache", "nonsense"),
    ("head", "int8"),
    ("group_size", 64),
    ("group_size", None),
    ("activation_bits", 16),
    ("rounding", "scale-search"),
    ("context", 64),
]


@pytest.mark.parametrize("name, value", UNUSED)
def test_a_module_refuses_what_it_does_not_use(name: str, value: Any) -> None:
    refused(OptionError, f"{name}=.*Model in fp32 does not use", precision="fp32", **{name: value})


def test_a_module_refuses_calibration() -> None:
    refused(CalibrationError, "only language models", precision="int4", calibration=[[1]])


@pytest.mark.parametrize(
    "name, value, match",
    [
        ("target", "neoverse-n3", "neoverse-n2"),
        ("target", 7, "target=7.*a name"),
        ("target", (X,), r"target=\(tensor.*example_inputs=\(x,\)"),
        ("target", np.ones(2), "target=array"),
        ("precision", np.ones(2), "precision=array"),
        ("kv_cache", np.ones(2), "kv_cache=array"),
        ("head", None, "head=None.*a name"),
        ("rounding", ["nearest"], r"rounding=\['nearest'\].*a name"),
        ("activation_bits", np.ones(2), "activation_bits="),
        ("num_threads", np.ones(2), "num_threads"),
        ("precision", "int3", "int3"),
        ("precision", ["int8"], "int8"),
        ("precision", None, "None"),
        ("group_size", 7, "group_size=7.*multiple of 32"),
        ("group_size", 2048, "group_size=2048"),
        ("group_size", -32, "group_size=-32"),
        ("group_size", True, "group_size=True"),
        ("group_size", "32", "group_size='32'"),
        ("activation_bits", 12, "activation_bits=12"),
        ("activation_bits", "8", "activation_bits=8"),
        ("rounding", "up", "rounding=up"),
        ("num_threads", 0, "0"),
        ("num_threads", -1, "-1"),
        ("num_threads", "x", "x"),
        ("rounding", "gptq", "gptq needs text"),
        ("context", True, "context=True.*number of positions"),
        ("strict", "yes", "strict='yes'.*True or False"),
        ("example_inputs", X, r"example_inputs='Tensor'.*example_inputs=\(x,\)"),
        ("example_inputs", {0: X}, "example_inputs='dict'.*names of parameters"),
        ("dynamic_shapes", 3, "dynamic_shapes=3"),
    ],
)
def test_wrong_values(name: str, value: Any, match: str) -> None:
    refused(GraphoptError, match, **{name: value})


@pytest.mark.parametrize(
    "shapes, match",
    [
        ({"y": {0: None}}, r"dynamic_shapes='y'.*no such argument.*there are x"),
        ({"x": {0: None}, "xx": None}, "'xx'"),
        (({0: None}, {0: None}), "2 entries for 1 arguments"),
        (({2: None},), r"dynamic_shapes\[0\]=2: the tensor has no such axis, but 0 to 1"),
        (({-1: None},), r"dynamic_shapes\[0\]=-1"),
        (((None,),), r"dynamic_shapes\[0\]=\(None,\).*each of 2 axes"),
        (({0: "B"},), r"dynamic_shapes\[0\]\[0\]='B'.*Dim"),
        (([None, 1.5],), r"dynamic_shapes\[0\]\[1\]=1.5"),
        ((3,), r"dynamic_shapes\[0\]=3"),
    ],
)
def test_dynamic_shapes_of_another_form(shapes: Any, match: str) -> None:
    refused(GraphoptError, match, example_inputs=(X,), dynamic_shapes=shapes)


@pytest.fixture
def auto_model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Looks like one of FunASR; nothing may be asked of it."""
    module = types.ModuleType("funasr.auto.auto_model")
    kind = type("AutoModel", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return kind()


@pytest.mark.parametrize(
    "name, value",
    [*UNUSED, ("example_inputs", (X,)), ("dynamic_shapes", {}), ("calibration", [[1]])],
)
def test_an_auto_model_refuses_what_it_does_not_use(name: str, value: Any, auto_model: Any) -> None:
    options = {"precision": "fp32", name: value}
    refused(OptionError, f"{name}=.*a FunASR AutoModel in fp32", auto_model, **options)


def test_a_language_model_refuses_what_it_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.llm.interface.adapter.is_decoder", lambda model: True)
    for name, value, precision in (
        ("strict", True, "int4"),
        ("dynamic_shapes", {}, "int4"),
        ("group_size", 64, "int8"),
        ("rounding", "scale-search", "int8"),
        ("calibration", [[1]], "bf16"),
        ("activation_bits", 16, "fp32"),
    ):
        match = f"{name}=.*a language model in {precision}"
        refused(OptionError, match, precision=precision, **{name: value})


@pytest.mark.parametrize(
    "options, match",
    [
        ({"target": "nowhere"}, "nowhere"),
        ({"precision": "int3"}, "int3"),
        ({"group_size": 7}, "group_size=7"),
        ({"context": 0}, "context=0"),
        ({"num_threads": 2}, "num_threads=2.*a language model in int4 does not use it"),
        ({"check": False}, "check=False"),
        ({"activation_bits": 12}, "activation_bits=12"),
        ({"kv_cache": "int4"}, "kv_cache=int4"),
        ({"head": "big"}, "head=big"),
        ({"rounding": "up"}, "rounding=up"),
        ({"rounding": "gptq"}, "gptq needs text"),
        ({"precision": "int8", "group_size": 64}, "group_size=64.*in int8"),
        ({"precision": "int8", "requantize": True}, "requantize=True"),
        ({"precision": "fp32", "activation_bits": 16}, "activation_bits=16.*in fp32"),
    ],
)
def test_options_are_checked_before_a_model_is_read(
    options: dict[str, Any], match: str, tmp_path: Any
) -> None:
    with pytest.raises(GraphoptError, match=match):
        compile_llm(
            tmp_path / "missing.gguf",
            tmp_path / "out",
            Options.of(**{"precision": "int4", **options}),
        )


def test_options_that_fit() -> None:
    check_options(Options.of(precision="int4"))
    check_options(Options.of(precision="int8+bf16", activation_bits=16, kv_cache="int8"))
    check_options(
        Options.of(precision="int4", group_size=None, rounding="gptq", calibration="words")
    )


def test_every_option_is_known_to_be_used_or_refused() -> None:
    import inspect

    parameters = inspect.signature(graphopt.optimize).parameters
    ours = {f.name: f.default for f in dataclasses.fields(Options)}
    assert set(parameters) - {"model"} == set(ours) - {"asked", "requantize"}
    given = {
        n: p.default for n, p in parameters.items() if n not in ("model", "target", "precision")
    }
    assert given == {name: ours[name] for name in given}
