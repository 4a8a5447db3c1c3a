"""The weights of a decoder of the `transformers` library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from graphopt.errors import ModelFileError, UnsupportedDecoderError
from graphopt.llm.architectures.architecture import Architecture, InTransformers
from graphopt.llm.architectures.table import IN_TRANSFORMERS
from graphopt.llm.decoder.graph import DecoderShape, DecoderWeights
from graphopt.llm.decoder.matrices import Matrix
from graphopt.llm.decoder.sizes import misfit
from graphopt.llm.decoder.traits import Traits
from graphopt.llm.readers.layers import HeadOrder, limited, pair_frequencies, read_layers
from graphopt.llm.readers.ledger import Ledger
from graphopt.llm.readers.torchao_tensors import is_quantized, quantized_matrix

Array = np.ndarray[Any, Any]

#: Settings of a configuration that are read, here, by `generate` or in a call; `InTransformers`
#: names those of a class.
_SETTINGS = (
    "attention_bias",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "is_causal",
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
    "*_pdrop",
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
_LONG = "longrope"
_ATTENTION = ("full_attention", "sliding_attention")


def is_causal_model(model: torch.nn.Module) -> bool:
    """Whether a module is a causal language model of transformers, one that can be read or not."""
    made = any(kind.__module__.startswith("transformers.") for kind in type(model).__mro__)
    config = getattr(model, "config", None)
    return made and hasattr(model, "generate") and not getattr(config, "is_encoder_decoder", False)


def is_decoder(model: torch.nn.Module) -> bool:
    """Whether a module is a causal language model of transformers that can be read."""
    known = getattr(getattr(model, "config", None), "model_type", None) in IN_TRANSFORMERS
    return known and is_causal_model(model) and hasattr(model, "lm_head")


def refuse_other_decoder(model: torch.nn.Module) -> NoReturn:
    """Raises UnsupportedDecoderError, naming the class of a causal model that cannot be read."""
    kind = getattr(model.config, "model_type", None)
    raise UnsupportedDecoderError(type(model).__name__, f"model type {kind!r}", IN_TRANSFORMERS)


def read_directory(folder: Path, context: int | None = None) -> DecoderWeights:
    """The decoder of a model directory of Hugging Face.

    Args:
        folder: holds it.
        context: largest number of positions; as its configuration says if None.

    Raises:
        ModelFileError: if it cannot be loaded, or was not quantized by torchao but otherwise.
        UnsupportedDecoderError: naming what the graph cannot express.
        OptionError: for a context that the model does not have.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        method = _quantization(config)
        if method not in _METHODS:
            reason = f"its weights come quantized by {method}; give the original, torchao's or GGUF"
            raise ModelFileError(folder, reason)
        if config.model_type not in IN_TRANSFORMERS:
            raise UnsupportedDecoderError(
                str(folder), f"model type {config.model_type!r}", IN_TRANSFORMERS
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
    return read_decoder(model.eval(), context)


def _quantization(config: Any) -> str:
    """By what the weights of a model directory were quantized; empty if they were not."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return ""
    method = found.get("quant_method") if isinstance(found, dict) else found.quant_method
    return str(getattr(method, "value", method))


def read_decoder(model: Any, context: int | None = None) -> DecoderWeights:
    """Reads a causal language model; f32 weights are shared, not copied, where they are whole.

    Args:
        model: LlamaForCausalLM, or of another class of graphopt/llm/architectures.
        context: largest number of positions; as its configuration says if None.

    Raises:
        UnsupportedDecoderError: naming what of the model the graph cannot express.
        OptionError: for a context that the model does not have.
    """
    config, name = model.config, type(model).__name__
    if config.model_type not in IN_TRANSFORMERS:
        raise UnsupportedDecoderError(name, f"model type {config.model_type!r}", IN_TRANSFORMERS)
    for module in _foreign_modules(model):
        raise UnsupportedDecoderError(name, module, ("the modules of transformers",))
    architecture = IN_TRANSFORMERS[config.model_type]
    tensors = _Tensors(model)
    try:
        weights = _weights(model, tensors, architecture, context)
    except KeyError as error:
        part = f"no tensor {error}"
        raise UnsupportedDecoderError(name, part, IN_TRANSFORMERS) from error
    unread = (*weights.traits.unread, *(f"tensor {name!r}" for name in tensors.ledger.left()))
    architecture.check(name, replace(weights.traits, unread=unread), weights.shape)
    wrong = misfit(weights)
    if wrong:
        raise UnsupportedDecoderError(name, wrong, ("the sizes of its configuration",))
    return weights


class _Tensors:
    """The parameters of a model."""

    def __init__(self, model: Any) -> None:
        self.ledger = Ledger(model.state_dict(keep_vars=True))

    def __contains__(self, name: str) -> bool:
        return name in self.ledger

    def matrix(self, name: str) -> Matrix:
        """The weight of a linear or an embedding."""
        weight = self.ledger.take(f"{name}.weight")
        return quantized_matrix(weight, name) if is_quantized(weight) else _array(weight)

    def array(self, name: str) -> Array:
        """A parameter in f32."""
        return _array(self.ledger.take(name))


def _weights(
    model: Any, tensors: _Tensors, architecture: Architecture, context: int | None
) -> DecoderWeights:
    config, rotary, names = model.config, model.model.rotary_emb, architecture.transformers
    assert names is not None
    heads = config.num_attention_heads
    shape = DecoderShape(
        hidden=config.hidden_size,
        heads=heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate=config.intermediate_size,
        vocabulary=model.model.embed_tokens.weight.shape[0],
        context=limited(config.max_position_embeddings, context),
        epsilon=float(config.rms_norm_eps),
    )
    embedding, head = tensors.matrix("model.embed_tokens"), tensors.matrix("lm_head")
    short = rotary.rope_type == _LONG  # a module holds those of the prompt that it saw last
    frequencies = _array(rotary.original_inv_freq if short else rotary.inv_freq)
    places = [f"model.layers.{i}" for i in range(config.num_hidden_layers)]
    order = HeadOrder(2 * len(frequencies), names.interleaved)
    return DecoderWeights(
        name=type(model).__name__,
        shape=shape,
        frequencies=pair_frequencies(frequencies, shape),
        attention_factor=float(rotary.attention_scaling),
        embedding=embedding,
        layers=read_layers(tensors, architecture, names.layer, places, shape, order),
        norm=tensors.array("model.norm.weight"),
        head=embedding if model.lm_head.weight is model.model.embed_tokens.weight else head,
        traits=_traits(model, names),
        graph_class=architecture.graph_class,
    )


def _traits(model: Any, names: InTransformers) -> Traits:
    """What the configuration of a model says beyond sizes, and what nothing reads of it."""
    config, rotary = model.config, model.model.rotary_emb
    kinds = getattr(config, "layer_types", None) or ("sliding_attention",)
    slides = "sliding_attention" in kinds
    scaling = getattr(config, "rope_parameters", None) or {}
    reach = None
    if rotary.rope_type == _LONG:
        reach = scaling.get("original_max_position_embeddings", 0)
    others = tuple(sorted({kind for kind in kinds if kind not in _ATTENTION}))
    return Traits(
        rotary=rotary.rope_type,
        rotary_width=2 * len(rotary.inv_freq),
        rotary_reach=reach,
        window=getattr(config, "sliding_window", None) if slides else None,
        is_causal=getattr(config, "is_causal", True),
        unread=(*others, *(f"configuration {name}" for name in _unread_settings(config, names))),
        **{trait: getattr(config, setting) for trait, setting in names.traits.items()},
    )


def _unread_settings(config: Any, names: InTransformers) -> Iterator[str]:
    """Settings that are not read and neither harmless nor at their default."""
    given, usual = config.to_dict(), type(config)().to_dict()
    settings = Ledger(given, _HARMLESS_SETTINGS)
    for name in (*_SETTINGS, *names.settings, *names.traits.values()):
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


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().float().cpu().contiguous().numpy()
    return array
