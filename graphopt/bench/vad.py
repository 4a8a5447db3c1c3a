"""FSMN-VAD on a recording: from file to segments, beside FunASR's own onnxruntime path."""

from __future__ import annotations

import abc
import contextlib
import functools
import io
import shutil
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.bench.engines import Call, Engine, NamedArrays, Stage, Workload
from graphopt.dependencies import keep_process_settings, require
from graphopt.zoo import fsmn_vad

_RATE = 16000
_PAUSE = 2.5  # seconds; FunASR's whole-file schedule waits for 2, funasr-onnx for 0.8
_ROOM = 3e-4  # of full scale, -70 dB
NOTE = (
    "Error: what is speech to one and not to funasr-onnx fp32, over its speech. graphopt tells the "
    "segments of FunASR's AutoModel, whose borders are up to 20 ms from those of funasr-onnx."
)
PRECISIONS = ("fp32", "int8", "int8+bf16")


class SegmentEngine(Engine):
    """An engine that takes a WAV file and finds segments, in milliseconds."""

    def load(self, stage: Stage, workload: Workload) -> Call:
        """Opens the one stage of the workload."""
        find = self.open(workload.folder)
        return lambda path: [np.array(find(path), np.int64).reshape(-1, 2)]

    @abc.abstractmethod
    def open(self, folder: Path) -> Callable[[Path], Any]:
        """A function from a file to (start, end) pairs."""


class FunasrOnnx(SegmentEngine):
    """``funasr_onnx.Fsmn_vad`` on what FunASR exports: onnxruntime in fp32 or int8."""

    package = "funasr-onnx"

    def __init__(self, quantize: bool = False) -> None:
        self.quantize = quantize
        self.name = f"funasr-onnx {'int8' if quantize else 'fp32'}"

    def open(self, folder: Path) -> Callable[[Path], Any]:
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

        def find(path: Path) -> Any:
            # Its default is one list of caches for all calls, which it never empties.
            return vad(str(path), param_dict={"in_cache": []})[0]

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

    def open(self, folder: Path) -> Callable[[Path], Any]:
        """Compiles FSMN-VAD, with the shipped recognizer that a package must have."""
        package = require("graphopt.funasr.package", self.name)
        recognizer = require("graphopt.funasr.recognizer", self.name)
        model = require("graphopt.zoo.recognizer", self.name).MODEL
        path = folder / f"{self.precision}.gopt"
        if not path.exists():
            package.compile_directories(
                [model, fsmn_vad.model_folder()], "native", self.precision, path
            )
        detector = recognizer.load_recognizer(path, self.threads).detector
        read = require("graphopt.funasr.audio.recordings", self.name).read_recording
        return lambda wav: detector.find(read(wav, _RATE))


def engines() -> list[Engine]:
    """FunASR's path, the reference, first."""
    return [FunasrOnnx(), FunasrOnnx(quantize=True), *(OwnDetector(p) for p in PRECISIONS)]


def workload(folder: Path, seconds: int = 60) -> Workload:
    """One pass reads a file with recordings of several people and finds the speech in it.

    Args:
        folder: Where the file and what engines export lie.
        seconds: Length.

    Raises:
        MissingDependencyError: If FunASR, the weights or the recordings are not installed.
    """
    path = folder / "meeting.wav"
    samples = recording(seconds)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())

    def run(calls: dict[str, Call]) -> NamedArrays:
        return {"segments": calls["vad"](path)[0]}

    auto_model = fsmn_vad.load_vad()
    feats = fsmn_vad.recorded_features(auto_model, path)
    stage = Stage("vad", auto_model.model.encoder, (feats,), ["feats"], ["segments"], {})
    title = f"FSMN-VAD, {seconds} s with silence between speakers, from file to segments"
    return Workload(title, [stage], run, folder, compare=compare)


def recording(seconds: int) -> np.ndarray[Any, Any]:
    """Samples f32[seconds * 16000] of real speech; behind each recording a quiet room."""
    soundfile = require("soundfile", "reading recordings")
    noise = np.random.default_rng(0).normal(0, _ROOM, int(_PAUSE * _RATE)).astype(np.float32)
    parts = [soundfile.read(str(wav), dtype="float32")[0] for wav in fsmn_vad.recordings()]
    return np.resize(np.concatenate([x for part in parts for x in (part, noise)]), seconds * _RATE)


def compare(outputs: NamedArrays, reference: NamedArrays) -> dict[str, float]:
    """How much is speech to one and not to the other, over the speech of the reference."""
    mine, other = (_speech(x["segments"]) for x in (outputs, reference))
    return {"speech": len(mine ^ other) / max(1, len(other))}


def _speech(segments: np.ndarray[Any, Any]) -> set[int]:
    """Milliseconds of speech."""
    return {t for start, end in segments.tolist() for t in range(start, end)}
