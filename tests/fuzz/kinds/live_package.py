"""Packages that hear a signal in chunks, loaded and fed with a recording."""

import tempfile
from pathlib import Path

from fuzz.files import Kind
from mutations import Mutation, json_values, of, package_accidents, resealed, text

from graphopt.funasr.package import compile_directories
from graphopt.funasr.recognizer import DESCRIPTION
from graphopt.funasr.stream.live import load_live
from graphopt.zoo import fsmn_vad
from graphopt.zoo.recognizer import RECORDINGS

RECORDING = min(RECORDINGS.glob("*.wav"), key=lambda path: path.stat().st_size)


def make(path: Path) -> None:
    from funasr_directories import paraformer_streaming

    with tempfile.TemporaryDirectory() as folder:
        streaming = paraformer_streaming(Path(folder) / "asr")
        compile_directories([streaming, fsmn_vad.model_folder()], "native", "int8", path)


def use(path: Path) -> None:
    list(load_live(path, num_threads=1).listen(RECORDING))


KIND = Kind(
    make,
    [
        *package_accidents()[:2],
        *[Mutation("description", resealed(json_values(DESCRIPTION)))] * 4,
        Mutation("text", resealed(text(DESCRIPTION)), is_refused=True),
        Mutation("manifest", resealed(of("decoder", json_values("manifest.json")))),
    ],
    use,
)
