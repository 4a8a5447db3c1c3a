"""Streaming packages without FunASR, beside its own `generate` with a cache."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import ModelDirectoryError, PackageError, RecognizerOptionError
from graphopt.funasr.package import compile_directories
from graphopt.funasr.recognizer import load_recognizer
from graphopt.funasr.stream.live import Heard, LiveRecognizer, load_live
from graphopt.funasr.stream.paraformer_stream import Chunking, ParaformerStream

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("sentencepiece")

import yaml  # noqa: E402

from graphopt.dependencies import keep_process_settings  # noqa: E402
from graphopt.zoo import fsmn_vad  # noqa: E402
from graphopt.zoo.recognizer import loading  # noqa: E402
from tests.support import funasr_directories as directories  # noqa: E402

VAD_CHUNK = 200 * 16  # samples


@pytest.fixture(scope="module")
def folders(tmp_path_factory: Any) -> dict[str, Path]:
    """Directories of streaming models with random weights, and of FSMN-VAD."""
    path = tmp_path_factory.mktemp("online")
    return {
        "asr": directories.paraformer_streaming(path / "asr"),
        "vad": fsmn_vad.model_folder(),
        "punc": directories.ct_transformer(path / "punc", streaming=True),
    }


@pytest.fixture(scope="module")
def package(folders: dict[str, Path], tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("package") / "live.gopt"
    compile_directories(list(folders.values()), "native", "fp32", path)
    return path


@pytest.fixture(scope="module")
def live(package: Path) -> LiveRecognizer:
    return load_live(package)


@pytest.fixture(scope="module")
def theirs(folders: dict[str, Path]) -> dict[str, Any]:
    return {role: directories.load(folder) for role, folder in folders.items()}


def options(chunking: Chunking) -> dict[str, Any]:
    """What FunASR's `generate` calls it."""
    return {
        "chunk_size": list(chunking.chunk_size),
        "encoder_chunk_look_back": chunking.encoder_chunk_look_back,
        "decoder_chunk_look_back": chunking.decoder_chunk_look_back,
    }


def spoken_text(model: Any, samples: Any) -> str:
    """FunASR's text of an utterance; in one call it spells the tokens of all chunks together."""
    return directories.generate(model, samples, cache={}, is_final=True, **options(Chunking()))


@pytest.mark.parametrize(
    "chunking",
    [
        Chunking(),
        Chunking((0, 8, 4), 1, 0),
        Chunking((0, 10, 5), 0, 0),
        Chunking((5, 10, 5), -1, 2),
        Chunking((5, 10, 5), 1, 1),
    ],
)
def test_same_text_as_funasr(
    live: LiveRecognizer, theirs: dict[str, Any], chunking: Chunking
) -> None:
    """Recordings, and cuts whose last chunk is whole, empty, or shorter than a frame."""
    step = chunking.chunk_size[1] * 960
    first, second = (directories.samples(wav) for wav in list(loading.recordings())[:2])
    for samples in (first, second, first[: 2 * step], first[: step + 900], first[:500]):
        stream, mine = ParaformerStream(live.speech, chunking), []
        for begin in range(0, len(samples), step):
            ids = stream.feed(samples[begin : begin + step])
            ids += stream.finish() if begin + step >= len(samples) else []
            mine.append(live.speech.spell(ids))
        assert mine == directories.hear(theirs["asr"], samples, **options(chunking))
        assert len("".join(mine)) > len(samples) // 16000


def test_text_does_not_depend_on_the_pieces(live: LiveRecognizer) -> None:
    samples, rng = directories.samples(next(iter(loading.recordings()))), np.random.default_rng(0)
    whole = ParaformerStream(live.speech, Chunking())
    expected = whole.feed(samples) + whole.finish()
    stream, found, at = ParaformerStream(live.speech, Chunking()), [], 0
    while at < len(samples):
        count = int(rng.integers(0, 9000))
        found += stream.feed(samples[at : at + count])
        at += count
    assert found + stream.finish() == expected and len(expected) > 5


def meeting() -> Any:
    """Three recordings with silence between them."""
    silence = np.zeros(16000 * 3, np.float32)
    spoken = [directories.samples(wav) for wav in list(loading.recordings())[:3]]
    return np.concatenate([part for one in spoken for part in (silence, one)] + [silence])


def utterances(theirs: dict[str, Any], samples: Any) -> list[str]:
    """What FunASR's models give, put together as a stream does."""
    begin, found, caches = 0, [], [{}, {}]
    for at in range(0, len(samples), VAD_CHUNK):
        with keep_process_settings():
            (told,) = theirs["vad"].generate(
                input=samples[at : at + VAD_CHUNK],
                cache=caches[0],
                is_final=at + VAD_CHUNK >= len(samples),
                chunk_size=200,
            )
        for begin_ms, end_ms in told["value"]:
            begin = begin_ms * 16 if begin_ms >= 0 else begin
            if end_ms >= 0:
                spoken = samples[begin : max(end_ms * 16, at)]
                text = spoken_text(theirs["asr"], spoken)
                found.append(directories.generate(theirs["punc"], text, cache=caches[1]))
    return found


def test_same_utterances_as_funasr(live: LiveRecognizer, theirs: dict[str, Any]) -> None:
    samples, stream = meeting(), live.stream()
    heard: list[Heard] = []
    for begin in range(0, len(samples), 1700):
        heard += stream.feed(samples[begin : begin + 1700])
        assert len(stream._samples) < 16000  # what is heard is forgotten
    heard += stream.finish()
    final = [one for one in heard if one.is_final]
    assert [one.text for one in final] == utterances(theirs, samples)
    assert len(final) == 3
    times = [t for one in final for t in (one.begin_ms, one.end_ms)]
    assert times == sorted(times) and times[-1] <= len(samples) // 16
    for one in final:
        parts = [h for h in heard if h.begin_ms == one.begin_ms and not h.is_final]
        assert len(parts) > 1 and all(a.end_ms < b.end_ms for a, b in pairwise(parts))
        assert all(b.text.startswith(a.text) for a, b in pairwise(parts))


def test_without_a_detector_all_is_one_utterance(
    folders: dict[str, Path], theirs: dict[str, Any], tmp_path: Path
) -> None:
    compile_directories([folders["asr"]], "native", "fp32", tmp_path / "live.gopt")
    wav = next(iter(loading.recordings()))
    heard = list(load_live(tmp_path / "live.gopt", num_threads=1).listen(wav))
    samples = directories.samples(wav)
    expected = spoken_text(theirs["asr"], samples)
    assert heard[-1] == Heard(expected, True, 0, len(samples) // 16)
    assert len(heard) > 2 and not any(one.is_final for one in heard[:-1])


def test_silence_is_no_utterance(live: LiveRecognizer) -> None:
    stream = live.stream()
    assert stream.feed(np.zeros(20000, np.float32)) == [] and stream.finish() == []
    assert live.stream().finish() == []


def test_command_line_needs_neither_torch_nor_funasr(
    package: Path, live: LiveRecognizer, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('torch', 'funasr', 'onnxruntime'): sys.modules[name] = None\n"
    )
    wav = next(iter(loading.recordings()))
    command = [sys.executable, "-m", "graphopt", "transcribe", str(package), str(wav), "--stream"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    heard = list(live.listen(wav))
    run = subprocess.run([*command, "--json"], capture_output=True, env=environment, check=True)
    told = [json.loads(line) for line in run.stdout.splitlines()]
    assert told == [{"key": wav.stem, **asdict(one)} for one in heard]
    lines = done.stdout.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == [
        one.text if one.is_final else f"~ {one.text}" for one in heard
    ]


def test_packages_of_another_kind_are_named(package: Path, plain_package: Path) -> None:
    with pytest.raises(PackageError, match="load_live"):
        load_recognizer(package)
    with pytest.raises(PackageError, match="ParaformerStreaming"):
        load_live(plain_package)


@pytest.mark.parametrize("size", [(0, 0, 5), (0, 10, 0), (-1, 10, 5)])
def test_chunks_that_are_none(size: tuple[int, int, int]) -> None:
    with pytest.raises(RecognizerOptionError, match="chunk_size"):
        Chunking(size)


def test_a_decoder_that_looks_ahead_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "asr"
    directories.paraformer_streaming(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["decoder_conf"]["sanm_shfit"] = 0
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ModelDirectoryError, match="looks ahead"):
        compile_directories([folder], "native", "fp32", tmp_path / "live.gopt")
