"""How a language model becomes int4: rounding with calibration, and what is kept of the head."""

import numpy as np
import pytest
import tiny
from test_gguf_file import KINDS, write
from test_meta_checkpoint import kl

import graphopt
from graphopt.compiler.options import Options
from graphopt.errors import CalibrationError, OptionError, TokenRangeError, UnknownPrecisionError
from graphopt.llm.compiled import compile_decoder
from graphopt.llm.decoder.matrices import ByteMatrix
from graphopt.llm.readers.gguf_file import read_gguf
from graphopt.llm.readers.transformers_model import read_decoder

IDS = tiny.prompts(2, 20)


def logits(weights, **how):
    program, engine = compile_decoder(
        weights, Options.of(num_threads=2, **{"precision": "int4", **how})
    )
    ids = IDS.numpy()
    return program, engine.forward(ids, engine.new_cache(2), np.arange(ids.size))


def text(tokens=1500, seed=3):
    return tiny.torch.randint(
        3, tiny.VOCABULARY, (tokens,), generator=tiny.torch.Generator().manual_seed(seed)
    )


def test_calibration_helps_and_is_reported():
    model = tiny.model()
    exact = model(IDS).logits.detach().numpy().reshape(IDS.numel(), -1)
    lost, outputs = {}, {}
    for rounding in ("nearest", "scale-search", "gptq"):
        fast = graphopt.optimize(
            model, precision="int4", activation_bits=16, rounding=rounding, calibration=[text()]
        )
        lost[rounding] = kl(exact, fast(IDS).logits.numpy().reshape(IDS.numel(), -1))
        rows = [row for row in fast.report() if row.loss is not None and "down" in row.module]
        assert len(rows) == 2 and all(row.loss.weights < 0.03 for row in rows)
        outputs[rounding] = np.mean([row.loss.outputs for row in rows])
        assert f"lost: {rows[0].loss}" in str(fast.report())
    assert lost["gptq"] < 0.7 * lost["nearest"]
    assert outputs["gptq"] < outputs["scale-search"] < outputs["nearest"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("group", [32, None])
def test_head_and_embedding(tied, group):
    model = tiny.model(tie_word_embeddings=tied, vocab_size=200)
    weights = read_decoder(model)
    exact = model(IDS).logits.detach().numpy().reshape(IDS.numel(), -1)
    lost, size = {}, {}
    for head in ("int4", "int8", "exact"):
        program, got = logits(weights, head=head, group_size=group, activation_bits=16)
        lost[head] = kl(exact, got)
        ends = {"embedding", "head"}
        values = {v for n in program.graph.nodes if n.origin.module in ends for v in n.inputs}
        size[head] = program.module.memory.weights.bytes_of(values)
    assert lost["exact"] <= 1.2 * lost["int8"] and lost["int8"] < lost["int4"]
    assert size["int4"] < size["int8"] < size["exact"]
    padded = 256 * 64
    assert size["int8"] < (1.4 if tied else 2.8) * padded
    assert size["int4"] < (0.9 if tied else 2.3) * padded
    for unknown, precision in (("int2", "int4"), ("int4", "int8")):
        with pytest.raises(UnknownPrecisionError, match=f"head={unknown}"):
            compile_decoder(weights, Options.of(precision=precision, head=unknown))


def test_8_bit_blocks_are_rounded_once_and_that_is_said(tmp_path):
    """Q8_0 has a scale per 32 values, kernels one per row; exact with 16-bit activations."""
    model = tiny.model()
    write(model, tmp_path / "m.gguf", KINDS.Q8_0)
    weights = read_gguf(tmp_path / "m.gguf")
    dense = read_gguf(tmp_path / "m.gguf", as_blocks=False)
    assert isinstance(weights.layers[0].qkv, ByteMatrix) and isinstance(weights.head, ByteMatrix)
    np.testing.assert_array_equal(weights.layers[0].qkv.dense(), dense.layers[0].qkv)
    np.testing.assert_array_equal(weights.head.dense(), dense.head)
    _, engine = compile_decoder(dense, Options.of(precision="fp32", num_threads=2))
    exact = engine.forward(IDS.numpy(), engine.new_cache(2), np.arange(IDS.numel()))
    for bits, share, bound in ((8, 1e-4, 0.01), (16, 1e-6, 1e-4)):
        program, got = logits(weights, activation_bits=bits)
        losses = [n.op.loss for n in program.graph.nodes if getattr(n.op, "loss", None)]
        assert len(losses) >= 9 and all(0 < loss.weights < share for loss in losses)
        assert kl(exact, got) < bound


def test_calibration_that_makes_no_sense():
    model = tiny.model()
    for calibration, error, match in (
        ("some text", CalibrationError, "it is text"),
        ([], CalibrationError, "no tokens"),
        ([[0.5]], CalibrationError, "integers"),
        ([[tiny.VOCABULARY]], TokenRangeError, str(tiny.VOCABULARY)),
    ):
        with pytest.raises(error, match=match):
            graphopt.optimize(model, precision="int4", rounding="gptq", calibration=calibration)
    with pytest.raises(CalibrationError, match="needs text"):
        graphopt.optimize(model, precision="int4", rounding="gptq")
    with pytest.raises(UnknownPrecisionError, match="rounding=x"):
        graphopt.optimize(model, precision="int4", rounding="x")
    with pytest.raises(UnknownPrecisionError, match=r"activation_bits=12.*8, 16"):
        graphopt.optimize(model, precision="int4", activation_bits=12)
    with pytest.raises(OptionError, match=r"rounding='gptq'.*in int8 does not use it"):
        graphopt.optimize(model, precision="int8", rounding="gptq", calibration=[text()])
    linear = tiny.torch.nn.Linear(32, 32).eval()
    with pytest.raises(CalibrationError, match="only language models"):
        graphopt.optimize(linear, precision="int4", calibration=[[1]])
