"""GGUF files: what comes in blocks stays in them, and what cannot be read is refused."""

import dataclasses
import struct

import numpy as np
import pytest
import tiny

from graphopt.compiler.options import Options
from graphopt.errors import ModelFileError, UnsupportedDecoderError
from graphopt.llm.compiled import compile_decoder
from graphopt.llm.readers.gguf_file import read_gguf
from graphopt.llm.readers.transformers_model import read_decoder

gguf = pytest.importorskip("gguf")
KINDS = gguf.GGMLQuantizationType

_TYPES = {
    bool: gguf.GGUFValueType.BOOL,
    int: gguf.GGUFValueType.UINT32,
    float: gguf.GGUFValueType.FLOAT32,
    str: gguf.GGUFValueType.STRING,
}
_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}


def write(model, path, kind, architecture="llama", keys=None, tensors=None):
    """The model as llama.cpp stores it: matrices of layers in `kind`, the embedding in Q8_0.

    `keys` are written too, behind the name of the architecture if they begin with a dot; so are
    `tensors`.
    """
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    for key, value in (keys or {}).items():
        key = f"{architecture}{key}" if key.startswith(".") else key
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, _TYPES[type(value)])
    for name, array in (tensors or {}).items():
        writer.add_tensor(name, array)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if name == "lm_head.weight":
            continue
        if name in _OUTER:
            target, stored = _OUTER[name], KINDS.Q8_0
        else:
            _, _, layer, rest = name.split(".", 3)
            target, stored = f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight", kind
            if architecture in ("llama", "granite") and rest.startswith(
                ("self_attn.q", "self_attn.k")
            ):
                heads = array.shape[0] // config.head_dim
                pairs = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2)
                array = np.ascontiguousarray(pairs).reshape(array.shape)
        if array.ndim == 1:
            writer.add_tensor(target, array)
        else:
            quantized = gguf.quants.quantize(array, stored)
            writer.add_tensor(target, quantized, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def model():
    return tiny.model()


def test_f32_file_gives_the_weights_of_the_model(model, tmp_path):
    write(model, tmp_path / "m.gguf", KINDS.F32)
    got, wanted = read_gguf(tmp_path / "m.gguf"), read_decoder(model)
    epsilon = float(np.float32(wanted.shape.epsilon))  # GGUF keeps it in f32
    assert got.shape == dataclasses.replace(wanted.shape, epsilon=epsilon)
    assert got.head is got.embedding
    np.testing.assert_allclose(got.frequencies, wanted.frequencies, rtol=1e-6)
    for mine, theirs in zip(got.layers, wanted.layers, strict=True):
        for name in ("qkv", "output", "gate_up", "down", "attention_norm", "feed_forward_norm"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_blocks_are_taken_as_they_are(model, tmp_path, kind):
    """Scales lose what bf16 has not (2**-9 of a product); nothing is quantized again."""
    write(model, tmp_path / "m.gguf", KINDS[kind])
    blocks = read_gguf(tmp_path / "m.gguf")
    dense = read_gguf(tmp_path / "m.gguf", as_blocks=False)
    for mine, theirs in zip(blocks.layers, dense.layers, strict=True):
        for name in ("qkv", "output", "gate_up", "down"):
            matrix, wanted = getattr(mine, name), getattr(theirs, name)
            assert (matrix.least is None) == (kind == "Q4_0")
            assert np.abs(matrix.dense() - wanted).max() <= 2.0**-9 * 8 * np.abs(wanted).max()
    ids = tiny.prompts(2, 20).numpy()
    logits = []
    for weights, precision, bits in ((blocks, "fp32", 8), (blocks, "int4", 16)):
        _, engine = compile_decoder(
            weights, Options.of(precision=precision, activation_bits=bits, num_threads=2)
        )
        logits.append(engine.forward(ids, engine.new_cache(2), np.arange(40)))
    a, b = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in logits)
    assert 0 < (np.exp(a) * (a - b)).sum(-1).mean() < 1e-3


@pytest.mark.parametrize("cut", [10, 2000, -100])
def test_truncated_file_is_refused(model, tmp_path, cut):
    path = tmp_path / "m.gguf"
    write(model, path, KINDS.F32)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelFileError, match="no whole GGUF file"):
        read_gguf(path)


def test_other_kinds_are_refused(model, tmp_path):
    write(model, tmp_path / "a.gguf", KINDS.F32, "mamba")
    with pytest.raises(ModelFileError, match="'mamba'"):
        read_gguf(tmp_path / "a.gguf")
    write(model, tmp_path / "b.gguf", KINDS.Q5_0)
    with pytest.raises(ModelFileError, match=r"attn_q.weight is quantized as Q5_0"):
        read_gguf(tmp_path / "b.gguf")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.head_count", 0),
        ("attention.head_count", 3),
        ("attention.head_count_kv", 0),
        ("attention.head_count_kv", 1),
        ("embedding_length", 32),
        ("feed_forward_length", 100),
        ("block_count", 0),
        ("block_count", 3),
        ("context_length", 0),
    ],
)
def test_sizes_that_do_not_fit_are_refused(model, tmp_path, key, value):
    """A number of the header other than what the tensors are."""
    path = tmp_path / "m.gguf"
    write(model, path, KINDS.Q4_0)
    header = path.read_bytes()
    at = header.index(f"llama.{key}".encode()) + len(f"llama.{key}") + 4
    path.write_bytes(header[:at] + struct.pack("<I", value) + header[at + 4 :])
    with pytest.raises(ModelFileError, match=r"m\.gguf"):
        read_gguf(path)


def test_text_that_is_none_is_refused(model, tmp_path):
    path = tmp_path / "m.gguf"
    write(model, path, KINDS.Q4_0)
    path.write_bytes(
        path.read_bytes().replace(b"\x05" + bytes(7) + b"llama", b"\x05" + bytes(7) + b"ll\xe1ma")
    )
    with pytest.raises(ModelFileError, match="architecture"):
        read_gguf(path)


UNSUPPORTED = {
    "yarn": {".rope.scaling.type": "yarn", ".rope.scaling.factor": 4.0},
    "rotary embedding of 8 of 16": {".rope.dimension_count": 8},
    "window": {".attention.sliding_window": 32},
    "values of 8": {".attention.value_length": 8},
    "attention scaled": {".attention.scale": 0.5},
    "attention soft-capped": {".attn_logit_softcapping": 50.0},
    "logits soft-capped": {".final_logit_softcapping": 30.0},
    "logits scaled by 0.0625": {".logit_scale": 0.0625},
    "embedding scaled": {".embedding_scale": 12.0},
    "residuals scaled": {".residual_scale": 0.22},
    "experts": {".expert_count": 8},
    "clamped": {".attention.clamp_kqv": 8.0},
    "biased by distance": {".attention.max_alibi_bias": 8.0},
    "later tokens": {".attention.causal": False},
    "side by side": {".use_parallel_residual": True},
    "rope.freq_base_swa": {".rope.freq_base_swa": 1e4},
    "pooling_type": {".pooling_type": 1},
    "somebody.setting": {"somebody.setting": "on"},
    "nodots": {"nodots": 1},
}


@pytest.mark.parametrize("part", UNSUPPORTED)
def test_keys_that_say_another_model_are_refused(model, tmp_path, part):
    write(model, tmp_path / "m.gguf", KINDS.F32, keys=UNSUPPORTED[part])
    with pytest.raises(UnsupportedDecoderError, match=part):
        read_gguf(tmp_path / "m.gguf")


HARMLESS = {
    "general.name": "Tiny",
    "general.file_type": 0,
    "general.quantization_version": 2,
    "quantize.imatrix.file": "text.dat",
    ".rope.dimension_count": 16,
    ".attention.value_length": 16,
    ".attention.sliding_window": 64,  # of 64 positions
    ".attention.scale": 0.25,  # of heads of 16
    ".logit_scale": 1.0,
    ".expert_count": 0,
    ".expert_used_count": 0,
    ".vocab_size": tiny.VOCABULARY,
    ".rope.scaling.type": "none",
    ".rope.scaling.factor": 4.0,  # of no scaling
    ".rope.scaling.original_context_length": 32,
    ".tensor_data_layout": "Meta AI original pth",
}


def test_keys_that_change_nothing(model, tmp_path):
    write(model, tmp_path / "m.gguf", KINDS.F32, keys=HARMLESS)
    got, wanted = read_gguf(tmp_path / "m.gguf"), read_decoder(model)
    np.testing.assert_allclose(got.frequencies, wanted.frequencies, rtol=1e-6)


@pytest.mark.parametrize(
    "keys",
    [
        {".rope.scale_linear": 2.0},
        {".rope.scaling.factor": 2.0},
        {".rope.scaling.type": "linear", ".rope.scaling.factor": 2.0},
    ],
    ids=["old", "without a type", "linear"],
)
def test_linear_scaling(tmp_path, keys):
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    model = tiny.model(rope_parameters=rope)
    write(model, tmp_path / "m.gguf", KINDS.F32, keys=keys)
    got, wanted = read_gguf(tmp_path / "m.gguf"), read_decoder(model)
    np.testing.assert_allclose(got.frequencies, wanted.frequencies, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["blk.0.attn_output.bias", "blk.1.ffn_up.bias", "rope_factors_long.weight", "x"]
)
def test_tensors_that_nothing_reads_are_refused(model, tmp_path, name):
    extra = {name: np.zeros(64, np.float32)}
    write(model, tmp_path / "m.gguf", KINDS.F32, tensors=extra)
    with pytest.raises(UnsupportedDecoderError, match=name):
        read_gguf(tmp_path / "m.gguf")


def test_biases_of_llama_are_in_the_order_of_their_rows(tmp_path):
    model = tiny.model(attention_bias=True)
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias = None
    biases = {}
    for i, layer in enumerate(model.model.layers):
        for n in "qkv":
            bias = getattr(layer.self_attn, f"{n}_proj").bias.detach().numpy()
            if n in "qk":
                bias = bias.reshape(-1, 2, 8).swapaxes(1, 2).reshape(-1)
            biases[f"blk.{i}.attn_{n}.bias"] = np.ascontiguousarray(bias)
    plain = tiny.model()
    write(plain, tmp_path / "m.gguf", KINDS.F32, tensors=biases)
    got, wanted = read_gguf(tmp_path / "m.gguf"), read_decoder(model)
    for mine, theirs in zip(got.layers, wanted.layers, strict=True):
        np.testing.assert_array_equal(mine.qkv_bias, theirs.qkv_bias)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (".attention.head_count", "four"),
        (".context_length", 64.5),
        (".rope.freq_base", float("nan")),
        (".rope.scaling.type", 3),
        ("split.count", 2),
        (".vocab_size", 100),
    ],
)
def test_values_that_make_no_sense_are_refused(model, tmp_path, monkeypatch, key, value):
    monkeypatch.setattr(gguf.GGUFWriter, f"add{key.replace('.', '_')}", lambda *_: None, False)
    for name in ("add_head_count", "add_context_length", "add_rope_freq_base"):
        monkeypatch.setattr(gguf.GGUFWriter, name, lambda *_: None)
    usual = {".attention.head_count": 4, ".context_length": 64, ".rope.freq_base": 1e4}
    write(model, tmp_path / "m.gguf", KINDS.F32, keys={**usual, key: value})
    with pytest.raises(ModelFileError, match=r"m\.gguf"):
        read_gguf(tmp_path / "m.gguf")


@pytest.mark.parametrize("at", [8, 16], ids=["tensors", "keys"])
def test_a_count_of_billions_ends_at_once(model, tmp_path, at):
    """Counts, lengths of texts and of arrays are held against the size of the file."""
    path = tmp_path / "m.gguf"
    write(model, path, KINDS.F32)
    data = bytearray(path.read_bytes())
    data[at : at + 8] = struct.pack("<Q", 3_000_000_000)
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="no whole GGUF file"):
        read_gguf(path)


def test_an_array_of_billions_ends_at_once(model, tmp_path):
    path = tmp_path / "m.gguf"
    write(model, path, KINDS.F32, keys={"general.name": "x" * 12})
    text = struct.pack("<IQ", 8, 12) + b"x" * 12
    for array in (struct.pack("<IIQ", 9, 8, 3_000_000_000), struct.pack("<IIQ", 9, 9, 2)):
        path.write_bytes(path.read_bytes().replace(text, array + bytes(8)))
        with pytest.raises(ModelFileError, match="no whole GGUF file"):
            read_gguf(path)
