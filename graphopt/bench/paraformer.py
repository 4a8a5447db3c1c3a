"""The Paraformer-large benchmark: one utterance through encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.bench.engines import (
    Call,
    Engine,
    Graphopt,
    Stage,
    TorchDynamicInt8,
    TorchFp32,
    Workload,
)
from graphopt.bench.onnx_engines import FUNASR, OnnxRuntime, OpenVino
from graphopt.dependencies import require
from graphopt.zoo import paraformer

DECODER_TOKENS = 40
PRECISIONS = ("fp32", "bf16", "int8", "int8+bf16")


def peers() -> list[Engine]:
    """The other engines; torch fp32, the reference of all errors, comes first."""
    return [
        TorchFp32(),
        TorchDynamicInt8(),
        OnnxRuntime(),
        OnnxRuntime(FUNASR),
        OpenVino("f32"),
        OpenVino(None),
    ]


def own_engines() -> list[Engine]:
    """One engine of graphopt for each precision."""
    return [Graphopt(precision) for precision in PRECISIONS]


def select(wanted: Sequence[str]) -> list[Engine]:
    """All engines, or torch fp32 and those whose name contains one of the wanted words."""
    engines = [*peers(), *own_engines()]
    if not wanted:
        return engines
    return engines[:1] + [e for e in engines[1:] if any(word in e.name for word in wanted)]


def workload(folder: Path, frames: int, blocks: int = 50, decoder_blocks: int = 16) -> Workload:
    """Paraformer-large, batch 1, with the decoder on 40 random acoustic embeddings.

    Args:
        folder: Where engines export to.
        frames: Frames of the utterance, 60 ms each.
        blocks: Encoder blocks.
        decoder_blocks: Decoder blocks.
    """
    torch = require("torch", "the benchmark")
    encoder, decoder = paraformer.paraformer_large(blocks, decoder_blocks)
    speech, speech_lengths = paraformer.example_inputs(frames)
    with torch.inference_mode():
        memory, memory_lengths = encoder(speech, speech_lengths)
    memory = memory.clone()
    inputs = paraformer.decoder_inputs(memory, memory_lengths, DECODER_TOKENS)
    features = speech.numpy(), speech_lengths.numpy()
    embeds, token_lengths = inputs[2].numpy(), inputs[3].numpy()

    def run(calls: dict[str, Call]) -> dict[str, np.ndarray[Any, Any]]:
        hidden = calls["encoder"](*features)[0]
        logits = calls["decoder"](hidden, features[1], embeds, token_lengths)[0]
        return {"encoder": hidden, "logits": logits}

    return Workload(
        title=(
            f"Paraformer-large ({blocks} encoder and {decoder_blocks} decoder blocks), "
            f"{frames} frames = {frames * paraformer.FRAME_MS / 1000:.1f} s of speech, batch 1, "
            f"{DECODER_TOKENS} tokens"
        ),
        stages=[_encoder_stage(encoder, (speech, speech_lengths)), _decoder_stage(decoder, inputs)],
        run=run,
        folder=folder,
    )


def _encoder_stage(encoder: Any, inputs: tuple[Any, ...]) -> Stage:
    axes = {0: "batch_size", 1: "feats_length"}
    return Stage(
        "encoder",
        encoder,
        inputs,
        ["speech", "speech_lengths"],
        ["memory", "memory_lengths"],
        {"speech": axes, "memory": axes, "speech_lengths": {0: "batch_size"}},
    )


def _decoder_stage(decoder: Any, inputs: tuple[Any, ...]) -> Stage:
    tokens = {0: "batch_size", 1: "token_length"}
    return Stage(
        "decoder",
        decoder,
        inputs,
        ["memory", "memory_lengths", "embeds", "token_lengths"],
        ["logits", "logits_lengths"],
        {
            "memory": {0: "batch_size", 1: "feats_length"},
            "embeds": tokens,
            "logits": tokens,
            "memory_lengths": {0: "batch_size"},
            "token_lengths": {0: "batch_size"},
        },
    )
