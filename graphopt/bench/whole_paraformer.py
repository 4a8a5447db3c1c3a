"""Paraformer-large from features to token ids: encoder, CIF, decoder and argmax in one pass."""

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
    Workload,
    chosen,
    relative_error,
)
from graphopt.bench.onnx_engines import FUNASR, OnnxRuntime, OpenVino
from graphopt.bench.recognizer import edit_distance
from graphopt.dependencies import keep_process_settings, require
from graphopt.zoo import paraformer

PRECISIONS = ("fp32", "bf16", "int8", "int8+bf16")
Arrays = dict[str, np.ndarray[Any, Any]]

NOTE = (
    "Errors: of the encoder's output (Euclidean norm of the difference to torch fp32 over that of "
    "torch fp32), then edits from torch fp32's token ids over their number; random weights put "
    "many scores close together, so that the ids of real speech change far less. Peers run "
    "FunASR's own export forms with cif_v1_export inside and argmax behind, as one module."
)


def engines(wanted: Sequence[str]) -> list[Engine]:
    """The reference, and those others whose name contains one of the wanted words."""
    others: list[Engine] = [
        TorchDynamicInt8(),
        OnnxRuntime(),
        OnnxRuntime(FUNASR),
        OpenVino("f32"),
        OpenVino(None),
        *(Graphopt(precision) for precision in PRECISIONS),
    ]
    return chosen(others, wanted)


def parts(blocks: int = 50, decoder_blocks: int = 16) -> tuple[Any, Any]:
    """The same weights twice: as FunASR exports them, and as graphopt captures them.

    Both take features f32[B, T, 560] and lengths i32[B] and return token ids i64[B, N], counts
    i32[B] and the encoder's output f32[B, T, 512].
    """
    own = require("graphopt.funasr.layers.paraformer", "Paraformer")
    model = paraformer.whole_paraformer(blocks, decoder_blocks)
    return _export_form(model, own.share_parameters), _with_hidden(own.Paraformer(model))


def workload(folder: Path, modules: tuple[Any, Any], frames: int, batch: int) -> Workload:
    """One pass of a batch through the whole model.

    Args:
        folder: Where engines export to.
        modules: From :func:`parts`.
        frames: Frames of the longest utterance, 60 ms each.
        batch: Utterances; the others are shorter, see :func:`paraformer.example_inputs`.
    """
    speech, lengths = paraformer.example_inputs(frames, batch)
    stage = Stage(
        "model",
        modules[0],
        paraformer.example_inputs(60, 2),
        ["speech", "speech_lengths"],
        ["ids", "counts", "hidden"],
        {
            "speech": {0: "batch_size", 1: "feats_length"},
            "speech_lengths": {0: "batch_size"},
            "ids": {0: "batch_size", 1: "tokens"},
            "counts": {0: "batch_size"},
            "hidden": {0: "batch_size", 1: "feats_length"},
        },
        modules[1],
    )
    features = speech.numpy(), lengths.numpy()

    def run(calls: dict[str, Call]) -> Arrays:
        return dict(zip(("ids", "counts", "hidden"), calls["model"](*features), strict=True))

    with require("torch", "the benchmark").inference_mode():
        tokens = int(modules[1](speech, lengths)[1].sum())
    seconds = frames * paraformer.FRAME_MS / 1000
    return Workload(
        title=f"whole graph, {seconds:.1f} s of speech, batch {batch}, {tokens} tokens",
        stages=[stage],
        run=run,
        folder=folder,
        compare=compare,
    )


def compare(outputs: Arrays, reference: Arrays) -> dict[str, float]:
    """Error of the encoder's output, and edits of token ids over tokens."""
    pairs = [(_tokens(reference, b), _tokens(outputs, b)) for b in range(len(reference["counts"]))]
    return {
        "hidden": relative_error(outputs["hidden"], reference["hidden"]),
        "tokens": sum(edit_distance(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs),
    }


def _tokens(outputs: Arrays, item: int) -> list[int]:
    ids: list[int] = outputs["ids"][item, : outputs["counts"][item]].tolist()
    return ids


def _export_form(model: Any, share: Any) -> Any:
    """What FunASR exports (funasr/models/paraformer/export_meta.py), with argmax behind it."""
    torch = require("torch", "the benchmark")
    sanm = require("funasr.models.sanm.encoder", "Paraformer")
    cif = require("funasr.models.paraformer.cif_predictor", "Paraformer")
    decoder = require("funasr.models.paraformer.decoder", "Paraformer")
    mask = require("funasr.utils.torch_function", "Paraformer").sequence_mask

    class ExportForm(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            with keep_process_settings():
                self.encoder = sanm.SANMEncoderExport(share(model.encoder))
                self.predictor = cif.CifPredictorV2Export(share(model.predictor))
                self.decoder = decoder.ParaformerSANMDecoderExport(share(model.decoder))
                self.make_pad_mask = mask(flip=False)

        def forward(self, speech: Any, speech_lengths: Any) -> tuple[Any, Any, Any]:
            hidden, lengths = self.encoder(speech, speech_lengths)
            frames = self.make_pad_mask(lengths)[:, None, :]
            embeddings, count, _, _ = self.predictor(hidden, frames)
            count = count.floor().type(torch.int32)
            scores, _ = self.decoder(hidden, lengths, embeddings, count)
            return scores.argmax(-1), count, hidden

    return ExportForm().eval()


def _with_hidden(model: Any) -> Any:
    """Paraformer as graphopt compiles it, with the encoder's output as a result."""
    torch = require("torch", "the benchmark")

    class WithHidden(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, speech: Any, speech_lengths: Any) -> tuple[Any, Any, Any]:
            hidden = self.model.encoder(speech, speech_lengths)
            embeddings, counts, _, _ = self.model.predictor(hidden, speech_lengths)
            scores = self.model.decoder(hidden, speech_lengths, embeddings, counts)
            return scores.argmax(-1), counts, hidden

    return WithHidden().eval()
