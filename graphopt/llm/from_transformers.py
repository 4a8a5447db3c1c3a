"""The weights of a decoder of the `transformers` library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphopt.errors import ModelFileError, UnsupportedDecoderError
from graphopt.llm.decoder import DecoderShape, DecoderWeights, LayerWeights
from graphopt.llm.matrices import Matrix, stack_rows
from graphopt.llm.torchao_tensors import is_quantized, quantized_matrix

Array = np.ndarray[Any, Any]

#: `model_type` of configurations whose layers are those of graphopt/llm/decoder.py.
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def is_decoder(model: torch.nn.Module) -> bool:
    """Whether a module is a causal language model of transformers that can be read."""
    config = getattr(model, "config", None)
    known = getattr(config, "model_type", None) in MODEL_TYPES
    return known and hasattr(model, "generate") and hasattr(model, "lm_head")


def read_directory(folder: Path) -> DecoderWeights:
    """The decoder of a model directory of Hugging Face.

    Raises:
        ModelFileError: if it cannot be loaded, or was not quantized by torchao but otherwise.
        UnsupportedDecoderError: naming what the graph cannot express.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        method = _quantization(config)
        if method not in ("", "torchao"):
            reason = f"its weights come quantized by {method}; give the original, torchao's or GGUF"
            raise ModelFileError(folder, reason)
        if config.model_type not in MODEL_TYPES:
            raise UnsupportedDecoderError(
                str(folder), f"model type {config.model_type!r}", MODEL_TYPES
            )
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="auto")
    except (UnsupportedDecoderError, ModelFileError):
        raise
    except Exception as error:  # of transformers, safetensors or torch, as the damage has it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelFileError(folder, reason) from error
    return read_decoder(model)


def _quantization(config: Any) -> str:
    """By what the weights of a model directory were quantized; empty if they were not."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return ""
    method = found.get("quant_method") if isinstance(found, dict) else found.quant_method
    return str(getattr(method, "value", method))


def read_decoder(model: Any) -> DecoderWeights:
    """Reads a causal language model; f32 weights are shared, not copied, where they are whole.

    Args:
        model: LlamaForCausalLM or a like one (`MODEL_TYPES`).

    Raises:
        UnsupportedDecoderError: naming what of the model the graph cannot express.
    """
    config = model.config
    _refuse_unsupported(model)
    rotary = model.model.rotary_emb
    heads = config.num_attention_heads
    shape = DecoderShape(
        hidden=config.hidden_size,
        heads=heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate=config.intermediate_size,
        vocabulary=model.model.embed_tokens.weight.shape[0],
        context=config.max_position_embeddings,
        epsilon=float(config.rms_norm_eps),
    )
    embedding = _matrix(model.model.embed_tokens)
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    return DecoderWeights(
        name=type(model).__name__,
        shape=shape,
        frequencies=_array(rotary.inv_freq),
        attention_factor=float(rotary.attention_scaling),
        embedding=embedding,
        layers=[_layer(layer) for layer in model.model.layers],
        norm=_array(model.model.norm.weight),
        head=embedding if tied else _matrix(model.lm_head),
    )


def _refuse_unsupported(model: Any) -> None:
    config, name = model.config, type(model).__name__
    if config.model_type not in MODEL_TYPES:
        raise UnsupportedDecoderError(name, f"model type {config.model_type!r}", MODEL_TYPES)
    if config.hidden_act != "silu":
        raise UnsupportedDecoderError(name, f"activation {config.hidden_act!r}", ("silu",))
    rope = model.model.rotary_emb.rope_type
    fixed = ("default", "linear", "llama3", "yarn")
    if rope not in fixed:
        raise UnsupportedDecoderError(name, f"rotary embedding {rope!r}", fixed)
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()) or (
        config.model_type == "mistral" and config.sliding_window is not None
    ):
        raise UnsupportedDecoderError(name, "sliding-window attention", ("full attention",))
    for path, module in model.model.layers.named_modules():
        biased = isinstance(module, torch.nn.Linear) and module.bias is not None
        if biased and path.rpartition(".")[2] not in ("q_proj", "k_proj", "v_proj"):
            raise UnsupportedDecoderError(name, f"a bias of {path}", ("bias of q, k and v",))


def _layer(layer: Any) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    biased = attention.q_proj.bias is not None
    return LayerWeights(
        attention_norm=_array(layer.input_layernorm.weight),
        qkv=stack_rows([_matrix(projection) for projection in projections]),
        qkv_bias=_array(torch.cat([p.bias for p in projections])) if biased else None,
        query_norm=_norm(attention, "q_norm"),
        key_norm=_norm(attention, "k_norm"),
        output=_matrix(attention.o_proj),
        feed_forward_norm=_array(layer.post_attention_layernorm.weight),
        gate_up=stack_rows([_matrix(mlp.gate_proj), _matrix(mlp.up_proj)]),
        down=_matrix(mlp.down_proj),
    )


def _norm(attention: Any, name: str) -> Array | None:
    module = getattr(attention, name, None)
    return None if module is None else _array(module.weight)


def _matrix(module: Any) -> Matrix:
    """The weight of a linear or an embedding."""
    weight = module.weight
    return quantized_matrix(weight, repr(module)) if is_quantized(weight) else _array(weight)


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().float().cpu().contiguous().numpy()
    return array
