"""The decoder that onnxruntime runs as a peer computes what ours does, from the same weights."""

from dataclasses import replace

import numpy as np
import pytest
from decoders import tiny_decoder

from graphopt.bench.llm.worker import OnnxRuntime
from graphopt.compiler.options import Options
from graphopt.errors import BenchmarkError
from graphopt.kernels.reference import quantize_blocks_int4
from graphopt.llm.architectures.qwen3 import Qwen3Graph
from graphopt.llm.compiled import compile_decoder
from graphopt.llm.decoder.matrices import BlockMatrix

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from graphopt.bench.llm.onnx_decoder import write_onnx

TOKENS = np.array([3, 14, 15, 92, 65, 35, 89, 79])
PROMPT = 5
#: Eight bits of activations in every product, by blocks there and by rows here.
ROUNDING = 0.06


def with_blocks(weights):
    """The same decoder with every matrix of a layer in int4 blocks of 32."""

    def blocks(matrix):
        rounded = quantize_blocks_int4(matrix, 32)
        return BlockMatrix(rounded.q, rounded.scale, None)

    names = ("qkv", "output", "gate_up", "down")
    layers = [
        replace(layer, **{name: blocks(getattr(layer, name)) for name in names})
        for layer in weights.layers
    ]
    return replace(weights, layers=layers)


def ours(weights, precision):
    """Logits of the last tokens from the prompt on."""
    _, engine = compile_decoder(weights, Options.of(precision=precision, num_threads=1))
    rows = np.arange(PROMPT - 1, len(TOKENS))
    return engine.forward(TOKENS[None], engine.new_cache(), rows)


def theirs(path):
    """The same, the prompt at once and the rest token by token."""
    decoder = OnnxRuntime(str(path), 1, 64)
    decoder.feed(TOKENS[::-1])
    decoder.reset()
    steps = [TOKENS[:PROMPT], *(TOKENS[i : i + 1] for i in range(PROMPT, len(TOKENS)))]
    return np.array([decoder.feed(step).copy() for step in steps]), decoder


def error(got, exact):
    return np.linalg.norm(got - exact) / np.linalg.norm(exact)


def test_prefill_and_decoding(tmp_path):
    weights = with_blocks(tiny_decoder())
    write_onnx(weights, tmp_path / "m.onnx")
    got, decoder = theirs(tmp_path / "m.onnx")
    assert decoder.vocabulary == 101
    exact = ours(weights, "fp32")
    assert error(got, exact) < ROUNDING
    assert error(ours(weights, "int4"), exact) < ROUNDING


def test_blocks_that_add_something_are_rounded(tmp_path):
    plain = with_blocks(tiny_decoder())
    shifted = plain.layers[0]
    shifted.down.least = np.full(shifted.down.scale.shape, 0.01, np.float32)
    write_onnx(plain, tmp_path / "m.onnx")
    assert error(theirs(tmp_path / "m.onnx")[0], ours(plain, "fp32")) < 2 * ROUNDING


def test_other_layers_are_refused(tmp_path):
    weights = replace(tiny_decoder(), graph_class=Qwen3Graph)
    with pytest.raises(BenchmarkError, match="other layers"):
        write_onnx(weights, tmp_path / "m.onnx")
