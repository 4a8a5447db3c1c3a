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
from graphopt.errors import UnsupportedDecoderError
from graphopt.ir import DType
from graphopt.ir.interpret import run_graph
from graphopt.llm.decoder.graph import decoder_graph
from graphopt.llm.generate.sampling import Sampler
from graphopt.llm.options import LlmOptions
from graphopt.llm.package import compile_llm, load_chat
from graphopt.llm.readers.gguf_file import read_gguf
from graphopt.llm.readers.transformers_model import read_decoder

HALF = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
FACTORS = [1.0] * 4 + [2.0] * 4  # one for each pair of a head
LONG = {"rope_type": "longrope", "short_factor": FACTORS, "long_factor": FACTORS}
KINDS = test_gguf_file.KINDS
PARTS = ("qkv", "output", "gate_up", "down", "attention_norm", "feed_forward_norm")


def phi3(**changes):
    return tiny.model("Phi3", **{"rope_parameters": HALF, **changes})


@torch.no_grad()
def logits(model, ids):
    return model(ids).logits


def test_logits_and_tokens_are_those_of_transformers():
    model = phi3()
    compiled = graphopt.optimize(model, precision="fp32", num_threads=1)
    ids = prompts(2, 30)
    torch.testing.assert_close(logits(compiled, ids), logits(model, ids), rtol=1e-4, atol=2e-5)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    how = {"attention_mask": mask, "max_new_tokens": 12, "min_new_tokens": 12}
    assert torch.equal(compiled.generate(ids, **how), model.generate(ids, **how))


def in_numpy(model, ids):
    """Logits by the decoder graph as it is read."""
    weights = read_decoder(model)
    shape, zeros = weights.shape, np.zeros(len(ids), np.int64)
    rows = (len(weights.layers), 2, *ids.shape, shape.kv_heads, shape.head_dim)
    given = [ids.numpy(), zeros, zeros, np.arange(ids.numel()), np.zeros(rows, np.float32)]
    (got,) = run_graph(decoder_graph(weights, DType.F32), given)
    return torch.from_numpy(got).reshape(*ids.shape, -1)


def test_a_factor_is_on_what_is_rotated_alone():
    model, ids = phi3(), prompts(2, 30)
    model.model.rotary_emb.attention_scaling = 1.25
    torch.testing.assert_close(in_numpy(model, ids), logits(model, ids), rtol=1e-4, atol=2e-5)


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
    folder = test_chat.write_directory(tmp_path / "m", "Phi3", rope_parameters=HALF)
    compile_llm(folder, tmp_path / "m.gopt", LlmOptions(precision="fp32"))
    made = list(load_chat(tmp_path / "m.gopt", 1).generate([5, 6, 7, 8], Sampler(), 12))
    model = tiny.transformers.AutoModelForCausalLM.from_pretrained(folder)
    wanted = model.generate(torch.tensor([[5, 6, 7, 8]]), max_new_tokens=12, do_sample=False)
    assert made == [token for token in wanted[0, 4:].tolist() if token != 258]


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
    test_gguf_file.write(model, path, KINDS.Q8_0, "phi3", keys)
    blocks, dense = read_gguf(path), read_gguf(path, as_blocks=False)
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
        ({".rope.scaling.attn_factor": 1.2}, {}, "attn_factor"),
        ({}, {"rope_factors_short.weight": np.array(FACTORS, np.float32)}, "rope_factors_short"),
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
