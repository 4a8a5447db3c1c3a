"""`optimize` compares logits of a language model with the model's, whatever the precision loses."""

import dataclasses
import threading

import numpy as np
import pytest
import tiny
from tiny import torch

import graphopt
from graphopt.errors import ExampleMismatchError, ModelError
from graphopt.llm.generate.engine import Engine
from graphopt.llm.interface import generation
from graphopt.passes.support import rounding
from graphopt.runtime import process
from graphopt.target import native

OTHER = "neoverse-n2" if native().arch == "x86_64" else "x86-64-v3"


def optimize(model=None, precision="int4", target=OTHER, **options):
    """In numpy, where the code of this machine is not what is tested."""
    return graphopt.optimize(model or tiny.model(), target, precision=precision, **options)


def refusal(**options):
    with pytest.raises(ExampleMismatchError) as caught:
        optimize(**options)
    return str(caught.value)


def break_reading(monkeypatch, change):
    read = generation.read_decoder

    def broken(*given):
        weights = read(*given)
        change(weights)
        return weights

    monkeypatch.setattr(generation, "read_decoder", broken)


def skip_layer(weights):
    weights.layers[1] = dataclasses.replace(
        weights.layers[1],
        output=np.zeros_like(weights.layers[1].output),
        down=np.zeros_like(weights.layers[1].down),
    )


def do_not_rotate(weights):
    weights.frequencies = np.zeros_like(weights.frequencies)


def permute(weights):
    weights.layers[0].output = weights.layers[0].output[::-1].copy()


def scale_a_norm(weights):
    weights.layers[1].attention_norm = weights.layers[1].attention_norm * np.float32(1.05)


@pytest.mark.parametrize("fault", [skip_layer, do_not_rotate, permute, scale_a_norm])
def test_what_was_read_wrongly_is_found(monkeypatch, fault):
    """The last one changes logits by less than int4 does."""
    break_reading(monkeypatch, fault)
    assert "the decoder as it was read, in f32, departs" in refusal()


def test_weights_that_a_pass_spoils_are_found(monkeypatch):
    quantize = rounding.quantize_blocks_int4

    def broken(weight, *args, **kwargs):
        return quantize(np.ascontiguousarray(weight[::-1]), *args, **kwargs)

    monkeypatch.setattr(rounding, "quantize_blocks_int4", broken)
    assert "what passes made of the decoder departs" in refusal()


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.bfloat16, {"precision": "fp32"}),
        (torch.float32, {"precision": "bf16"}),
        (torch.float16, {"precision": "int8", "kv_cache": "int8"}),
        (torch.bfloat16, {"group_size": None, "head": "int4"}),
    ],
    ids=str,
)
def test_ordinary_loss_is_accepted(dtype, options):
    model = tiny.model().to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (line,) = optimize(model, **options).report().checks
    assert line.startswith("logits of 12 tokens, in numpy, by the plan for another machine: off by")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(tensor.dtype is dtype for tensor in model.parameters())


@pytest.fixture(scope="module")
def compiled():
    return optimize(target="native")


def test_wrong_code_is_found(compiled, monkeypatch):
    """By less than what int4 may lose."""
    (line,) = compiled.report().checks
    assert line.startswith("logits of 12 tokens, compiled: off by")
    forward = Engine.forward

    def broken(self, tokens, cache, rows=None):
        logits = forward(self, tokens, cache, rows)
        return logits + np.float32(0.2) * np.abs(logits).max() * np.sign(logits)

    monkeypatch.setattr(Engine, "forward", broken)
    assert "generated code or a kernel departs" in refusal(target="native")


def test_check_can_be_left_out(monkeypatch):
    break_reading(monkeypatch, permute)
    assert optimize(check=False).report().checks == ("example: not compared",)


def test_compiled_models_are_not_compiled_again(compiled):
    with pytest.raises(ModelError, match="OptimizedDecoder is compiled already"):
        graphopt.optimize(compiled)
    module = graphopt.optimize(torch.nn.Linear(8, 8).eval())
    with pytest.raises(ModelError, match="OptimizedModule is compiled already"):
        graphopt.optimize(module)


def test_the_end_waits_for_generate(compiled):
    inside = []

    class Looking:
        def __call__(self, input_ids, scores):
            inside.append(process.calls.inside)
            return scores

    compiled.generate(
        tiny.prompts(), max_new_tokens=2, pad_token_id=0, logits_processor=[Looking()]
    )
    assert inside and all(inside) and not process.calls.inside


def test_tracing_in_another_thread_does_not_reach_calls(compiled):
    ids, failed = tiny.prompts(), []

    def call():
        try:
            compiled(ids)
        except BaseException as error:
            failed.append(error)

    class Traced(torch.nn.Module):
        def forward(self, x):
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
            return x

    torch.fx.symbolic_trace(Traced())
    assert not failed
