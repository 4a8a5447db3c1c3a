"""The weights of a decoder of the `transformers` library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from graphopt.errors import ModelFileError, UnsupportedDecoderError
from graphopt.llm.decoder.graph import DecoderShape, DecoderWeights, LayerWeights
from graphopt.llm.decoder.matrices import Matrix, stack_rows
from graphopt.llm.decoder.sizes import misfit
from graphopt.llm.decoder.traits import Traits, check_traits
from graphopt.llm.readers.ledger import Ledger
from graphopt.llm.readers.torchao_tensors import is_quantized, quantized_matrix

Array = np.ndarray[Any, Any]

#: `model_type` of configurations whose layers are those of graphopt/llm/decoder/graph.py.
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")

#: Settings of a configuration that are read, here, by `generate` or in a call.
_SETTINGS = (
    "attention_bias",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "max_window_layers",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_cache",
    "use_sliding_window",
    "vocab_size",
)
#: Settings that change nothing of what a model in eval mode computes.
_HARMLESS_SETTINGS = (
    "*_dropout",
    "*_token_id",
    "_attn_implementation*",
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "pretraining_tp",
    "problem_type",
    "quantization_config",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unsloth_*",
)
#: What may have quantized the weights: nothing, or torchao.
_METHODS = ("", "torchao")
_ATTENTION = ("full_attention", "sliding_attention")


def is_causal_model(model: torch.nn.Module) -> bool:
    """Whether a module is a causal language model of transformers, one that can be read or not."""
    made = any(kind.__module__.startswith("transformers.") for kind in type(model).__mro__)
    config = getattr(model, "config", None)
    return made and hasattr(model, "generate") and not getattr(config, "is_encoder_decoder", False)


def is_decoder(model: torch.nn.Module) -> bool:
    """Whether a module is a causal language model of transformers that can be read."""
    known = getattr(getattr(model, "config", None), "model_type", None) in MODEL_TYPES
    return known and is_causal_model(model) and hasattr(model, "lm_head")


def refuse_other_decoder(model: torch.nn.Module) -> NoReturn:
    """Raises UnsupportedDecoderError, naming the class of a causal model that cannot be read."""
    kind = getattr(model.config, "model_type", None)
    raise UnsupportedDecoderError(type(model).__name__, f"model type {kind!r}", MODEL_TYPES)


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
        if method not in _METHODS:
            reason = f"its weights come quantized by {method}; give the original, torchao's or GGUF"
            raise ModelFileError(folder, reason)
        if config.model_type not in MODEL_TYPES:
            raise UnsupportedDecoderError(
                str(folder), f"model type {config.model_type!r}", MODEL_TYPES
            )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype="auto", output_loading_info=True
        )
        model, loading = loaded
    except (UnsupportedDecoderError, ModelFileError):
        raise
    except Exception as error:  # of transformers, safetensors or torch, as the damage has it
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelFileError(folder, reason) from error
    for what, names in loading.items():
        if names:
            first = min(map(str, names))
            reason = f"{what.replace('_', ' ')}, of tensors or files: {first:.200}"
            raise ModelFileError(folder, reason)
    return read_decoder(model.eval())


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
    config, name = model.config, type(model).__name__
    if config.model_type not in MODEL_TYPES:
        raise UnsupportedDecoderError(name, f"model type {config.model_type!r}", MODEL_TYPES)
    for module in _foreign_modules(model):
        raise UnsupportedDecoderError(name, module, ("the modules of transformers",))
    tensors = Ledger(model.state_dict(keep_vars=True))
    try:
        weights = _weights(model, tensors)
    except KeyError as error:
        raise UnsupportedDecoderError(name, f"no tensor {error}", MODEL_TYPES) from error
    check_traits(name, _traits(model, tensors), weights.shape)
    wrong = misfit(weights)
    if wrong:
        raise UnsupportedDecoderError(name, wrong, ("the sizes of its configuration",))
    return weights


def _weights(model: Any, tensors: Ledger) -> DecoderWeights:
    config, rotary = model.config, model.model.rotary_emb
    heads = config.num_attention_heads
    embedding = _matrix(tensors, "model.embed_tokens")
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
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    head = _matrix(tensors, "lm_head")
    return DecoderWeights(
        name=type(model).__name__,
        shape=shape,
        frequencies=_array(rotary.inv_freq),
        attention_factor=float(rotary.attention_scaling),
        embedding=embedding,
        layers=[_layer(tensors, f"model.layers.{i}") for i in range(config.num_hidden_layers)],
        norm=_array(tensors.take("model.norm.weight")),
        head=embedding if tied else head,
    )


def _traits(model: Any, tensors: Ledger) -> Traits:
    """What the configuration of a model says beyond sizes, and what nothing reads of it."""
    config = model.config
    kinds = getattr(config, "layer_types", None) or ("sliding_attention",)
    slides = "sliding_attention" in kinds
    others = tuple(sorted({kind for kind in kinds if kind not in _ATTENTION}))
    return Traits(
        activation=config.hidden_act,
        rotary=model.model.rotary_emb.rope_type,
        window=getattr(config, "sliding_window", None) if slides else None,
        unread=(
            *others,
            *(f"configuration {name}" for name in _unread_settings(config)),
            *(f"tensor {name!r}" for name in tensors.left()),
        ),
    )


def _unread_settings(config: Any) -> Iterator[str]:
    """Settings that are not read and neither harmless nor at their default."""
    given, usual = config.to_dict(), type(config)().to_dict()
    settings = Ledger(given, _HARMLESS_SETTINGS)
    for name in _SETTINGS:
        settings.take(name, None)
    for name in settings.left():
        value = given[name]
        if value is not None and value is not False and value != usual.get(name):
            yield f"{name}={value!r:.60}"
    method = _quantization(config)
    if method not in _METHODS:
        yield f"quantization_config of {method}"


def _foreign_modules(model: Any) -> Iterator[str]:
    """Modules of other classes than the model has from transformers, and hooks on modules."""
    family = f"transformers.models.{model.config.model_type}."
    for name, module in model.named_modules():
        forward = getattr(module.forward, "__func__", module.forward)
        where = getattr(forward, "__module__", "")
        if not where.startswith((family, "torch.", "transformers.activations")):
            yield f"{name or 'the model'}, whose forward is of {where or forward!r}"
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if not getattr(hook, "__module__", "").startswith("transformers."):
                yield f"a hook on {name or 'the model'}"


def _layer(tensors: Ledger, where: str) -> LayerWeights:
    projections = [f"{where}.self_attn.{name}_proj" for name in "qkv"]
    biased = f"{projections[0]}.bias" in tensors
    biases = [tensors.take(f"{name}.bias") for name in projections] if biased else []
    return LayerWeights(
        attention_norm=_array(tensors.take(f"{where}.input_layernorm.weight")),
        qkv=stack_rows([_matrix(tensors, projection) for projection in projections]),
        qkv_bias=_array(torch.cat(biases)) if biased else None,
        query_norm=_optional(tensors, f"{where}.self_attn.q_norm.weight"),
        key_norm=_optional(tensors, f"{where}.self_attn.k_norm.weight"),
        output=_matrix(tensors, f"{where}.self_attn.o_proj"),
        feed_forward_norm=_array(tensors.take(f"{where}.post_attention_layernorm.weight")),
        gate_up=stack_rows([_matrix(tensors, f"{where}.mlp.{n}_proj") for n in ("gate", "up")]),
        down=_matrix(tensors, f"{where}.mlp.down_proj"),
    )


def _optional(tensors: Ledger, name: str) -> Array | None:
    found = tensors.take(name, None)
    return None if found is None else _array(found)


def _matrix(tensors: Ledger, name: str) -> Matrix:
    """The weight of a linear or an embedding."""
    weight = tensors.take(f"{name}.weight")
    return quantized_matrix(weight, name) if is_quantized(weight) else _array(weight)


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().float().cpu().contiguous().numpy()
    return array
