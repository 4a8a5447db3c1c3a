"""Directories of Paraformer's kinds: the small recognizer with random layers for what they add."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from graphopt.zoo.recognizer import MODEL
from tests.support.funasr_directories import load

WIDTH = 128
NO_BIAS = 96  # the token "<unk>"


def seaco(folder: Path, **settings: Any) -> Path:
    """SeACo-Paraformer with official layers at small widths.

    Args:
        folder: to make.
        settings: changes of `model_conf`.
    """
    config = _config("SeacoParaformer", {"NO_BIAS": NO_BIAS, "bias_encoder_bid": False, **settings})
    config |= _tells_times(config)
    config["seaco_decoder"] = "ParaformerSANMDecoder"
    config["seaco_decoder_conf"] = {
        "attention_heads": 4,
        "linear_units": 64,
        "num_blocks": 4,
        "kernel_size": 21,
        "sanm_shfit": 0,
        "use_output_layer": False,
        "wo_input_layer": True,
    }
    model = _write(folder, config)
    state = _trained(model)
    _make_hotwords_matter(state, "seaco_decoder.decoders.5.src_attn.")
    state["hotword_output_layer.bias"][NO_BIAS] += 2.0  # of some tokens nothing is said
    torch.save(state, folder / "model.pt")
    return folder


def bicif(folder: Path) -> Path:
    """BiCifParaformer at small widths."""
    config = _config("BiCifParaformer", {})
    model = _write(folder, config | _tells_times(config))
    torch.save(_trained(model), folder / "model.pt")
    return folder


def aligner(folder: Path) -> Path:
    """MonotonicAligner at small widths."""
    config = _config("MonotonicAligner", {})
    config |= _tells_times(config)
    config["model_conf"] = {"length_normalized_loss": False, "predictor_bias": 1}
    del config["decoder"], config["decoder_conf"]
    torch.save(_trained(_write(folder, config)), folder / "model.pt")
    return folder


def _tells_times(config: dict[str, Any]) -> dict[str, Any]:
    """The official predictor that says when tokens were spoken."""
    times = {
        "smooth_factor2": 0.25,
        "noise_threshold2": 0.01,
        "upsample_times": 3,
        "use_cif1_cnn": False,
        "upsample_type": "cnn_blstm",
    }
    return {"predictor": "CifPredictorV3", "predictor_conf": config["predictor_conf"] | times}


def contextual(folder: Path, **settings: Any) -> Path:
    """Contextual Paraformer with official layers at small widths.

    Args:
        folder: to make.
        settings: changes of `model_conf`.
    """
    config = _config("ContextualParaformer", settings)
    config["decoder"] = "ContextualParaformerDecoder"
    model = _write(folder, config)
    state = _trained(model)
    trained = torch.load(MODEL / "model.pt", weights_only=True)
    for name, weight in trained.items():
        if name.startswith("decoder.decoders.1."):
            state[name.replace("decoders.1.", "last_decoder.")] = weight.float()
    # As trained, but for what hotwords add.
    mix = torch.cat([torch.eye(WIDTH), 1.5 * torch.eye(WIDTH)], 1)
    state["decoder.bias_output.weight"] = mix[:, :, None]
    _make_hotwords_matter(state, "decoder.bias_decoder.src_attn.")
    torch.save(state, folder / "model.pt")
    return folder


def _make_hotwords_matter(state: dict[str, torch.Tensor], attention: str) -> None:
    """Makes the random LSTM's rows differ, and the attention to them sharp."""
    for name, weight in state.items():
        if name.startswith("bias_encoder."):
            weight *= 4
        elif name.startswith(attention):
            weight *= 8


def _config(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((MODEL / "config.yaml").read_text(encoding="utf-8"))
    config["model"] = model
    if model in ("ContextualParaformer", "SeacoParaformer"):
        config["model_conf"] |= {"inner_dim": WIDTH, "bias_encoder_type": "lstm"}
    config["model_conf"] |= settings
    return config


def _write(folder: Path, config: dict[str, Any]) -> Any:
    """Writes a directory; returns FunASR's model of it with the weights that it starts from."""
    shutil.copytree(MODEL, folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    torch.save({}, folder / "model.pt")
    torch.manual_seed(0)
    return load(folder).model


def _trained(model: Any) -> dict[str, torch.Tensor]:
    """Its weights, those of the small recognizer where it has the same layers."""
    trained = torch.load(MODEL / "model.pt", weights_only=True)
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    return state | {name: w.float() for name, w in trained.items() if name in state}


def many_hotwords(file: Path) -> Path:
    """A file of more hotwords than SeACo-Paraformer attends to, of one to three tokens."""
    tokens = json.loads((MODEL / "tokens.json").read_text(encoding="utf-8"))
    words = [token for token in tokens if not token.startswith("<") and "@" not in token]
    lines = [" ".join(words[i : i + 1 + i % 3]) for i in range(70)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
