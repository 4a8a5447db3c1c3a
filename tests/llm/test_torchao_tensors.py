"""Weights that torchao quantized are multiplied as they are."""

import numpy as np
import pytest
import tiny
from test_meta_checkpoint import kl
from torchao import quantization

import graphopt
from graphopt.errors import UnsupportedDecoderError
from graphopt.llm.decoder.matrices import BlockMatrix, ByteMatrix
from graphopt.llm.readers.torchao_tensors import quantized_matrix
from graphopt.llm.readers.transformers_model import read_decoder

torch = tiny.torch
IDS = tiny.prompts(2, 20)


def int4(group=32, **how):
    granularity = quantization.PerGroup(group)
    return quantization.IntxWeightOnlyConfig(torch.int4, granularity, **how)


def in_layers(module, name):
    return isinstance(module, torch.nn.Linear) and "layers" in name


def is_head(module, name):
    return name == "lm_head"


@pytest.fixture
def model():
    """Layers in int4 by blocks of 32, the head in int8, as ExecuTorch's recipe has it."""
    made = tiny.model(tie_word_embeddings=False)
    quantization.quantize_(made, int4(), in_layers)
    quantization.quantize_(made, quantization.Int8WeightOnlyConfig(), is_head)
    return made


def test_values_and_scales_are_those_of_the_tensors(model):
    weights = read_decoder(model)
    layer, source = weights.layers[1], model.model.layers[1]
    assert isinstance(layer.qkv, BlockMatrix) and isinstance(weights.head, ByteMatrix)
    np.testing.assert_array_equal(layer.output.q, source.self_attn.o_proj.weight.qdata.numpy())
    for mine, theirs in ((layer.down, source.mlp.down_proj), (weights.head, model.lm_head)):
        wanted = theirs.weight.dequantize().numpy()
        np.testing.assert_allclose(mine.dense(), wanted, rtol=2.0**-8)
    exact = model(IDS).logits.detach().numpy().reshape(IDS.numel(), -1)
    for bits, bound in ((16, 1e-3), (8, 0.05)):
        fast = graphopt.optimize(model, precision="int4", activation_bits=bits)
        assert kl(exact, fast(IDS).logits.numpy().reshape(IDS.numel(), -1)) < bound
        assert "int4 as it came" in str(fast.report())
        assert not any(row.loss and row.loss.weights for row in fast.report())
    plain = graphopt.optimize(model, precision="fp32")
    assert kl(exact, plain(IDS).logits.numpy().reshape(IDS.numel(), -1)) < 1e-4  # scales in bf16


def test_zero_points_are_a_second_matrix():
    made = tiny.model()
    how = {"mapping_type": quantization.MappingType.ASYMMETRIC}
    quantization.quantize_(made, int4(**how), in_layers)
    weight = made.model.layers[0].mlp.down_proj.weight
    matrix = quantized_matrix(weight, "down")
    assert isinstance(matrix, BlockMatrix) and matrix.least is not None
    step = np.abs(weight.scale.numpy()).max() * 16
    assert np.abs(matrix.dense() - weight.dequantize().numpy()).max() < step * 2.0**-8


def test_packed_pairs():
    """Int4Tensor holds the value of even index in the low half; w = scale * q + zero point."""
    random = np.random.default_rng(0)
    q = random.integers(-8, 8, (6, 64)).astype(np.int8)
    pairs = torch.tensor((q[:, 0::2] & 15) | (q[:, 1::2] << 4)).to(torch.int8)
    scale, zero = (torch.tensor(random.random((2, 6))).to(torch.bfloat16) for _ in range(2))
    tensor = quantization.Int4Tensor(pairs, scale, zero, [1, 32], torch.Size((6, 64)))
    matrix = quantized_matrix(tensor, "w")
    np.testing.assert_array_equal(matrix.q, q)
    wanted = q * np.repeat(scale.float().numpy().T, 32, 1) + np.repeat(
        zero.float().numpy().T, 32, 1
    )
    np.testing.assert_allclose(matrix.dense(), wanted, rtol=1e-6)


def test_what_no_kernel_takes_is_refused():
    for config in (int4(16), quantization.IntxWeightOnlyConfig(torch.int3)):
        made = torch.nn.Sequential(torch.nn.Linear(64, 32, bias=False))
        quantization.quantize_(made, config)
        with pytest.raises(UnsupportedDecoderError, match=r"block|int3"):
            quantized_matrix(made[0].weight, "w")
