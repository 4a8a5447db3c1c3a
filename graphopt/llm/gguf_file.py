"""Decoders in GGUF files, the format of llama.cpp.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Blocks of 32 values: Q4_0 holds
d * (q - 8), Q4_1 d * q + m, Q8_0 d * q, with d and m in f16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import MissingDependencyError, ModelFileError
from graphopt.kernels.reference import bf16_from_f32
from graphopt.llm.decoder import DecoderShape, DecoderWeights, LayerWeights
from graphopt.llm.gguf_tokenizer import gguf_tokenizer
from graphopt.llm.matrices import BlockMatrix, ByteMatrix, Matrix, split_pairs, stack_rows
from graphopt.llm.sizes import misfit
from graphopt.llm.tokenizer import Tokenizer

Array = np.ndarray[Any, Any]

_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_KINDS = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0")
_BLOCK = 32


def read_gguf(path: str | Path, as_blocks: bool = True) -> DecoderWeights:
    """The decoder of a GGUF file; see `GgufFile`."""
    return GgufFile(path).weights(as_blocks)


class GgufFile:
    """A decoder with its tokenizer.

    Args:
        path: a GGUF file.

    Raises:
        ModelFileError: for a file that is damaged or of another architecture.
        MissingDependencyError: without the `gguf` package.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            from gguf import GGUFReader
        except ImportError:
            raise MissingDependencyError("gguf", "reading GGUF", "pip install gguf") from None
        try:
            reader = GGUFReader(path)
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise ModelFileError(path, f"it is no whole GGUF file ({error})") from error
        self._path, self._as_blocks = Path(path), True
        self._fields = reader.fields
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._arch = str(self._value("general.architecture"))
        if self._arch not in _ARCHITECTURES:
            known = ", ".join(_ARCHITECTURES)
            raise ModelFileError(path, f"its architecture is {self._arch!r}, not one of {known}")

    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            ModelFileError: if the file has none, or one of another kind than byte-level BPE.
            MissingDependencyError: without the `tokenizers` package.
        """
        wanted = [key for key in self._fields if key.startswith("tokenizer.")]
        return gguf_tokenizer(self._path, {key: self._fields[key].contents() for key in wanted})

    def weights(self, as_blocks: bool = True) -> DecoderWeights:
        """The whole decoder.

        Args:
            as_blocks: keep the values of Q4_0 and Q4_1, with scales rounded to bf16, and those of
                Q8_0; otherwise everything becomes f32.

        Raises:
            ModelFileError: for a tensor that is missing, of another quantization or of another size
                than the file says.
        """
        self._as_blocks = as_blocks
        try:
            weights = self._weights()
        except ModelFileError:
            raise
        except (ValueError, ArithmeticError) as error:
            raise ModelFileError(self._path, f"its sizes do not fit ({error})") from error
        wrong = misfit(weights)
        if wrong:
            raise ModelFileError(self._path, wrong)
        return weights

    def _weights(self) -> DecoderWeights:
        heads = int(self._of_arch("attention.head_count"))
        hidden = int(self._of_arch("embedding_length"))
        embedding = self._matrix("token_embd.weight")
        self._shape = DecoderShape(
            hidden=hidden,
            heads=heads,
            kv_heads=int(self._of_arch("attention.head_count_kv", heads)),
            head_dim=int(self._of_arch("attention.key_length", hidden // heads)),
            intermediate=int(self._of_arch("feed_forward_length")),
            vocabulary=int(self._tensor("token_embd.weight").data.shape[0]),
            context=int(self._of_arch("context_length")),
            epsilon=float(self._of_arch("attention.layer_norm_rms_epsilon")),
        )
        layers = [self._layer(f"blk.{i}") for i in range(int(self._of_arch("block_count")))]
        tied = "output.weight" not in self._tensors
        return DecoderWeights(
            name=self._arch,
            shape=self._shape,
            frequencies=self._frequencies(),
            attention_factor=1.0,
            embedding=embedding,
            layers=layers,
            norm=self._array("output_norm.weight"),
            head=embedding if tied else self._matrix("output.weight"),
        )

    def _frequencies(self) -> Array:
        scaling = self._of_arch("rope.scaling.type", "none")
        if scaling != "none":
            raise ModelFileError(self._path, f"its rotary embedding is scaled by {scaling!r}")
        dim = self._shape.head_dim
        base = np.float32(self._of_arch("rope.freq_base", 10000.0))
        powers = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
        frequencies: Array = (1 / base**powers).astype(np.float32)
        if "rope_freqs.weight" in self._tensors:  # the factors of Llama 3
            frequencies = frequencies / self._array("rope_freqs.weight")
        return frequencies

    def _layer(self, where: str) -> LayerWeights:
        heads = {"q": self._shape.heads, "k": self._shape.kv_heads, "v": 0}
        parts = [self._matrix(f"{where}.attn_{n}.weight", h) for n, h in heads.items()]
        biased = f"{where}.attn_q.bias" in self._tensors
        biases = [self._array(f"{where}.attn_{n}.bias") for n in heads] if biased else []
        return LayerWeights(
            attention_norm=self._array(f"{where}.attn_norm.weight"),
            qkv=stack_rows(parts),
            output=self._matrix(f"{where}.attn_output.weight"),
            feed_forward_norm=self._array(f"{where}.ffn_norm.weight"),
            gate_up=stack_rows([self._matrix(f"{where}.ffn_{n}.weight") for n in ("gate", "up")]),
            down=self._matrix(f"{where}.ffn_down.weight"),
            qkv_bias=np.concatenate(biases) if biased else None,
            query_norm=self._optional(f"{where}.attn_q_norm.weight"),
            key_norm=self._optional(f"{where}.attn_k_norm.weight"),
        )

    def _matrix(self, name: str, heads: int = 0) -> Matrix:
        """A matrix; rows of query and key of llama, which have `heads`, in transformers' order."""
        matrix = self._stored(name)
        return split_pairs(matrix, heads) if heads and self._arch == "llama" else matrix

    def _stored(self, name: str) -> Matrix:
        tensor = self._tensor(name)
        kind = tensor.tensor_type.name
        data, width = np.asarray(tensor.data), int(tensor.shape[1])
        if self._as_blocks and kind == "Q8_0":
            return ByteMatrix(*_int8_blocks(data, width))
        if self._as_blocks and kind in ("Q4_0", "Q4_1"):
            return BlockMatrix(*_int4_blocks(data, kind, width))
        return self._array(name)

    def _array(self, name: str) -> Array:
        """A tensor as f32."""
        from gguf import quants

        tensor = self._tensor(name)
        array: Array = quants.dequantize(tensor.data, tensor.tensor_type)
        return np.ascontiguousarray(array, np.float32)

    def _optional(self, name: str) -> Array | None:
        return self._array(name) if name in self._tensors else None

    def _tensor(self, name: str) -> Any:
        if name not in self._tensors:
            raise ModelFileError(self._path, f"it has no tensor {name!r}")
        tensor = self._tensors[name]
        kind = tensor.tensor_type.name
        if kind not in _KINDS:
            known = ", ".join(_KINDS)
            raise ModelFileError(self._path, f"{name} is quantized as {kind}, not one of {known}")
        return tensor

    def _of_arch(self, key: str, default: Any = None) -> Any:
        return self._value(f"{self._arch}.{key}", default)

    def _value(self, key: str, default: Any = None) -> Any:
        field = self._fields.get(key)
        if field is not None:
            try:
                return field.contents()
            except (ValueError, IndexError) as error:
                raise ModelFileError(self._path, f"{key!r} is damaged ({error})") from error
        if default is None:
            raise ModelFileError(self._path, f"it does not say {key!r}")
        return default


def _int4_blocks(data: Array, kind: str, width: int) -> tuple[Array, Array, Array | None]:
    """Values q - 8, scales in bf16 bits and, for Q4_1, what a block adds: d q + m."""
    header = 4 if kind == "Q4_1" else 2
    raw = data.reshape(-1, header + _BLOCK // 2)
    constants = raw[:, :header].copy().view(np.float16).astype(np.float32)
    nibbles = raw[:, header:]
    q = np.concatenate([nibbles & 15, nibbles >> 4], 1).astype(np.int8) - np.int8(8)
    scale = constants[:, 0]
    least = None if kind == "Q4_0" else (constants[:, 1] + 8 * scale).reshape(width, -1)
    return q.reshape(width, -1), bf16_from_f32(scale).reshape(width, -1), least


def _int8_blocks(data: Array, width: int) -> tuple[Array, Array]:
    """Values and f32 scales."""
    raw = data.reshape(-1, 2 + _BLOCK)
    scale = raw[:, :2].copy().view(np.float16).astype(np.float32)
    return raw[:, 2:].view(np.int8).reshape(width, -1), scale.reshape(width, -1)
