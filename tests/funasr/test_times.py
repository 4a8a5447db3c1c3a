"""When tokens, words and sentences were spoken: by packages and by FunASR."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.funasr.package import compile_directories
from graphopt.funasr.recognizer import Recognizer, load_recognizer
from graphopt.funasr.text.punctuation import PunctuationConfig
from graphopt.funasr.text.spelling import tokens_to_text, word_times
from graphopt.funasr.text.times import FULL, running_peaks, sentences, token_times
from graphopt.zoo.recognizer import MODEL

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("kaldi_native_fbank")
soundfile = pytest.importorskip("soundfile")

from funasr import AutoModel  # noqa: E402
from funasr.utils import timestamp_tools as theirs  # noqa: E402
from funasr.utils.postprocess_utils import sentence_postprocess  # noqa: E402

from graphopt.dependencies import keep_process_settings  # noqa: E402
from graphopt.zoo import fsmn_vad  # noqa: E402
from graphopt.zoo.recognizer.loading import recordings  # noqa: E402
from tests.support import funasr_directories, paraformer_directories  # noqa: E402
from tests.support.funasr_directories import load  # noqa: E402

OPTIONS = {"output_timestamp": True, "sentence_timestamp": True}


def test_same_times_of_tokens_as_funasr() -> None:
    """Of weights whose sum does not depend on the order."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        most = rng.integers(2, 80)
        weights = rng.integers(0, most, rng.integers(1, 200)).astype(np.float32) / 64
        peaks, finer = running_peaks(weights, FULL), int(rng.choice([1, 3]))
        for count in {int(weights.sum()), max(0, int(weights.sum()) - 1), int(rng.integers(30))}:
            given = torch.from_numpy(weights.copy()), torch.from_numpy(peaks.copy())
            _, expected = theirs.ts_prediction_lfr6_standard(
                *given, ["x"] * count, upsample_rate=finer
            )
            assert list(map(list, token_times(weights, peaks, count, finer))) == expected
    assert token_times(np.zeros(9, np.float32), np.zeros(9, np.float32), 3) == []


def test_same_times_of_words_as_funasr() -> None:
    pieces = ["turn", "on", "a@@", "larm", "灯", "打", "7", "a", "b", "it's", "<unk>", "<s>"]
    pieces += ["。", "I", "x@@", "@", "12", "é"]
    rng = random.Random(0)
    for _ in range(2000):
        tokens = rng.choices(pieces, k=rng.randint(0, 9))
        times = [(100 * i, 100 * i + rng.randint(1, 90)) for i in range(len(tokens))]
        found = word_times(tokens, times)
        try:
            text, expected, _ = sentence_postprocess(list(tokens), list(map(list, times)))
        except IndexError:  # where letters of an abbreviation have no times
            continue
        assert list(map(list, found)) == expected, tokens
        assert tokens_to_text(tokens, spaced=True) == text
        word_times(tokens, times[: len(times) // 2])  # of which FunASR fails


def test_same_sentences_as_funasr() -> None:
    config = PunctuationConfig(tuple(funasr_directories.MARKS))
    rng = random.Random(0)
    for _ in range(1000):
        classes = rng.choices([1, 1, 1, 2, 3, 4, 5], k=rng.randint(1, 12))
        words = rng.choices(
            ["打", "turn", "on", "7", "a1"], k=max(1, len(classes) - rng.randint(-1, 1))
        )
        times = [(100 * i, 100 * i + 50) for i in range(len(classes))]
        expected = theirs.timestamp_sentence(classes, list(map(list, times)), " ".join(words))
        assert as_funasr(sentences(words, times, classes, config)) == expected


def as_funasr(found: Any) -> list[dict[str, Any]]:
    return [
        {
            "text": one.text,
            "start": one.begin_ms,
            "end": one.end_ms,
            "timestamp": list(map(list, one.times)),
        }
        for one in found
    ]


def generate(model: Any, wav: Path) -> dict[str, Any]:
    with keep_process_settings():
        (result,) = model.generate(input=str(wav), **OPTIONS)
    result.pop("key")
    for sentence in result.get("sentence_info", []):
        sentence.pop("sentence", None)  # once more the text, of segments
    return dict(result)


def transcript(recognizer: Recognizer, wav: Path) -> dict[str, Any]:
    said = recognizer.transcribe_with_times(wav)
    result: dict[str, Any] = {"text": said.text}
    if said.times is not None:
        result["timestamp"] = list(map(list, said.times))
    return result | {"sentence_info": as_funasr(said.sentences)}


@pytest.fixture(params=["paraformer", "bicif", "seaco"])
def kind(request: Any, tmp_path: Path) -> tuple[Path, Path]:
    """A model directory, and the package of it."""
    if request.param == "paraformer":
        return MODEL, request.getfixturevalue("plain_package")
    if request.param == "seaco":
        return request.getfixturevalue("seaco_folder"), request.getfixturevalue("seaco_package")
    folder = paraformer_directories.bicif(tmp_path / "bicif")
    compile_directories([folder], "native", "fp32", tmp_path / "asr.gopt")
    return folder, tmp_path / "asr.gopt"


def test_package_tells_the_times_of_funasr(kind: tuple[Path, Path]) -> None:
    model, recognizer = load(kind[0]), load_recognizer(kind[1])
    for wav in recordings():
        expected, got = generate(model, wav), transcript(recognizer, wav)
        assert {name: got[name] for name in expected} == expected
        assert len(expected["timestamp"]) > 1
        (whole,) = got["sentence_info"]
        assert (whole["text"], whole["timestamp"]) == (got["text"], got["timestamp"])


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: Any) -> Path:
    """Recordings one after the other, with silence between them."""
    from graphopt.funasr.audio.recordings import read_recording

    silence = np.zeros(24000, np.float32)
    samples = [part for wav in recordings() for part in (read_recording(wav, 16000), silence)]
    path: Path = tmp_path_factory.mktemp("long") / "long.wav"
    soundfile.write(path, np.concatenate(samples), 16000)
    return path


@pytest.mark.parametrize("with_punctuation", [True, False])
def test_sentences_of_a_long_recording(
    with_punctuation: bool, long_recording: Path, request: Any
) -> None:
    vad, punc = fsmn_vad.model_folder(), request.getfixturevalue("punctuation_folder")
    package = request.getfixturevalue("full_package" if with_punctuation else "detecting_package")
    with keep_process_settings():
        model = AutoModel(
            model=str(MODEL),
            vad_model=str(vad),
            punc_model=str(punc) if with_punctuation else None,
            device="cpu",
            disable_update=True,
            disable_pbar=True,
            disable_log=True,
            log_level="ERROR",
        )
    expected = generate(model, long_recording)
    got = transcript(load_recognizer(package), long_recording)
    if with_punctuation:
        fast = graphopt.optimize(model, precision="fp32", strict=True)
        assert generate(fast, long_recording) == expected
    else:  # then FunASR has no sentences; segments are
        assert expected.pop("sentence_info") == []
        assert [one["start"] for one in got.pop("sentence_info")]
    assert got == expected
    assert len(got["timestamp"]) > 10


def test_command_line(plain_package: Path, tmp_path: Path) -> None:
    recognizer = load_recognizer(plain_package)
    for samples in (0, 1, 399, 800, 16000):
        soundfile.write(tmp_path / "silence.wav", np.zeros(samples, np.float32), 16000)
        assert transcript(recognizer, tmp_path / "silence.wav") == {"text": "", "sentence_info": []}
    wav = next(iter(recordings()))

    def transcribe(*options: str) -> str:
        command = [sys.executable, "-m", "graphopt", "transcribe", str(plain_package)]
        done = subprocess.run([*command, str(wav), *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    expected = transcript(recognizer, wav)
    assert json.loads(transcribe("--json")) == {"key": wav.stem, **expected}
    (sentence,) = expected["sentence_info"]
    begin, end, *words = transcribe("--timestamps").split()
    assert (begin, end) == (f"{sentence['start'] / 1000:.2f}", f"{sentence['end'] / 1000:.2f}")
    assert " ".join(words) == sentence["text"]
