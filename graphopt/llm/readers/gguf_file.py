"""Decoders in GGUF files, the format of llama.cpp.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Blocks of 32 values: Q4_0 holds
d * (q - 8), Q4_1 d * q + m, Q8_0 d * q, with d and m in f16.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graphopt.dependencies import require
from graphopt.errors import GraphoptError, ModelFileError
from graphopt.kernels.reference import bf16_from_f32
from graphopt.llm.architectures.table import IN_GGUF
from graphopt.llm.decoder.graph import DecoderShape, DecoderWeights
from graphopt.llm.decoder.matrices import BlockMatrix, ByteMatrix, Matrix
from graphopt.llm.decoder.sizes import misfit
from graphopt.llm.decoder.traits import Traits
from graphopt.llm.generate.tokenizer import Tokenizer
from graphopt.llm.readers.gguf_header import check_header
from graphopt.llm.readers.gguf_tokenizer import gguf_tokenizer
from graphopt.llm.readers.layers import HeadOrder, limited, pair_frequencies, read_layers
from graphopt.llm.readers.ledger import Ledger
from graphopt.runtime.fields import Amount, Count, FieldError, Size, read_fields

Array = np.ndarray[Any, Any]

_KINDS = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0")
_BLOCK = 32
_SHORT, _LONG = "rope_factors_short.weight", "rope_factors_long.weight"
_REQUIRED = object()
#: Keys that say nothing about what is computed: descriptions, how a file was made, hints for
#: sampling, and the tokenizer, whose reader accounts for its own.
_HARMLESS_KEYS = (
    "general.*",
    "mradermacher.*",
    "quantize.*",
    "split.*",
    "tokenizer.*",
    "*.rope.scaling.finetuned",
)


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
        gguf = require("gguf", "reading GGUF")
        self._path = Path(path)
        check_header(self._path)
        try:
            reader = gguf.GGUFReader(path)
        except Exception as error:  # of the package or numpy, as the damage has it
            raise ModelFileError(path, f"it is no whole GGUF file ({error})") from error
        made = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count")  # by the package
        self._fields = {key: field for key, field in reader.fields.items() if key not in made}
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}

    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            ModelFileError: if the file has none, or one of another kind than byte-level BPE.
            MissingDependencyError: without the `tokenizers` package.
        """
        wanted = [key for key in self._fields if key.startswith("tokenizer.")]
        return gguf_tokenizer(self._path, {key: self._content(key) for key in wanted})

    def weights(self, as_blocks: bool = True, context: int | None = None) -> DecoderWeights:
        """The whole decoder.

        Args:
            as_blocks: keep the values of Q4_0 and Q4_1, with scales rounded to bf16, and those of
                Q8_0; otherwise everything becomes f32.
            context: largest number of positions; as the file says if None.

        Raises:
            ModelFileError: for a tensor that is missing, of another quantization or of another size
                than the file says, and for a key that makes no sense.
            UnsupportedDecoderError: for a key or a tensor that no rule reads, or that says what the
                graph cannot express.
            OptionError: for a context that the model does not have.
        """
        contents = {key: self._content(key) for key in self._fields}
        return _GgufDecoder(self._path, contents, self._tensors, as_blocks).read(context)

    def _content(self, key: str) -> Any:
        try:
            return self._fields[key].contents()
        except Exception as error:  # of the package or numpy, as the damage has it
            raise ModelFileError(self._path, f"{key!r} is damaged ({error})") from error


class _GgufDecoder:
    """Reads a decoder once, and accounts for every key and tensor."""

    def __init__(
        self, path: Path, keys: dict[str, Any], tensors: dict[str, Any], as_blocks: bool
    ) -> None:
        self._path, self._as_blocks = path, as_blocks
        self._keys = Ledger(keys, _HARMLESS_KEYS)
        self._tensors = Ledger(tensors)
        self._arch = self._key("general.architecture", str)
        if self._arch not in IN_GGUF:
            known = ", ".join(IN_GGUF)
            raise ModelFileError(path, f"its architecture is {self._arch!r}, not one of {known}")
        self._architecture = IN_GGUF[self._arch]

    def read(self, context: int | None) -> DecoderWeights:
        """The decoder, all of it."""
        if self._key("split.count", Count, 1) > 1:
            raise ModelFileError(self._path, "it is one of several parts (gguf-split --merge)")
        try:
            weights = self._weights(context)
        except GraphoptError:
            raise
        except (ValueError, TypeError, ArithmeticError, MemoryError) as error:
            raise ModelFileError(self._path, f"its sizes do not fit ({error})") from error
        unread = (
            *(f"key {key!r}" for key in self._keys.left()),
            *(f"tensor {name!r}" for name in self._tensors.left()),
        )
        traits = replace(weights.traits, unread=unread)
        self._architecture.check(str(self._path), traits, weights.shape)
        wrong = misfit(weights)
        if wrong:
            raise ModelFileError(self._path, wrong)
        return weights

    def _weights(self, context: int | None) -> DecoderWeights:
        heads = self._of_arch("attention.head_count", Size)
        hidden = self._of_arch("embedding_length", Size)
        embedding = self.matrix("token_embd")
        rows = int(self._tensor("token_embd.weight").shape[1])
        shape = DecoderShape(
            hidden=hidden,
            heads=heads,
            kv_heads=self._of_arch("attention.head_count_kv", Size, heads),
            head_dim=self._of_arch("attention.key_length", Size, hidden // heads),
            intermediate=self._of_arch("feed_forward_length", Size),
            vocabulary=self._of_arch("vocab_size", Size, rows),
            context=limited(self._of_arch("context_length", Size), context),
            epsilon=self._of_arch("attention.layer_norm_rms_epsilon", Amount),
        )
        architecture, names = self._architecture, self._architecture.gguf
        assert names is not None
        places = [f"blk.{i}" for i in range(self._of_arch("block_count", Size))]
        rotated = self._of_arch("rope.dimension_count", Count, shape.head_dim)
        order = HeadOrder(rotated, names.interleaved)
        layers = read_layers(self, architecture, names.layer, places, shape, order)
        scaling = self._of_arch("rope.scaling.type", str, "linear")
        return DecoderWeights(
            name=self._arch,
            shape=shape,
            frequencies=pair_frequencies(self._frequencies(scaling, rotated), shape),
            attention_factor=self._of_arch("rope.scaling.attn_factor", Amount, 1.0),
            embedding=embedding,
            layers=layers,
            norm=self.array("output_norm.weight"),
            head=embedding if "output.weight" not in self else self.matrix("output"),
            traits=self._traits(scaling, rotated),
            graph_class=architecture.graph_class,
        )

    def _frequencies(self, scaling: str, rotated: int) -> Array:
        """Radians per position; a factor without a type is of linear scaling, as in llama.cpp."""
        factor = self._of_arch("rope.scale_linear", Amount, 0.0)
        factor = self._of_arch("rope.scaling.factor", Amount, factor) or 1.0
        base = np.float32(self._of_arch("rope.freq_base", Amount, 10000.0))
        powers = np.arange(0, rotated, 2, dtype=np.float32) / np.float32(rotated)
        frequencies: Array = (1 / base**powers).astype(np.float32)
        if scaling == "linear":
            frequencies = frequencies / np.float32(factor)
        if "rope_freqs.weight" in self:  # the factors of Llama 3
            frequencies = frequencies / self.array("rope_freqs.weight")
        if self._is_long():
            frequencies = frequencies / self.array(_SHORT)
        return frequencies

    def _is_long(self) -> bool:
        """Whether the file has the factors of LongRoPE; those of long prompts are not computed."""
        found = _SHORT in self and _LONG in self
        if found:
            self._tensor(_LONG)
        return found

    def _traits(self, scaling: str, rotated: int) -> Traits:
        """What the file says beyond sizes; zero stands for what is left out, as in llama.cpp."""
        of_arch, none = self._of_arch, float
        of_arch("tensor_data_layout", Literal["Meta AI original pth"], "Meta AI original pth")
        self._key("general.type", Literal["model"], "model")
        trained = of_arch("rope.scaling.original_context_length", Count, 0)
        known = "longrope" if self._is_long() else "default"
        return Traits(
            rotary=known if scaling in ("none", "linear") else f"{scaling} scaling",
            rotary_width=rotated,
            rotary_reach=trained if self._is_long() else None,
            value_width=of_arch("attention.value_length", Count, None),
            window=of_arch("attention.sliding_window", Count, 0) or None,
            attention_scale=of_arch("attention.scale", none, 0.0) or None,
            attention_softcap=of_arch("attn_logit_softcapping", none, 0.0),
            attention_clamp=of_arch("attention.clamp_kqv", none, 0.0),
            attention_bias=of_arch("attention.max_alibi_bias", none, 0.0),
            is_causal=of_arch("attention.causal", bool, True),
            embedding_scale=of_arch("embedding_scale", none, 0.0) or 1.0,
            residual_scale=of_arch("residual_scale", none, 0.0) or 1.0,
            logit_scale=of_arch("logit_scale", none, 0.0) or 1.0,
            logit_softcap=of_arch("final_logit_softcapping", none, 0.0),
            experts=of_arch("expert_count", Count, 0) or of_arch("expert_used_count", Count, 0),
            is_parallel=of_arch("use_parallel_residual", bool, False),
        )

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def matrix(self, name: str) -> Matrix:
        """The weight of a linear or an embedding."""
        name = f"{name}.weight"
        tensor = self._tensor(name)
        kind = tensor.tensor_type.name
        if len(tensor.shape) != 2:
            raise ModelFileError(self._path, f"{name} has {len(tensor.shape)} axes, not 2")
        data, width = np.asarray(tensor.data), int(tensor.shape[1])
        if self._as_blocks and kind == "Q8_0":
            return ByteMatrix(*_int8_blocks(data, width))
        if self._as_blocks and kind in ("Q4_0", "Q4_1"):
            return BlockMatrix(*_int4_blocks(data, kind, width))
        return self.array(name)

    def array(self, name: str) -> Array:
        """A tensor as f32."""
        from gguf import quants

        tensor = self._tensor(name)
        array: Array = quants.dequantize(tensor.data, tensor.tensor_type)
        return np.ascontiguousarray(array, np.float32)

    def _tensor(self, name: str) -> Any:
        tensor = self._tensors.take(name, None)
        if tensor is None:
            raise ModelFileError(self._path, f"it has no tensor {name!r}")
        kind = tensor.tensor_type.name
        if kind not in _KINDS:
            known = ", ".join(_KINDS)
            raise ModelFileError(self._path, f"{name} is quantized as {kind}, not one of {known}")
        return tensor

    def _of_arch(self, key: str, kind: Any, default: Any = _REQUIRED) -> Any:
        return self._key(f"{self._arch}.{key}", kind, default)

    def _key(self, key: str, kind: Any, default: Any = _REQUIRED) -> Any:
        if key not in self._keys:
            if default is _REQUIRED:
                raise ModelFileError(self._path, f"it does not say {key!r}")
            return default
        try:
            return read_fields(kind, self._keys.take(key), key)
        except FieldError as error:
            raise ModelFileError(self._path, str(error)) from error


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
