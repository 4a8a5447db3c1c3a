"""Packages of a recognizer with FSMN-VAD and punctuation, loaded and run on a recording."""

import tempfile
from pathlib import Path

from fuzz.files import Kind
from mutations import Mutation, garbage, json_values, of, package_accidents, resealed, text

from graphopt.funasr.package import compile_directories
from graphopt.funasr.recognizer import DESCRIPTION, load_recognizer
from graphopt.zoo import fsmn_vad
from graphopt.zoo.recognizer import MODEL, RECORDINGS

RECORDING = min(RECORDINGS.glob("*.wav"), key=lambda path: path.stat().st_size)


def make(path: Path) -> None:
    from funasr_directories import ct_transformer

    with tempfile.TemporaryDirectory() as folder:
        punctuation = ct_transformer(Path(folder) / "punc")
        compile_directories([MODEL, fsmn_vad.model_folder(), punctuation], "native", "fp32", path)


def use(path: Path) -> None:
    load_recognizer(path, num_threads=1).transcribe_with_times(RECORDING)


KIND = Kind(
    make,
    [
        *package_accidents(),
        *[Mutation("description", resealed(json_values(DESCRIPTION)))] * 8,
        Mutation("text", resealed(text(DESCRIPTION)), is_refused=True),
        *[Mutation("manifest", resealed(of("vad", json_values("manifest.json"))))] * 2,
        Mutation("library", resealed(of("vad", of("lib", garbage)))),
    ],
    use,
)
