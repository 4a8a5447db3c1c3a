"""The benchmark of language models, on one that is small."""

import json

import numpy as np
import pytest
import tiny
from test_gguf_file import write
from typer.testing import CliRunner

from graphopt.bench.llm import models, quality, speed, worker
from graphopt.bench.llm.prepare import compile_file, prepare
from graphopt.cli import app
from graphopt.compiler.options import Options
from graphopt.errors import BenchmarkError
from graphopt.llm.readers.gguf_file import read_gguf

gguf = pytest.importorskip("gguf")
pytest.importorskip("tokenizers")
KINDS = gguf.GGMLQuantizationType
INT4 = Options.of(precision="int4")


@pytest.fixture
def file(tmp_path):
    """A decoder without a vocabulary."""
    path = tmp_path / "m.gguf"
    write(tiny.model(vocab_size=256, max_position_embeddings=2048), path, KINDS.Q4_1)
    return path


def test_rows(file, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "_TASKS", {"prefill_128": ("prefill", 128), "decode": ("decode", 4)})
    package = tmp_path / "m.gopt"
    compile_file(file, package, INT4, no_vocabulary=True)
    paths = {"graphopt": package, "llama.cpp": tmp_path / "none.gguf"}
    mine, theirs = (row.as_dict() for row in speed.measure("m", paths, [1], 2))
    assert mine["prefill_128"] > 0 and mine["decode"] > 0 and mine["load_s"] > 0
    assert mine["peak_rss_mib"] > 10 and mine["threads"] == 1
    low, high = mine["spread"]["decode"]
    assert low <= mine["decode"] <= high
    size = (package / "decoder/weights.bin").stat().st_size
    assert mine["weights_mb"] == pytest.approx(size / 1e6, abs=0.05)
    assert mine["read_gb_s"] > 0.5 and 0 <= mine["read_share"] < 1
    assert theirs["missing"]
    said = CliRunner().invoke(
        app, ["bench", "llm", str(package), "--threads", "1", "--rounds", "1", "--json"]
    )
    assert json.loads(said.stdout)[0]["engine"] == "graphopt", said.output

    def die(row, worker, counts):
        worker._wait.__self__.kill()
        return finish(row, worker, counts)

    finish = speed._round
    monkeypatch.setattr(speed, "_round", die)
    rows = speed.measure("m", {"graphopt": package, "llama.cpp": BenchmarkError("x")}, [1], 1)
    assert [row.as_dict()["missing"] for row in rows] == [
        "cannot measure: it was ended by SIGKILL",
        "cannot measure: x",
    ]


def test_the_share_of_what_memory_gives():
    rates = {task: [20.0, 10.0, 30.0] for task in speed._TASKS}
    row = speed.Row("graphopt", "m", 1, rates=rates, weights=8 * 10**8)
    row.reads = [20e9, 10e9, 48e9]
    shown = row.as_dict()
    assert (shown["read_share"], shown["read_gb_s"], shown["weights_mb"]) == (0.8, 20.0, 800.0)
    assert "80% of 20.0 GB/s" in list(speed.table([row]).columns[-1].cells)


def test_q4_0_of_a_file(file, tmp_path):
    models.write_q4_0(file, tmp_path / "q.gguf")
    before, after = read_gguf(file), read_gguf(tmp_path / "q.gguf")
    assert after.layers[0].qkv.least is None and after.shape == before.shape
    dense = before.layers[1].down.dense()
    step = np.abs(dense).max() / 8
    assert np.abs(after.layers[1].down.dense() - dense).max() < step


def test_random_blocks_have_the_deviation_of_weights(tmp_path):
    random = np.random.default_rng(0)
    for kind in (KINDS.Q4_0, KINDS.Q8_0):
        blocks = models._random_blocks(random, 64, 256, kind is KINDS.Q8_0)
        values = gguf.quants.dequantize(blocks, kind)
        assert values.shape == (64, 256) and abs(values.std() * 16 - 1) < 0.05


def test_quality_of_equal_distributions_is_no_loss():
    logits = np.random.default_rng(0).standard_normal((9, 20)).astype(np.float32)
    exact = quality._log_softmax(logits)
    np.testing.assert_allclose(np.exp(exact).sum(-1), 1, rtol=1e-5)
    tokens = np.arange(9)
    row = quality._row("m", quality._compare(exact, exact, tokens))
    assert row["kl_mean"] == 0 and row["top1"] == 1 and row["tokens"] == 8
    came = exact[np.arange(8), tokens[1:]]
    np.testing.assert_allclose(row["perplexity"], np.exp(-came.mean()), rtol=1e-5)
    other = quality._log_softmax(2 * logits)
    assert quality._row("m", quality._compare(exact, other, tokens))["kl_mean"] > 0.01


def test_the_text_is_long_enough():
    assert len(quality.text()) > 20_000


def test_models_that_are_none(tmp_path):
    with pytest.raises(BenchmarkError, match="no model 'gpt'"):
        prepare("gpt", tmp_path, INT4, False)
    with pytest.raises(BenchmarkError, match="cannot read a package"):
        prepare(str(tmp_path), tmp_path, INT4, True)
    with pytest.raises(BenchmarkError, match="quality"):
        quality.measure(models.LLAMA, tmp_path, 10, False)
    assert worker.ENGINES.keys() >= {"graphopt", "llama.cpp"}
