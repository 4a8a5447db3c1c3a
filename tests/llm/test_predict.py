"""Predicted speed of language models on Arm cores, with prices that are given."""

import json
from dataclasses import replace

import numpy as np
import pytest
from decoders import SHAPE, tiny_decoder
from typer.testing import CliRunner

from graphopt.bench.llm import models, predict
from graphopt.bench.llm.prepare import weights_of
from graphopt.cli import app
from graphopt.compiler.options import Options
from graphopt.errors import BenchmarkError

OPTIONS = Options.of(target="neoverse-n2", precision="int4")


@pytest.fixture
def small(monkeypatch):
    """A tiny decoder in place of any model; a cycle a price."""
    monkeypatch.setattr(predict, "weights_of", lambda *_: tiny_decoder())
    monkeypatch.setattr(predict.Prices, "cycles", lambda *_: 1)
    monkeypatch.setattr(
        predict, "PHASES", {"prefill_32": ((0, 16), (16, 16)), "decode": ((40, 1),)}
    )


def test_phases_of_a_model(small, tmp_path):
    one, sixteen, _ = predict.predict("m", tmp_path, OPTIONS)
    decode = one.phases["decode"]
    down = 8 * 64 * 8  # panels of 8 columns of 48 + 3 * 2 + 4 bytes, in whole cache lines
    blocks = 2 * (128 * 40 + 64 * 40 + 192 * 40 + down)
    norms, frequencies, embedding = 5 * 64 * 4, 8 * 4, 64
    keys = 2 * 41 * 2 * 2 * 16 * 2
    head = -(-SHAPE.vocabulary // 8) * 8 * (64 + 16)
    assert decode.bytes == blocks + norms + 2 * frequencies + embedding + keys + head
    assert decode.bound == decode.bytes / 20e9 * 3e9
    assert decode.cycles == pytest.approx(sum(decode.by_op.values()))
    assert decode.cycles >= decode.bound
    assert decode.by_op["head"] == pytest.approx(head / 20e9 * 3e9)
    prefill = one.phases["prefill_32"]
    assert prefill.bytes < decode.bytes / 8
    assert sixteen.phases["decode"].bound == pytest.approx(decode.bound / 10)


def test_the_command(small, monkeypatch):
    asked = ["bench", "llm", "smollm2", "--target", "neoverse-n2"]
    rows = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    ours, others = rows[:3], rows[3:]
    assert [row["threads"] for row in ours] == [1, 16, 64]
    assert all(row["decode"] > 0 and row["by_op"]["decode"]["GEMM"] > 0 for row in ours)
    assert others and all(row["published"] and row["source"] for row in others)
    shown = CliRunner().invoke(app, asked).stdout
    assert "Galaxy S24+" in shown and "Graviton4" in shown and "Not compared" in shown


def test_llama_without_weights(tmp_path):
    blocks = weights_of(models.LLAMA, tmp_path, OPTIONS)
    matrices = [m for layer in blocks.layers for m in (layer.qkv, layer.output, layer.gate_up)]
    count = sum(m.q.size for m in matrices) + sum(layer.down.q.size for layer in blocks.layers)
    assert count == 973_078_528  # of Meta's 1,235,814,400 without embedding and norms
    dense = weights_of(models.LLAMA, tmp_path, replace(OPTIONS, requantize=True))
    assert dense.layers[0].down.shape == blocks.layers[0].down.q.shape
    assert dense.head is dense.embedding and not np.any(dense.norm != 1)


def test_packages_have_no_graph(tmp_path):
    with pytest.raises(BenchmarkError, match="GGUF"):
        weights_of(str(tmp_path), tmp_path, OPTIONS)
