"""Logits of some tokens, by the compiled decoder and by the model that it was made of.

What lies between them is taken apart, so that the loss that a user asked for cannot hide a fault:

* the decoder as it was read, in f32 and in numpy, beside the model in f32: weights, norms, rotary
  embedding and layers are right, whatever the precision;
* the compiled decoder beside its plan in numpy, which has the same narrow weights: code and kernels
  are right;
* the compiled decoder beside the model: passes made weights narrow, and did not spoil them.

Where the last is as close as the first has to be, it says all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from graphopt.compiler.program import Program
from graphopt.dtype import DType
from graphopt.errors import CaptureError, ExampleMismatchError
from graphopt.frontend.held import Held
from graphopt.ir import Graph
from graphopt.ir.interpret import run_graph
from graphopt.llm.decoder.graph import DecoderWeights, decoder_graph
from graphopt.llm.generate.cache import CacheShape, KeyValueCache
from graphopt.llm.generate.engine import Engine
from graphopt.llm.readers.torchao_tensors import is_quantized
from graphopt.testing import relative_error

Array = np.ndarray[Any, Any]

TOKENS = 12
"""Of the sequence: enough that attention and positions count."""

IN_FLOAT = 1e-3
"""Largest `relative_error` of logits in f32. Llama, Qwen2 and Qwen3 of 2 layers and Llama of 8, all
with random weights, have 1.4e-6 at most; the rest is room for depth, and for outliers of trained
weights. Of the faults tried the one that shows least is no rotation in 8 layers with weights as
before training, 2e-2; a layer left out, or a matrix with rows in reverse, has 0.3 and more."""

QUANTIZED = 3e-2
"""The same where weights come quantized by torchao: four times the 7.5e-3 of Llama of 2 layers in
int4, of which scales are rounded to bf16."""

OF_CODE = {"fp32": IN_FLOAT, "bf16": 0.06, "int8": 0.15, "int8+bf16": 0.15, "int4": 0.15}
"""Largest error beside the plan in numpy: three times the largest of those models and of choices of
cache, head, group and bits of activations (0.017, 0.035, 0.039, 0.047): last bits of f32 decide a
few roundings to bf16 and int8 the other way."""

_CACHES = {DType.F32: "fp32", DType.BF16: "bf16", DType.I8: "int8"}
"""The precision that loses what keys and values of a type do."""

OF_PRECISION = {"fp32": IN_FLOAT, "bf16": 0.1, "int8": 0.3, "int8+bf16": 0.3, "int4": 1.0}
"""Largest error beside the model. Measured 0.019, 0.075 and 0.064 at most, and four times that is
allowed, as trained models have outliers; 0.2 to 0.6 in int4, where what is refused is an error as
large as the largest logit. A matrix with rows in another order has 1.2 and more."""


def check_logits(model: Any, weights: DecoderWeights, program: Program, engine: Engine) -> str:
    """Compares logits of one sequence of pseudo-random tokens, always the same.

    A decoder for another architecture runs in numpy, by its plan.

    Args:
        model: of transformers; it is left as it was.
        weights: as read from it.
        program: of them.
        engine: of the program.

    Returns:
        What was compared and found, for the report.

    Raises:
        CaptureError: if the model does not take tokens.
        ExampleMismatchError: if logits differ by more than the precision explains.
    """
    shape, precision = weights.shape, program.options.precision
    count = min(TOKENS, shape.context)
    tokens = np.random.default_rng(0).integers(shape.vocabulary, size=(1, count))
    cache, host = engine.cache_shape, program.options.target.is_host
    wanted = _of_model(model, tokens)
    if host:
        got = engine.forward(tokens, engine.new_cache(), np.arange(count))
    else:
        got = _in_numpy(program.graph, cache, tokens)
    how = "compiled" if host else "in numpy, by the plan for another machine"
    error = relative_error(got, wanted)
    found = f"logits of {count} tokens, {how}: off by {error:.2g} of the largest in {precision}"
    if error <= IN_FLOAT:
        return found

    def refuse(difference: float, bound: float, culprit: str) -> None:
        if not difference <= bound:
            raise ExampleMismatchError(weights.name, found, bound, f"{culprit} by {difference:.2g}")

    plain = decoder_graph(weights, DType.F32, keep_blocks=True)
    as_read = _in_numpy(plain, replace(cache, dtype=DType.F32), tokens)
    quantized = any(is_quantized(p) for p in model.parameters())
    exact = QUANTIZED if quantized else IN_FLOAT
    refuse(relative_error(as_read, wanted), exact, "the decoder as it was read, in f32, departs")
    narrow = (precision, _CACHES[cache.dtype])
    if host:
        planned = _in_numpy(program.graph, cache, tokens)
        culprit = "generated code or a kernel departs from the plan in numpy"
        refuse(relative_error(got, planned), max(_bound(OF_CODE, p) for p in narrow), culprit)
    bound = max(exact, *(_bound(OF_PRECISION, p) for p in narrow))
    refuse(error, bound, "what passes made of the decoder departs")
    return found


def _of_model(model: Any, tokens: Array) -> Array:
    """Logits [tokens, vocabulary] of the model, computed in f32 whatever its weights are."""
    held = Held(model)
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=()),
            torch.autocast("cpu", enabled=False),
            _InFloat(),
        ):
            given = torch.from_numpy(tokens).to(model.device)
            logits = model(input_ids=given, use_cache=False, return_dict=True).logits[0]
    except Exception as error:
        why = f"the model itself fails with {tokens.size} tokens: {error}; call it without graphopt"
        raise CaptureError(type(model).__name__, None, why) from error
    finally:
        held.put_back()
    wanted: Array = logits.float().cpu().numpy()
    return wanted


def _in_numpy(graph: Graph, cache: CacheShape, tokens: Array) -> Array:
    """Logits [tokens, vocabulary] of a graph of a decoder, planned or not, in numpy."""
    count = tokens.shape[1]
    rows = KeyValueCache(replace(cache, context=count))
    (logits,) = run_graph(graph, [tokens, rows.past, rows.start, np.arange(count), *rows.states])
    return logits


def _bound(measured: dict[str, float], precision: str) -> float:
    """The bound of a precision, or of several with commas; the widest for what was not measured."""
    return max(measured.get(one, max(measured.values())) for one in precision.split(","))


class _InFloat(TorchFunctionMode):
    """While it is active, matrices of any kind are multiplied, and looked up, in f32.

    One matrix at a time is made wide, so that no copy of a model is.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.nn.functional.linear, torch.nn.functional.embedding):
            args, kwargs = torch.utils._pytree.tree_map_only(
                torch.Tensor, _wide, (args, kwargs or {})
            )
        return func(*args, **(kwargs or {}))


def _wide(tensor: Any) -> Any:
    if is_quantized(tensor):
        return tensor.dequantize().float()
    return tensor.float() if tensor.is_floating_point() else tensor
