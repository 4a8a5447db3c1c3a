"""Granite: Llama with factors on the embedding, scores, residuals and logits."""

import numpy as np
import pytest
import test_gguf_file
import tiny
from test_phi3 import in_numpy, logits
from tiny import prompts, torch

from graphopt.llm.readers.gguf_file import read_gguf
from graphopt.llm.readers.transformers_model import read_decoder

FACTORS = {
    "attention_multiplier": 0.125,
    "embedding_multiplier": 3.0,
    "logits_scaling": 4.0,
    "residual_multiplier": 0.5,
}
#: Heads are of 16 values.
LLAMA = {**dict.fromkeys(FACTORS, 1.0), "attention_multiplier": 0.25}
KEYS = {
    ".attention.scale": 0.125,
    ".embedding_scale": 3.0,
    ".logit_scale": 4.0,
    ".residual_scale": 0.5,
}


@pytest.mark.parametrize("left_out", [None, *FACTORS])
def test_the_graph_gives_the_logits_of_transformers(left_out):
    """Also where one of the factors is that of Llama."""
    usual = {name: LLAMA[name] for name in FACTORS if name == left_out}
    model, ids = tiny.model("Granite", **FACTORS | usual), prompts(2, 30)
    torch.testing.assert_close(
        in_numpy(read_decoder(model), ids), logits(model, ids), rtol=1e-4, atol=2e-5
    )


def test_gguf_file_gives_the_factors_and_weights_of_the_model(tmp_path):
    model = tiny.model("Granite", **FACTORS)
    test_gguf_file.write(model, tmp_path / "m.gguf", test_gguf_file.KINDS.F32, "granite", KEYS)
    got, wanted = read_gguf(tmp_path / "m.gguf"), read_decoder(model)
    for trait in ("attention_scale", "embedding_scale", "logit_scale", "residual_scale"):
        assert getattr(got.traits, trait) == getattr(wanted.traits, trait) != 1.0
    for mine, theirs in zip(got.layers, wanted.layers, strict=True):
        np.testing.assert_array_equal(mine.qkv, theirs.qkv)
        np.testing.assert_array_equal(mine.down, theirs.down)
