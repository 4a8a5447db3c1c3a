"""FSMN-VAD on a recording: from samples to segments, beside FunASR's own onnxruntime path."""

from __future__ import annotations

import abc
import contextlib
import functools
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.bench.engines import Call, Engine, NamedArrays, Stage, Workload
from graphopt.zoo import fsmn_vad
from graphopt.zoo.dependencies import keep_process_settings, require

_RATE = 16000
NOTE = "Error: segments that differ from those of funasr-onnx, over theirs."
PRECISIONS = ("fp32", "int8", "int8+bf16")


class SegmentEngine(Engine):
    """An engine that takes samples f32[N] and finds segments, in milliseconds."""

    def load(self, stage: Stage, workload: Workload) -> Call:
        """Opens the one stage of the workload."""
        find = self.open(workload.folder)
        return lambda samples: [np.array(find(samples), np.int64).reshape(-1, 2)]

    @abc.abstractmethod
    def open(self, folder: Path) -> Any:
        """A function from samples to (start, end) pairs."""


class FunasrOnnx(SegmentEngine):
    """``funasr_onnx.Fsmn_vad`` on what FunASR exports: onnxruntime in fp32 or int8."""

    package = "funasr-onnx"

    def __init__(self, quantize: bool = False) -> None:
        self.quantize = quantize
        self.name = f"funasr-onnx {'int8' if quantize else 'fp32'}"

    def open(self, folder: Path) -> Any:
        """Exports into a copy of the model directory and opens a session."""
        onnx_vad = require("funasr_onnx.vad_bin", self.name)
        auto_model = require("funasr.auto.auto_model", self.name).AutoModel
        copied = folder / self.name.replace(" ", "-")
        shutil.copytree(fsmn_vad.model_folder(), copied, dirs_exist_ok=True)
        with keep_process_settings(), contextlib.redirect_stdout(io.StringIO()):
            model = auto_model(
                model=str(copied), device="cpu", disable_update=True, log_level="ERROR"
            )
            with _traced_export():
                model.export(type="onnx", quantize=self.quantize, disable_update=True)
            vad = onnx_vad.Fsmn_vad(
                str(copied), quantize=self.quantize, intra_op_num_threads=self.threads
            )

        extract = vad.extract_feat

        def extract_one(waveforms: Any) -> Any:
            feats, lengths = extract(waveforms)
            return feats, lengths.reshape(())  # it calls int(), which numpy 2.4 refuses for [n]

        vad.extract_feat = extract_one

        def find(samples: Any) -> Any:
            # Its default is one list of caches for all calls, which it never empties.
            return vad(samples, param_dict={"in_cache": []})[0]

        return find


@contextlib.contextmanager
def _traced_export() -> Iterator[None]:
    """Export by tracing while the block lasts: FunASR's code is made for it and does not ask."""
    onnx: Any = require("torch.onnx", "exporting to ONNX")
    original = onnx.export
    onnx.export = functools.partial(original, dynamo=False)
    try:
        yield
    finally:
        onnx.export = original


class OwnDetector(SegmentEngine):
    """A recognizer package's detector of one precision, without torch."""

    package = "graphopt"

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self.name = f"graphopt {precision}"

    def open(self, folder: Path) -> Any:
        """Compiles FSMN-VAD, with the shipped recognizer that a package must have."""
        package = require("graphopt.funasr.package", self.name)
        recognizer = require("graphopt.funasr.recognizer", self.name)
        model = require("graphopt.zoo.recognizer", self.name).MODEL
        path = folder / f"{self.precision}.gopt"
        if not path.exists():
            package.compile_directories(
                [model, fsmn_vad.model_folder()], "native", self.precision, path
            )
        return recognizer.load_recognizer(path, self.threads).detector.find


def engines() -> list[Engine]:
    """FunASR's path, the reference, first."""
    return [FunasrOnnx(), FunasrOnnx(quantize=True), *(OwnDetector(p) for p in PRECISIONS)]


def workload(folder: Path, seconds: int = 60) -> Workload:
    """One pass finds the speech in recordings of several people, joined to one of a length.

    Args:
        folder: Where engines export to.
        seconds: Length.

    Raises:
        MissingDependencyError: If the recordings are not installed.
    """
    samples = recording(seconds)

    def run(calls: dict[str, Call]) -> NamedArrays:
        return {"segments": calls["vad"](samples)[0]}

    stage = Stage("vad", None, (), ["samples"], ["segments"], {})  # type: ignore[arg-type]
    title = f"FSMN-VAD, {seconds} s of speech, from samples to segments"
    return Workload(title, [stage], run, folder, compare=compare)


def recording(seconds: int) -> np.ndarray[Any, Any]:
    """Samples f32[seconds * 16000] of real speech."""
    soundfile = require("soundfile", "reading recordings")
    spoken = [soundfile.read(str(wav), dtype="float32")[0] for wav in fsmn_vad.recordings()]
    return np.resize(np.concatenate(spoken), seconds * _RATE)


def compare(outputs: NamedArrays, reference: NamedArrays) -> dict[str, float]:
    """Segments that are found by one and not by the other, over those of the reference."""
    mine, other = ({tuple(pair) for pair in x["segments"].tolist()} for x in (outputs, reference))
    return {"segments": len(mine ^ other) / max(1, len(other))}
