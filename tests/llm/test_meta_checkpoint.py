"""Meta's layout of quantized Llama 3.2: small checkpoints of both kinds, against the formulas."""

import base64
import json

import numpy as np
import pytest
import tiny

from graphopt.compiler.options import Options
from graphopt.errors import ModelFileError, UnsupportedDecoderError
from graphopt.llm.compiled import compile_decoder
from graphopt.llm.decoder.matrices import AdaptedMatrix, BlockMatrix, ByteMatrix, RotatedMatrix
from graphopt.llm.generate.sampling import Sampler
from graphopt.llm.package import compile_llm, load_chat
from graphopt.llm.readers.meta_checkpoint import is_meta_checkpoint, read_meta_checkpoint
from graphopt.llm.readers.meta_tokenizer import read_meta_tokenizer
from graphopt.llm.readers.transformers_model import read_decoder

torch = pytest.importorskip("torch")

_NAMES = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
_RANK, _SCALE = 4, 2.0


def hadamard(width):
    """By the recursion, whole."""
    matrix = np.ones((1, 1))
    while len(matrix) < width:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (matrix / np.sqrt(width)).astype(np.float32)


def quantized(array, group, top):
    """Values and scales by plain rounding."""
    blocks = array.reshape(len(array), -1, group)
    scale = torch.tensor(np.abs(blocks).max(-1) / top).to(torch.bfloat16)
    q = np.rint(blocks / scale.float().numpy()[..., None]).clip(-top - 1, top)
    return torch.tensor(q.reshape(array.shape).astype(np.int8)), scale


def write(model, folder, lora=False, spinquant=False):
    """The model as Meta would publish it; changes it to what the files stand for."""
    random = np.random.default_rng(0)
    config, tensors = model.config, {}
    for name, parameter in model.state_dict().items():
        array = parameter.numpy()
        if array.ndim == 1:
            tensors[_outer(name)] = parameter.clone()
            continue
        target = _outer(name).removesuffix(".weight")
        group = 32 if target.startswith("layers.") else array.shape[1]
        rows = array
        if target.endswith(("wq", "wk")):
            heads = len(array) // config.head_dim
            rows = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        if spinquant and target.endswith("w2"):
            rows = rows @ hadamard(rows.shape[1])
        q, scale = quantized(rows, group, 7 if group == 32 else 127)
        tensors |= {f"{target}.weight": q, f"{target}.scales": scale}
        stands = q.numpy() * np.repeat(scale.float().numpy(), group, 1)
        if lora and target.startswith("layers."):
            a, b = (
                random.standard_normal((_RANK, rows.shape[1])),
                random.standard_normal((len(rows), _RANK)),
            )
            a, b = (torch.tensor(0.05 * x).to(torch.bfloat16) for x in (a, b))
            tensors |= {f"{target}.adaptor.A.weight": a, f"{target}.adaptor.B.weight": b}
            stands = stands + _SCALE * (b.float() @ a.float()).numpy()
        if spinquant and target.endswith("w2"):
            stands = stands @ hadamard(rows.shape[1])
        if target.endswith(("wq", "wk")):
            stands = stands.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
        parameter.copy_(torch.tensor(stands))
    parameters = {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "use_scaled_rope": config.rope_parameters["rope_type"] == "llama3",
        "vocab_size": config.vocab_size,
        "quantization_args": {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 32},
    }
    if spinquant:
        parameters["quantization_args"]["spinquant"] = True
    if lora:
        parameters["lora_args"] = {"rank": _RANK, "scale": _SCALE}
    folder.mkdir(exist_ok=True)
    (folder / "params.json").write_text(json.dumps(parameters))
    torch.save(tensors, folder / "consolidated.00.pth")


def _outer(name):
    outer = {
        "model.embed_tokens.weight": "tok_embeddings.weight",
        "model.norm.weight": "norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in outer:
        return outer[name]
    _, _, layer, rest = name.split(".", 3)
    return f"layers.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def write_tokenizer(folder):
    """256 bytes and a few merges."""
    tokens = [bytes([i]) for i in range(256)] + [b"he", b"ll", b"hell", b"hello", b" w"]
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)]
    (folder / "tokenizer.model").write_text("\n".join(lines) + "\n")


@pytest.fixture
def model():
    rope = {**tiny.LLAMA3_ROPE, "factor": 32.0, "original_max_position_embeddings": 8192}
    return tiny.model(intermediate_size=128, tie_word_embeddings=False, rope_parameters=rope)


@pytest.mark.parametrize("kind", ["spinquant", "lora"])
def test_what_comes_is_multiplied_as_it_is(model, tmp_path, kind):
    with torch.no_grad():
        write(model, tmp_path, **{kind: True})
    weights, wanted = read_meta_checkpoint(tmp_path), read_decoder(model)
    assert is_meta_checkpoint(tmp_path)
    layer = weights.layers[0]
    assert isinstance(layer.down, RotatedMatrix if kind == "spinquant" else AdaptedMatrix)
    assert isinstance(layer.qkv, BlockMatrix if kind == "spinquant" else AdaptedMatrix)
    assert isinstance(weights.embedding, ByteMatrix) and isinstance(weights.head, ByteMatrix)
    np.testing.assert_allclose(weights.frequencies, wanted.frequencies, rtol=1e-5)
    for name in ("qkv", "output", "gate_up", "down"):
        got = getattr(layer, name).dense()
        np.testing.assert_allclose(got, getattr(wanted.layers[0], name), atol=2e-6)
    ids = tiny.prompts(2, 20).numpy()
    logits = model(torch.tensor(ids)).logits.detach().numpy().reshape(40, -1)
    for precision, bits, bound in (("fp32", 8, 1e-6), ("int4", 16, 1e-4), ("int4", 8, 0.05)):
        program, engine = compile_decoder(
            weights, Options.of(precision=precision, activation_bits=bits, num_threads=2)
        )
        got = engine.forward(ids, engine.new_cache(2), np.arange(40))
        assert kl(logits, got) < bound, precision
    schemes = {
        n.origin.module: str(n.op.format)
        for n in program.graph.nodes
        if getattr(n.op, "format", None)
    }
    assert schemes["head"] == schemes["embedding"] == "int8"
    assert schemes["layers.1.feed_forward.down"] == "int4"


def kl(exact, got):
    a, b = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (exact, got))
    return (np.exp(a) * (a - b)).sum(-1).mean()


def test_the_command_makes_a_package_of_it(tmp_path):
    made = tiny.model(intermediate_size=128, tie_word_embeddings=False, vocab_size=261 + 256)
    with torch.no_grad():
        write(made, tmp_path / "m", spinquant=True)
    write_tokenizer(tmp_path / "m")
    summary = compile_llm(tmp_path / "m", tmp_path / "m.gopt", Options.of(precision="int4"))
    assert 0 < summary.head_bytes < summary.bytes
    chat = load_chat(tmp_path / "m.gopt", 1)
    said = list(chat.answer([{"role": "user", "content": "hello"}], Sampler(0.0), 3))
    assert all(isinstance(piece, str) for piece in said)


def test_tokenizer(tmp_path):
    write_tokenizer(tmp_path)
    tokenizer = read_meta_tokenizer(tmp_path)
    bos = 261
    assert tokenizer.encode("hello w") == [bos, 259, 260]
    assert tokenizer.encode("hel") == [bos, 256, ord("l")]
    assert tokenizer.decode(tokenizer.encode("é\n hello")) == "é\n hello"
    ids = tokenizer.encode_chat([{"role": "user", "content": " hello "}])
    assert ids[0] == bos and ids.count(259) == 1 and bos + 9 in ids
    assert tokenizer.chat.ends == (bos + 1, bos + 8, bos + 9)
    (tmp_path / "tokenizer.model").write_text("no base64 at all\n")
    with pytest.raises(ModelFileError, match="no tokens with ranks"):
        read_meta_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(ModelFileError, match=r"no tokenizer.model"):
        read_meta_tokenizer(tmp_path)


def test_checkpoints_that_are_none(model, tmp_path):
    with torch.no_grad():
        write(model, tmp_path)
    whole = (tmp_path / "consolidated.00.pth").read_bytes()
    tensors = torch.load(tmp_path / "consolidated.00.pth")

    def refused(match, **changes):
        torch.save({**tensors, **changes}, tmp_path / "consolidated.00.pth")
        with pytest.raises(ModelFileError, match=match):
            read_meta_checkpoint(tmp_path)

    name = "layers.0.attention.wo"
    refused("not 4 bits", **{f"{name}.weight": tensors[f"{name}.weight"] * 5})
    refused("do not fit", **{f"{name}.scales": tensors[f"{name}.scales"][:, :1].expand(-1, 3)})
    refused("not 4 bits", **{f"{name}.scales": tensors[f"{name}.scales"].repeat(1, 2)})
    (tmp_path / "consolidated.00.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError, match="no whole checkpoint"):
        read_meta_checkpoint(tmp_path)
    (tmp_path / "consolidated.00.pth").write_bytes(whole)
    parameters = json.loads((tmp_path / "params.json").read_text())
    for changed in (
        {"n_heads": "x"},
        {"dim": -64},
        {"norm_eps": "small"},
        {"use_scaled_rope": 1},
        {"vocab_size": 100},
        {"multiple_of": 100, "ffn_dim_multiplier": 1.0},
        {"quantization_args": [3]},
    ):
        (tmp_path / "params.json").write_text(json.dumps({**parameters, **changed}))
        with pytest.raises(ModelFileError):
            read_meta_checkpoint(tmp_path)
    (tmp_path / "params.json").write_text(json.dumps(parameters))
    parameters["quantization_args"]["scheme"] = "fp8"
    (tmp_path / "params.json").write_text(json.dumps(parameters))
    with pytest.raises(ModelFileError, match="'fp8'"):
        read_meta_checkpoint(tmp_path)
    (tmp_path / "params.json").write_text("{")
    with pytest.raises(ModelFileError, match="makes no sense"):
        read_meta_checkpoint(tmp_path)


def test_what_nothing_reads_is_refused(model, tmp_path):
    with torch.no_grad():
        write(model, tmp_path, lora=True)
    parameters = json.loads((tmp_path / "params.json").read_text())
    group = {**parameters["quantization_args"], "zero_points": "dynamic"}
    for changed, name in (
        ({"moe_args": {"num_experts": 4}}, "moe_args"),
        ({"attention_chunk_size": 32}, "attention_chunk_size"),
        ({"quantization_args": group}, "zero_points"),
    ):
        (tmp_path / "params.json").write_text(json.dumps({**parameters, **changed}))
        with pytest.raises(UnsupportedDecoderError, match=name):
            read_meta_checkpoint(tmp_path)
    (tmp_path / "params.json").write_text(json.dumps({**parameters, "vision_chunk_size": None}))
    read_meta_checkpoint(tmp_path)
    tensors = torch.load(tmp_path / "consolidated.00.pth")
    tensors["layers.0.attention.wo.bias"] = torch.zeros(64)
    torch.save(tensors, tmp_path / "consolidated.00.pth")
    with pytest.raises(UnsupportedDecoderError, match=r"layers\.0\.attention\.wo\.bias"):
        read_meta_checkpoint(tmp_path)


def test_the_scaling_of_llama_3_1_is_that_of_wide_models(tmp_path, monkeypatch):
    """Meta's files say that a rotary embedding is scaled, not by how much."""
    monkeypatch.setattr("graphopt.llm.readers.meta_checkpoint._LARGE", 128)
    rope = {**tiny.LLAMA3_ROPE, "original_max_position_embeddings": 8192}
    for hidden, factor in ((64, 32.0), (128, 8.0)):
        sizes = {"hidden_size": hidden, "intermediate_size": 32, "num_hidden_layers": 1}
        made = tiny.model(**sizes, head_dim=hidden // 4, rope_parameters={**rope, "factor": factor})
        with torch.no_grad():
            write(made, tmp_path)
        got = read_meta_checkpoint(tmp_path).frequencies
        np.testing.assert_allclose(got, read_decoder(made).frequencies, rtol=1e-5)
