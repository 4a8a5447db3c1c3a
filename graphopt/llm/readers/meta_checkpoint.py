"""Decoders in Meta's own layout of Llama 3: `consolidated.00.pth` and `params.json`.

The quantized Llama 3.2 (SpinQuant, QLoRA) hold the linears of layers as int8 tensors with values
of 4 bits, `scales` [out, in / group] and maybe `zeros`, the embedding and the head as int8 with
`scales` [rows, 1]. QLoRA adds `adaptor.A` and `adaptor.B`, SpinQuant a Hadamard transform in front
of `w2`. Names and meaning: models/llama3/args.py and quantization/loader.py of Meta's llama-models,
and examples/models/llama of ExecuTorch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np

from graphopt.errors import GraphoptError, ModelFileError
from graphopt.kernels.reference import bf16_from_f32
from graphopt.llm.architectures.llama import LLAMA
from graphopt.llm.decoder.graph import DecoderShape, DecoderWeights
from graphopt.llm.decoder.matrices import (
    AdaptedMatrix,
    BlockMatrix,
    ByteMatrix,
    Matrix,
    RotatedMatrix,
    dense,
)
from graphopt.llm.decoder.sizes import misfit
from graphopt.llm.decoder.traits import Traits
from graphopt.llm.readers.layers import HeadOrder, limited, read_layers
from graphopt.llm.readers.ledger import Ledger
from graphopt.plain_files import read_plain
from graphopt.runtime.fields import Amount, FieldError, Range, Size, parse_json, read_fields

Array = np.ndarray[Any, Any]

_PARAMETERS, _WEIGHTS = "params.json", "consolidated.00.pth"
_SCHEME = "int4_weight_int8_dynamic_activation"
#: Of the scaled rotary embedding of Llama 3.2 (its model card and configuration).
_ROPE_FACTOR, _LOW, _HIGH, _TRAINED = 32.0, 1.0, 4.0, 8192
#: Of Llama 3.1, whose models are of this width or wider; both write only `use_scaled_rope`.
_LARGE_ROPE_FACTOR, _LARGE = 8.0, 4096
_CONTEXT, _QUANTIZED_CONTEXT = 131072, 8192
_REQUIRED = object()
_Vocabulary = Annotated[int, Range(-1, 2**31 - 1)]  # -1 where the tokenizer says it
_HARMLESS_PARAMETERS = ("max_batch_size", "max_seq_len")
#: Frequencies that some checkpoints keep beside the number that they follow from.
_HARMLESS_TENSORS = ("rope.freqs",)


def is_meta_checkpoint(folder: Path) -> bool:
    """Whether a folder has the two files."""
    return all((folder / name).is_file() for name in (_PARAMETERS, _WEIGHTS))


def read_meta_checkpoint(
    folder: Path, as_blocks: bool = True, context: int | None = None
) -> DecoderWeights:
    """The decoder of a folder in Meta's layout.

    Args:
        folder: holds `params.json` and `consolidated.00.pth`.
        as_blocks: keep quantized values, with the scales of 4-bit blocks rounded to bf16;
            otherwise everything becomes f32.
        context: largest number of positions; all that such a model has if None.

    Raises:
        ModelFileError: for a file that is damaged, in several parts, of another scheme, or whose
            tensors have other sizes than `params.json` says.
        OptionError: for a context that the model does not have.
    """
    checkpoint = _Checkpoint(folder, as_blocks)
    try:
        weights = checkpoint.weights(context)
    except GraphoptError:
        raise
    except (ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise ModelFileError(folder / _WEIGHTS, f"its sizes do not fit ({error})") from error
    wrong = misfit(weights)
    if wrong:
        raise ModelFileError(folder / _WEIGHTS, wrong)
    return weights


class _Checkpoint:
    def __init__(self, folder: Path, as_blocks: bool) -> None:
        import torch

        self._path, self._as_blocks = folder / _WEIGHTS, as_blocks
        if (folder / "consolidated.01.pth").exists():
            raise ModelFileError(folder, "its weights are in several parts, not one")
        self._parameters = _read_parameters(folder / _PARAMETERS)
        quantization = self._part("quantization_args")
        self._quantized = quantization is not None
        self._rotated, self._lora_scale, self._group = False, 1.0, None
        if quantization is not None:
            scheme = self._say("scheme", str, _SCHEME, quantization)
            if scheme != _SCHEME:
                raise ModelFileError(folder, f"it is quantized as {scheme!r}, not {_SCHEME!r}")
            self._rotated = self._say("spinquant", bool, False, quantization)
            self._group = self._say("group_size", Size, None, quantization)
        lora = self._part("lora_args")
        self._rank = None
        if lora is not None:
            self._lora_scale = self._say("scale", float, 1.0, lora)
            self._rank = self._say("rank", Size, None, lora)
        self._parts = [part for part in (quantization, lora) if part is not None]
        try:
            tensors = torch.load(self._path, map_location="cpu", weights_only=True, mmap=True)
            named = {str(name): tensor for name, tensor in dict(tensors).items()}
        except Exception as error:  # of torch, pickle or zipfile, as the damage has it
            raise ModelFileError(self._path, f"it is no whole checkpoint ({error})") from error
        for name, tensor in named.items():
            if not isinstance(tensor, torch.Tensor):
                raise ModelFileError(self._path, f"{name} is a {type(tensor).__name__}")
        self._tensors = Ledger(named, _HARMLESS_TENSORS)

    def weights(self, context: int | None) -> DecoderWeights:
        """Everything."""
        embedding = self.matrix("tok_embeddings")
        heads, hidden = self._say("n_heads", Size), self._say("dim", Size)
        count = self._say("n_layers", Size)
        scaled = self._say("use_scaled_rope", bool, False)
        intermediate = int(self._tensor("layers.0.feed_forward.w1.weight").shape[0])
        rows = int(self._tensor("tok_embeddings.weight").shape[0])
        said = self._say("vocab_size", _Vocabulary, -1)
        positions = _CONTEXT if scaled and not self._quantized else _QUANTIZED_CONTEXT
        shape = DecoderShape(
            hidden=hidden,
            heads=heads,
            kv_heads=self._say("n_kv_heads", Size | None, None) or heads,
            head_dim=hidden // heads,
            intermediate=self._intermediate(hidden, intermediate),
            vocabulary=rows if said == -1 else said,
            context=limited(positions, context),
            epsilon=self._say("norm_eps", Amount, 1e-5),
        )
        assert LLAMA.meta is not None
        places, order = [f"layers.{i}" for i in range(count)], HeadOrder(interleaved=True)
        weights = DecoderWeights(
            name="llama",
            shape=shape,
            frequencies=self._frequencies(shape, scaled),
            attention_factor=1.0,
            embedding=embedding,
            layers=read_layers(self, LLAMA, LLAMA.meta, places, shape, order),
            norm=self.array("norm.weight"),
            head=embedding if "output.weight" not in self else self.matrix("output"),
            graph_class=LLAMA.graph_class,
        )
        LLAMA.check(str(self._path.parent), self._traits(), shape)
        return weights

    def _traits(self) -> Traits:
        """What nothing reads."""
        settings = [name for part in (self._parameters, *self._parts) for name in part.left()]
        return Traits(
            unread=(
                *(f"setting {name!r}" for name in settings),
                *(f"tensor {name!r}" for name in self._tensors.left()),
            )
        )

    def _intermediate(self, hidden: int, found: int) -> int:
        """Width of the feed-forward layer, by the rule of Meta's code if its numbers are there."""
        multiple = self._say("multiple_of", Size, None)
        factor = self._say("ffn_dim_multiplier", Amount | None, None)
        if multiple is None:
            return found
        width = int(2 * 4 * hidden / 3)
        width = width if factor is None else int(factor * width)
        return int(multiple * -(-width // multiple))

    def _part(self, name: str) -> Ledger | None:
        """Settings within settings."""
        found = self._say(name, dict[str, Any] | None, None)
        return _said(found) if found else None

    def _say(
        self, name: str, kind: Any, default: Any = _REQUIRED, part: Ledger | None = None
    ) -> Any:
        settings = self._parameters if part is None else part
        path = self._path.with_name(_PARAMETERS)
        if name not in settings:
            if default is _REQUIRED:
                raise ModelFileError(path, f"it does not say {name!r}")
            return default
        try:
            return read_fields(kind, settings.take(name), name)
        except FieldError as error:
            raise ModelFileError(path, str(error)) from error

    def _rotate(self, down: Matrix) -> Matrix:
        if not isinstance(down, BlockMatrix) or down.q.shape[1] & (down.q.shape[1] - 1):
            raise ModelFileError(
                self._path, "its w2 is rotated, but no power of two in 4 bits deep"
            )
        rotated = RotatedMatrix(down)
        return rotated if self._as_blocks else rotated.dense()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def matrix(self, name: str) -> Matrix:
        """The weight of a linear or an embedding."""
        weight = self._tensor(f"{name}.weight")
        quantized = f"{name}.scales" in self
        stored = self._quantized_matrix(name, weight.numpy()) if quantized else _array(weight)
        if self._rotated and name.endswith(".w2"):
            return self._rotate(stored)
        return stored if self._as_blocks else dense(stored)

    def _quantized_matrix(self, name: str, q: Array) -> Matrix:
        scale = self.array(f"{name}.scales").reshape(len(q), -1)
        if q.dtype != np.int8 or q.shape[1] % scale.shape[1]:
            raise ModelFileError(self._path, f"{name} has scales that do not fit its values")
        zeros = self.array(f"{name}.zeros") if f"{name}.zeros" in self else None
        if scale.shape[1] == 1 and not name.startswith("layers."):
            return ByteMatrix(q, scale)
        group = q.shape[1] // scale.shape[1]
        if q.min() < -8 or q.max() > 7 or group % 32 or group > 1024:
            raise ModelFileError(self._path, f"{name} is not 4 bits in groups of 32 to 1024")
        if group != (self._group or group):
            reason = f"{name} has groups of {group}, not of {self._group} as {_PARAMETERS} says"
            raise ModelFileError(self._path, reason)
        least = None if zeros is None or not zeros.any() else -scale * zeros.reshape(scale.shape)
        blocks = BlockMatrix(q, bf16_from_f32(scale), least)
        if f"{name}.adaptor.A.weight" not in self:
            return blocks
        up = self._lora_scale * self.array(f"{name}.adaptor.B.weight")
        down = self.array(f"{name}.adaptor.A.weight")
        if len(down) != (self._rank or len(down)):
            reason = f"{name} has a correction of rank {len(down)}, not {self._rank}"
            raise ModelFileError(self._path, reason)
        return AdaptedMatrix(blocks, down, up)

    def _frequencies(self, shape: DecoderShape, scaled: bool) -> Array:
        base = self._say("rope_theta", Annotated[float, Range(1, 1e12)], 500000.0)
        frequencies = base ** -(np.arange(0, shape.head_dim, 2) / shape.head_dim)
        usual = _ROPE_FACTOR if shape.hidden < _LARGE else _LARGE_ROPE_FACTOR
        factor = self._say("rope_scale_factor", Annotated[float, Range(1, 1e12)], usual)
        if scaled:
            turns = _TRAINED * frequencies / (2 * np.pi)  # within the context trained first
            kept = np.clip((turns - _LOW) / (_HIGH - _LOW), 0, 1)
            frequencies = frequencies * (kept + (1 - kept) / factor)
        return np.asarray(frequencies, np.float32)

    def array(self, name: str) -> Array:
        """A tensor in f32."""
        return _array(self._tensor(name))

    def _tensor(self, name: str) -> Any:
        tensor = self._tensors.take(name, None)
        if tensor is None:
            raise ModelFileError(self._path, f"it has no tensor {name!r}")
        return tensor


def _array(tensor: Any) -> Array:
    array: Array = tensor.float().contiguous().numpy()
    return array


def _read_parameters(path: Path) -> Ledger:
    try:
        data = read_fields(dict[str, Any], parse_json(read_plain(path)))
    except (OSError, FieldError) as error:
        raise ModelFileError(path, f"it makes no sense ({error})") from error
    return _said(data)


def _said(settings: dict[str, Any]) -> Ledger:
    """Settings that are not null."""
    said = {name: value for name, value in settings.items() if value is not None}
    return Ledger(said, _HARMLESS_PARAMETERS)
