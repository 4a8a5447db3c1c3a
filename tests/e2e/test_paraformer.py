"""Paraformer: error against torch and torch.ao, dynamic shapes, padding."""

import copy
import warnings
from typing import Any

import numpy as np
import pytest

import graphopt

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

from graphopt.bench.engines import relative_error  # noqa: E402
from graphopt.zoo import paraformer  # noqa: E402

pytestmark = pytest.mark.usefixtures("captured_once")
FP32_BOUND = 2e-5  # 7 blocks of f32 sums in another order


class Model:
    """Encoder and decoder with what torch computes, and what torch.ao computes in int8."""

    def __init__(self, blocks: int, decoder_blocks: int) -> None:
        self.parts = paraformer.paraformer_large(blocks, decoder_blocks)
        features = paraformer.example_inputs(frames=100)
        with torch.inference_mode():
            memory, lengths = self.parts[0](*features)
        embeds = paraformer.decoder_inputs(memory.clone(), lengths.clone(), tokens=25)
        self.inputs: tuple[Any, Any] = (features, embeds)
        self.built: dict[tuple[int, str, str], Any] = {}

    def reference(self, part: int) -> np.ndarray:
        with torch.inference_mode():
            return self.parts[part](*self.inputs[part])[0].numpy()

    def torch_int8(self, part: int) -> np.ndarray:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            quantized = torch.ao.quantization.quantize_dynamic(
                copy.deepcopy(self.parts[part]), {torch.nn.Linear}, dtype=torch.qint8
            )
            return quantized(*self.inputs[part])[0].numpy()

    def optimize(self, part: int, precision: str, target: str = "native") -> Any:
        key = part, precision, target
        if key not in self.built:
            self.built[key] = graphopt.optimize(
                self.parts[part],
                target=target,
                precision=precision,
                example_inputs=self.inputs[part],
                strict=True,
            )
        return self.built[key]


@pytest.fixture(scope="module")
def small() -> Model:
    return Model(blocks=4, decoder_blocks=2)


@pytest.fixture(scope="module")
def deep() -> Model:
    """Half as deep as the official one."""
    return Model(blocks=25, decoder_blocks=8)


@pytest.mark.parametrize("part", [0, 1], ids=["encoder", "decoder"])
def test_int8_is_no_worse_than_torch_at_depth(deep: Model, part: int) -> None:
    reference = deep.reference(part)
    got, lengths = deep.optimize(part, "int8")(*deep.inputs[part])
    mine = relative_error(got.numpy(), reference)
    assert mine <= relative_error(deep.torch_int8(part), reference)
    assert torch.equal(lengths, deep.inputs[part][1 if part == 0 else 3])


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 64), (3, 33), (1, 311)])
def test_one_build_serves_every_batch_and_length(small: Model, shape: tuple[int, int]) -> None:
    encoder, decoder = small.optimize(0, "fp32"), small.optimize(1, "fp32")
    batch, frames = shape
    features = paraformer.example_inputs(frames, batch)
    with torch.inference_mode():
        memory, lengths = small.parts[0](*features)
        embeds = paraformer.decoder_inputs(memory, lengths, tokens=1 + frames // 4)
        logits, _ = small.parts[1](*embeds)
    assert relative_error(encoder(*features)[0].numpy(), memory.numpy()) < FP32_BOUND
    assert relative_error(decoder(*embeds)[0].numpy(), logits.numpy()) < FP32_BOUND


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8+bf16"])
def test_padded_batch_gives_the_bits_of_each_alone(small: Model, precision: str) -> None:
    encoder, decoder = small.optimize(0, precision), small.optimize(1, precision)
    speech, lengths = paraformer.example_inputs(frames=45, batch=3)
    memory, _ = encoder(speech, lengths)
    hs, hlens, embeds, tokens = paraformer.decoder_inputs(memory, lengths, tokens=12)
    logits, _ = decoder(hs, hlens, embeds, tokens)
    for b, (t, n) in enumerate(zip(lengths.tolist(), tokens.tolist(), strict=True)):
        alone, _ = encoder(speech[b : b + 1, :t].contiguous(), lengths[b : b + 1])
        assert torch.equal(alone, memory[b : b + 1, :t])
        one = embeds[b : b + 1, :n].contiguous()
        said, _ = decoder(alone, hlens[b : b + 1], one, tokens[b : b + 1])
        assert torch.equal(said, logits[b : b + 1, :n])
