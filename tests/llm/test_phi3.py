"""Phi-3: projections in one matrix, heads of which a part is rotated.

Runs with the installed transformers and, in test_oldest.py, with the oldest that is allowed.
"""

import numpy as np
import pytest
import test_chat
import test_gguf_file
import tiny
from tiny import prompts, torch

import graphopt
from graphopt.compiler.options import Options
from graphopt.errors import (
    ContextLengthError,
    OptionError,
    UnsupportedArgumentError,
    UnsupportedDecoderError,
)
from graphopt.ir import DType
from graphopt.ir.interpret import run_graph
from graphopt.llm.decoder.graph import decoder_graph
from graphopt.llm.generate.sampling import Sampler
from graphopt.llm.package import compile_llm, load_chat, read_model
from graphopt.llm.readers.gguf_file import GgufFile, read_gguf
from graphopt.llm.readers.transformers_model import read_decoder

HALF = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4 + [2.0] * 4,  # one for each pair of a head
    "long_factor": [4.0] * 8,
}
FACTORS = {"short": 2.0, "long": 4.0}
KINDS = test_gguf_file.KINDS
PARTS = ("qkv", "output", "gate_up", "down", "attention_norm", "feed_forward_norm")


def phi3(**changes):
    return tiny.model("Phi3", **{"rope_parameters": HALF, **changes})


@torch.no_grad()
def logits(model, ids):
    return model(ids).logits


def longrope(short):
    """Of 64 positions, and other frequencies behind so many."""
    return phi3(rope_parameters=LONG, original_max_position_embeddings=short)


@pytest.mark.parametrize("short", [None, tiny.CONTEXT], ids=["half", "longrope"])
def test_logits_and_tokens_are_those_of_transformers(short):
    model = longrope(short) if short else phi3()
    compiled = graphopt.optimize(model, precision="fp32", num_threads=1)
    ids = prompts(2, 30)
    torch.testing.assert_close(logits(compiled, ids), logits(model, ids), rtol=1e-4, atol=2e-5)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    how = {"attention_mask": mask, "max_new_tokens": 12, "min_new_tokens": 12}
    assert torch.equal(compiled.generate(ids, **how), model.generate(ids, **how))
    behind = {"position_ids": torch.arange(30)[None] + tiny.CONTEXT - 20}
    if not short:
        compiled(ids, **behind)
    else:
        with pytest.raises(UnsupportedArgumentError, match="position_ids"):
            compiled(ids, **behind)


def in_numpy(weights, ids):
    """Logits by the decoder graph as it is read."""
    shape, zeros = weights.shape, np.zeros(len(ids), np.int64)
    rows = (len(weights.layers), 2, *ids.shape, shape.kv_heads, shape.head_dim)
    given = [ids.numpy(), zeros, zeros, np.arange(ids.numel()), np.zeros(rows, np.float32)]
    (got,) = run_graph(decoder_graph(weights, DType.F32), given)
    return torch.from_numpy(got).reshape(*ids.shape, -1)


def test_longrope_of_short_prompts():
    """Whatever prompt a model saw last: it keeps the frequencies of that one."""
    model, ids = longrope(32), prompts(2, 30)
    wanted = logits(model, ids)
    logits(model, prompts(1, 40))
    weights = read_decoder(model, 32)
    assert weights.attention_factor > 1
    torch.testing.assert_close(in_numpy(weights, ids), wanted, rtol=1e-4, atol=2e-5)


def test_a_factor_is_on_what_is_rotated_alone():
    model, ids = phi3(), prompts(2, 30)
    model.model.rotary_emb.attention_scaling = 1.25
    torch.testing.assert_close(
        in_numpy(read_decoder(model), ids), logits(model, ids), rtol=1e-4, atol=2e-5
    )


def test_precisions_stay_close_to_torch():
    """By the bounds of test_generation.py; `optimize` compares logits with its own, too."""
    model = phi3(hidden_size=128, intermediate_size=256)
    ids = prompts(2, 30)
    wanted = logits(model, ids).log_softmax(-1)
    for precision, bound in (("bf16", 1e-3), ("int8", 5e-3), ("int4", 0.5)):
        got = logits(graphopt.optimize(model, precision=precision), ids).log_softmax(-1)
        loss = float((wanted.exp() * (wanted - got)).sum(-1).mean())
        assert 0 < loss < bound, precision


def test_package_of_a_directory(tmp_path):
    """Of a model with a window, for a context that it spans."""
    changes = {"rope_parameters": HALF, "sliding_window": 32}
    folder = test_chat.write_directory(tmp_path / "m", "Phi3", **changes)
    with pytest.raises(UnsupportedDecoderError, match="--context"):
        read_model(folder, Options.of(precision="int4"))
    with pytest.raises(OptionError, match="context=65: give 1 to 64"):
        read_model(folder, Options.of(precision="int4", context=65))
    compile_llm(folder, tmp_path / "m.gopt", Options.of(precision="fp32", context=32))
    chat = load_chat(tmp_path / "m.gopt", 1)
    made = list(chat.generate([5, 6, 7, 8], Sampler(), 12))
    model = tiny.transformers.AutoModelForCausalLM.from_pretrained(folder)
    wanted = model.generate(torch.tensor([[5, 6, 7, 8]]), max_new_tokens=12, do_sample=False)
    assert made == [token for token in wanted[0, 4:].tolist() if token != 258]
    with pytest.raises(ContextLengthError):
        list(chat.generate([5] * 33, Sampler(), 1))


def test_gguf_file_gives_the_weights_of_the_model(tmp_path):
    model, keys = phi3(), {".rope.dimension_count": 8, ".attention.sliding_window": 0}
    path = tmp_path / "m.gguf"
    test_gguf_file.write(model, path, KINDS.F32, "phi3", keys)
    got, wanted = read_gguf(path), read_decoder(model)
    np.testing.assert_allclose(got.frequencies, wanted.frequencies, rtol=1e-6)
    assert np.count_nonzero(got.frequencies) == 4
    for mine, theirs in zip(got.layers, wanted.layers, strict=True):
        for name in PARTS:
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    factors = {f"rope_factors_{n}.weight": np.full(4, x, np.float32) for n, x in FACTORS.items()}
    keys |= {".rope.scaling.original_context_length": 48, ".rope.scaling.attn_factor": 1.25}
    test_gguf_file.write(model, path, KINDS.Q8_0, "phi3", keys, factors)
    with pytest.raises(UnsupportedDecoderError, match=r"longrope.* behind 48 of 64"):
        read_gguf(path)
    file = GgufFile(path)
    blocks, dense = (file.weights(as_blocks, 48) for as_blocks in (True, False))
    assert blocks.shape.context == 48 and blocks.attention_factor == 1.25
    np.testing.assert_allclose(blocks.frequencies, wanted.frequencies / 2, rtol=1e-6)
    for mine, theirs in zip(blocks.layers, dense.layers, strict=True):
        np.testing.assert_array_equal(mine.qkv.dense(), theirs.qkv)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"sliding_window": tiny.CONTEXT - 1}, "window"),
        (
            {
                "rope_parameters": {**LONG, "rope_theta": 1e4},
                "original_max_position_embeddings": 16,
            },
            "longrope",
        ),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
    ids=["window", "longrope", "activation"],
)
def test_what_is_not_compiled_is_refused(changes, part):
    with pytest.raises(UnsupportedDecoderError, match=part):
        graphopt.optimize(phi3(**changes))


@pytest.mark.parametrize(
    ("keys", "tensors", "part"),
    [
        ({".attention.sliding_window": 32}, {}, "window"),
        ({}, {"rope_factors_short.weight": np.ones(4, np.float32)}, "rope_factors_short"),
        ({".rope.dimension_count": 7}, {}, "7 of 16"),
        ({".rope.dimension_count": 0}, {}, "0 of 16"),
        ({".rope.dimension_count": 18}, {}, "18 of 16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_compiled_of_gguf_is_refused(tmp_path, keys, tensors, part):
    path = tmp_path / "m.gguf"
    test_gguf_file.write(phi3(), path, KINDS.F32, "phi3", keys, tensors)
    with pytest.raises(UnsupportedDecoderError, match=part):
        read_gguf(path)
