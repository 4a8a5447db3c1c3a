"""Decoders in Meta's own layout of Llama 3: `consolidated.00.pth` and `params.json`.

The quantized Llama 3.2 (SpinQuant, QLoRA) hold the linears of layers as int8 tensors with values
of 4 bits, `scales` [out, in / group] and maybe `zeros`, the embedding and the head as int8 with
`scales` [rows, 1]. QLoRA adds `adaptor.A` and `adaptor.B`, SpinQuant a Hadamard transform in front
of `w2`. Names and meaning: models/llama3/args.py and quantization/loader.py of Meta's llama-models,
and examples/models/llama of ExecuTorch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import ModelFileError
from graphopt.kernels.reference import bf16_from_f32
from graphopt.llm.decoder import DecoderShape, DecoderWeights, LayerWeights
from graphopt.llm.matrices import (
    AdaptedMatrix,
    BlockMatrix,
    ByteMatrix,
    Matrix,
    RotatedMatrix,
    dense,
    split_pairs,
    stack_rows,
)
from graphopt.llm.sizes import misfit

Array = np.ndarray[Any, Any]

_PARAMETERS, _WEIGHTS = "params.json", "consolidated.00.pth"
_SCHEME = "int4_weight_int8_dynamic_activation"
#: Of the scaled rotary embedding of Llama 3.2 (its model card and configuration).
_ROPE_FACTOR, _LOW, _HIGH, _TRAINED = 32.0, 1.0, 4.0, 8192
_CONTEXT, _QUANTIZED_CONTEXT = 131072, 8192


def is_meta_checkpoint(folder: Path) -> bool:
    """Whether a folder has the two files."""
    return all((folder / name).is_file() for name in (_PARAMETERS, _WEIGHTS))


def read_meta_checkpoint(folder: Path, as_blocks: bool = True) -> DecoderWeights:
    """The decoder of a folder in Meta's layout.

    Args:
        folder: holds `params.json` and `consolidated.00.pth`.
        as_blocks: keep quantized values, with the scales of 4-bit blocks rounded to bf16;
            otherwise everything becomes f32.

    Raises:
        ModelFileError: for a file that is damaged, in several parts, of another scheme, or whose
            tensors have other sizes than `params.json` says.
    """
    checkpoint = _Checkpoint(folder, as_blocks)
    try:
        weights = checkpoint.weights()
    except ModelFileError:
        raise
    except (ValueError, TypeError, ArithmeticError) as error:
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
        try:
            parameters = json.loads((folder / _PARAMETERS).read_text(encoding="utf-8"))
            quantization = dict(parameters.get("quantization_args") or {})
            lora = dict(parameters.get("lora_args") or {})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelFileError(folder / _PARAMETERS, f"it makes no sense ({error})") from error
        self._parameters, self._quantized = parameters, bool(quantization)
        scheme = quantization.get("scheme", _SCHEME)
        if scheme != _SCHEME:
            raise ModelFileError(folder, f"it is quantized as {scheme!r}, not {_SCHEME!r}")
        self._rotated = bool(quantization.get("spinquant", False))
        self._lora_scale = float(lora.get("scale", 1.0))
        try:
            tensors = torch.load(self._path, map_location="cpu", weights_only=True, mmap=True)
            self._tensors: dict[str, Any] = dict(tensors)
        except Exception as error:  # of torch, pickle or zipfile, as the damage has it
            raise ModelFileError(self._path, f"it is no whole checkpoint ({error})") from error

    def weights(self) -> DecoderWeights:
        """Everything."""
        embedding = self._matrix("tok_embeddings")
        self._heads = int(self._parameter("n_heads"))
        self._kv_heads = int(self._parameters.get("n_kv_heads") or self._heads)
        hidden = int(self._parameter("dim"))
        layers = [self._layer(f"layers.{i}") for i in range(int(self._parameter("n_layers")))]
        scaled = bool(self._parameters.get("use_scaled_rope", False))
        shape = DecoderShape(
            hidden=hidden,
            heads=self._heads,
            kv_heads=self._kv_heads,
            head_dim=hidden // self._heads,
            intermediate=int(self._tensor("layers.0.feed_forward.w1.weight").shape[0]),
            vocabulary=int(self._tensor("tok_embeddings.weight").shape[0]),
            context=_CONTEXT if scaled and not self._quantized else _QUANTIZED_CONTEXT,
            epsilon=float(self._parameters.get("norm_eps", 1e-5)),
        )
        tied = "output.weight" not in self._tensors
        return DecoderWeights(
            name="llama",
            shape=shape,
            frequencies=self._frequencies(shape.head_dim, scaled),
            attention_factor=1.0,
            embedding=embedding,
            layers=layers,
            norm=self._array("norm.weight"),
            head=embedding if tied else self._matrix("output"),
        )

    def _layer(self, where: str) -> LayerWeights:
        heads = {"wq": self._heads, "wk": self._kv_heads}
        parts = [
            split_pairs(self._matrix(f"{where}.attention.{name}"), count)
            for name, count in heads.items()
        ]
        ffn = f"{where}.feed_forward"
        down = self._matrix(f"{ffn}.w2")
        return LayerWeights(
            attention_norm=self._array(f"{where}.attention_norm.weight"),
            qkv=stack_rows([*parts, self._matrix(f"{where}.attention.wv")]),
            output=self._matrix(f"{where}.attention.wo"),
            feed_forward_norm=self._array(f"{where}.ffn_norm.weight"),
            gate_up=stack_rows([self._matrix(f"{ffn}.{name}") for name in ("w1", "w3")]),
            down=self._rotate(down) if self._rotated else down,
        )

    def _rotate(self, down: Matrix) -> Matrix:
        if not isinstance(down, BlockMatrix) or down.q.shape[1] & (down.q.shape[1] - 1):
            raise ModelFileError(
                self._path, "its w2 is rotated, but no power of two in 4 bits deep"
            )
        rotated = RotatedMatrix(down)
        return rotated if self._as_blocks else rotated.dense()

    def _matrix(self, name: str) -> Matrix:
        weight = self._tensor(f"{name}.weight")
        if f"{name}.scales" not in self._tensors:
            return self._array(f"{name}.weight")
        quantized = self._quantized_matrix(name, weight.numpy())
        rotated = self._rotated and name.endswith(".w2")
        return quantized if self._as_blocks or rotated else dense(quantized)

    def _quantized_matrix(self, name: str, q: Array) -> Matrix:
        scale = self._array(f"{name}.scales").reshape(len(q), -1)
        if q.dtype != np.int8 or q.shape[1] % scale.shape[1]:
            raise ModelFileError(self._path, f"{name} has scales that do not fit its values")
        zeros = self._array(f"{name}.zeros") if f"{name}.zeros" in self._tensors else None
        if scale.shape[1] == 1 and not name.startswith("layers."):
            return ByteMatrix(q, scale)
        group = q.shape[1] // scale.shape[1]
        if q.min() < -8 or q.max() > 7 or group % 32 or group > 1024:
            raise ModelFileError(self._path, f"{name} is not 4 bits in groups of 32 to 1024")
        least = None if zeros is None or not zeros.any() else -scale * zeros.reshape(scale.shape)
        blocks = BlockMatrix(q, bf16_from_f32(scale), least)
        if f"{name}.adaptor.A.weight" not in self._tensors:
            return blocks
        up = self._lora_scale * self._array(f"{name}.adaptor.B.weight")
        return AdaptedMatrix(blocks, self._array(f"{name}.adaptor.A.weight"), up)

    def _frequencies(self, head_dim: int, scaled: bool) -> Array:
        base = float(self._parameters.get("rope_theta", 500000.0))
        frequencies = base ** -(np.arange(0, head_dim, 2) / head_dim)
        if scaled:
            factor = float(self._parameters.get("rope_scale_factor", _ROPE_FACTOR))
            turns = _TRAINED * frequencies / (2 * np.pi)  # within the context trained first
            kept = np.clip((turns - _LOW) / (_HIGH - _LOW), 0, 1)
            frequencies = frequencies * (kept + (1 - kept) / factor)
        return np.asarray(frequencies, np.float32)

    def _array(self, name: str) -> Array:
        array: Array = self._tensor(name).float().contiguous().numpy()
        return array

    def _tensor(self, name: str) -> Any:
        if name not in self._tensors:
            raise ModelFileError(self._path, f"it has no tensor {name!r}")
        return self._tensors[name]

    def _parameter(self, name: str) -> Any:
        if name not in self._parameters:
            raise ModelFileError(self._path.with_name(_PARAMETERS), f"it does not say {name!r}")
        return self._parameters[name]
