"""Model directories with random weights, as FunASR lays them out, and FunASR's own results."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import soundfile
import torch
import yaml

from graphopt.dependencies import keep_process_settings, quiet_auto_model

CHARACTERS = [*"打开关灯你好今天气怎么样吗我们去吃饭吧"]
WORDS = ["turn", "on", "the", "light", "It's", "a", "7", "ok"]
MARKS = ["<unk>", "_", "，", "。", "？", "、"]  # noqa: RUF001 (the marks themselves)


def load(folder: Path, **options: Any) -> Any:
    """A directory as a quiet `funasr.AutoModel`."""
    return quiet_auto_model(folder, "these tests", **options)


def generate(model: Any, given: Any, **options: Any) -> str:
    """The text of FunASR's first result; "" if there is none."""
    with keep_process_settings():
        results = model.generate(input=given, **options)
    return str(results[0]["text"]) if results else ""


def hear(model: Any, signal: Any, **options: Any) -> list[str]:
    """FunASR's text of each chunk of a signal, told as a stream; options as for `generate`."""
    cache: dict[str, Any] = {}
    step = options["chunk_size"][1] * 960
    return [
        generate(
            model,
            signal[begin : begin + step],
            cache=cache,
            is_final=begin + step >= len(signal),
            **options,
        )
        for begin in range(0, len(signal), step)
    ]


def samples(wav: Path) -> Any:
    """f32[samples] of a recording at 16 kHz."""
    values, rate = soundfile.read(str(wav), dtype="float32")
    assert rate == 16000
    return values


def ct_transformer(folder: Path, streaming: bool = False) -> Path:
    """CT-Transformer with official layers and a small vocabulary."""
    sizes = {
        "input_size": 256,
        "output_size": 256,
        "attention_heads": 8,
        "linear_units": 1024,
        "num_blocks": 4,
    }
    config = {
        "model": "CTTransformerStreaming" if streaming else "CTTransformer",
        "model_conf": {
            "ignore_id": 0,
            "embed_unit": 256,
            "att_unit": 256,
            "dropout_rate": 0.1,
            "punc_list": MARKS,
            "punc_weight": [1.0] * len(MARKS),
            "sentence_end_id": 3,
        },
        "encoder": "SANMVadEncoder" if streaming else "SANMEncoder",
        "encoder_conf": {**sizes, **_sanm("pe"), "padding_idx": 0},
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }
    return _write(folder, config, ["<unk>", *CHARACTERS, *WORDS])


TAGS = ["<|zh|>", "<|en|>", "<|HAPPY|>", "<|NEUTRAL|>", "<|Speech|>", "<|BGM|>", "<|woitn|>"]


def sense_voice(folder: Path) -> Path:
    """SenseVoiceSmall with official layers, few of them, and a small vocabulary."""
    sizes = {
        "output_size": 512,
        "attention_heads": 4,
        "linear_units": 2048,
        "num_blocks": 3,
        "tp_blocks": 2,
    }
    config = {
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": {**sizes, **_sanm("pe")},
        "frontend": "WavFrontend",
        "frontend_conf": {**_FRONTEND, "lfr_m": 7, "lfr_n": 6},
        "tokenizer": "SentencepiecesTokenizer",
        "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
    }
    folder.mkdir(parents=True)
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["".join(CHARACTERS), " ".join(WORDS)] * 9),
        model_writer=pieces,
        model_type="bpe",
        vocab_size=70,
        user_defined_symbols=TAGS,
        minloglevel=2,
    )
    (folder / "bpe.model").write_bytes(pieces.getvalue())
    return _write(folder, config, [])


def paraformer_streaming(folder: Path) -> Path:
    """Paraformer streaming with official layers, few of them, and a small vocabulary."""
    sizes = {"attention_heads": 4, "linear_units": 2048, "kernel_size": 11}
    config = {
        "model": "ParaformerStreaming",
        "model_conf": {"ctc_weight": 0.0, "predictor_bias": 1, "sampling_ratio": 0.75},
        "encoder": "SANMEncoderChunkOpt",
        "encoder_conf": {
            **_sanm("pe_online"),
            **sizes,
            "output_size": 512,
            "num_blocks": 3,
            "chunk_size": [12, 15],
            "stride": [8, 10],
            "pad_left": [0, 0],
            "encoder_att_look_back_factor": [4, 4],
            "decoder_att_look_back_factor": [1, 1],
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {**sizes, "num_blocks": 2, "att_layer_num": 2, "sanm_shfit": 5},
        "predictor": "CifPredictorV2",
        "predictor_conf": {"idim": 512, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
        "frontend": "WavFrontendOnline",
        "frontend_conf": {**_FRONTEND, "lfr_m": 7, "lfr_n": 6},
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }
    return _write(folder, config, ["<blank>", "<s>", "</s>", *CHARACTERS, *WORDS, "<unk>"])


_FRONTEND = {
    "fs": 16000,
    "window": "hamming",
    "n_mels": 80,
    "frame_length": 25,
    "frame_shift": 10,
    "dither": 0.0,
    "cmvn_file": None,
}


def _sanm(input_layer: str) -> dict[str, Any]:
    return {
        "dropout_rate": 0.1,
        "positional_dropout_rate": 0.1,
        "attention_dropout_rate": 0.0,
        "input_layer": input_layer,
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "kernel_size": 11,
        "sanm_shfit": 0,
        "selfattention_layer_type": "sanm",
    }


def _write(folder: Path, config: dict[str, Any], tokens: list[str]) -> Path:
    """Writes a directory with the weights that FunASR starts from."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    if tokens:
        (folder / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
    torch.save({}, folder / "model.pt")
    model = load(folder).model
    torch.save(model.state_dict(), folder / "model.pt")
    return folder
