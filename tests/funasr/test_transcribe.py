"""From model directories to text without torch and FunASR, beside FunASR's own text."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from graphopt.cli import app
from graphopt.errors import (
    ModelDirectoryError,
    PackageCorruptError,
    PackageError,
    RecognizerOptionError,
)
from graphopt.funasr.audio.features import features, stack_frames
from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.funasr.audio.recordings import read_recording
from graphopt.funasr.description import FORMAT
from graphopt.funasr.directory import read_directory
from graphopt.funasr.package import compile_directories
from graphopt.funasr.recognizer import load_recognizer
from graphopt.funasr.text.spelling import tokens_to_text
from graphopt.runtime.sealed import seal
from graphopt.zoo.recognizer import MODEL

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("kaldi_native_fbank")

from funasr.frontends.wav_frontend import apply_lfr  # noqa: E402
from funasr.utils.postprocess_utils import sentence_postprocess  # noqa: E402

from graphopt.zoo.recognizer import loading  # noqa: E402


@pytest.fixture
def package(plain_package: Path) -> Path:
    return plain_package


def test_same_features_as_funasr() -> None:
    """Log energies around 10, computed in another order, times the scale of the variance."""
    theirs, directory = loading.load_recognizer(), read_directory(MODEL)
    for wav in loading.recordings():
        samples = read_recording(wav, 16000)
        mine = features(samples, directory.frontend, directory.cmvn)
        expected = loading.features(theirs, samples)[0].numpy()
        assert mine.shape == expected.shape
        assert np.abs(mine - expected).max() < 2e-3


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 8, 100])
@pytest.mark.parametrize(("m", "n"), [(7, 6), (5, 1), (1, 1)])
def test_stacks_frames_as_funasr(count: int, m: int, n: int) -> None:
    frames = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    expected = apply_lfr(torch.from_numpy(frames), m, n).numpy()
    assert np.array_equal(
        stack_frames(frames, FrontendConfig(n_mels=4, lfr_m=m, lfr_n=n)), expected
    )


def test_a_signal_without_a_frame_has_no_features() -> None:
    assert features(np.zeros(0, np.float32), FrontendConfig(dither=0.0), None).shape == (0, 80)


def test_same_text_as_funasr_of_any_tokens() -> None:
    pieces = [
        "turn",
        "on",
        "a@@",
        "larm",
        "灯",
        "打",
        "开",
        "7",
        "a",
        "b",
        "c",
        "it's",
        "'",
        "<unk>",
    ]
    pieces += ["<s>", "。", "I", "x@@", "@", "12", "é"]
    rng = random.Random(0)
    for _ in range(3000):
        tokens = rng.choices(pieces, k=rng.randint(0, 9))
        assert tokens_to_text(tokens) == sentence_postprocess(list(tokens))[0], tokens


def test_same_text_as_funasr_of_recordings(package: Path) -> None:
    recognizer, theirs = load_recognizer(package), loading.load_recognizer()
    spoken = 0
    for wav in loading.recordings():
        text = recognizer.transcribe(wav)
        assert text == loading.transcribe(theirs, wav)
        spoken += bool(text)
    assert spoken == len(loading.recordings())


def test_silence_is_no_text(package: Path) -> None:
    recognizer = load_recognizer(package, num_threads=1)
    assert recognizer.recognize(np.zeros(0, np.float32)) == ""
    assert isinstance(recognizer.recognize(np.zeros(300, np.float32)), str)


def test_command_line_needs_neither_torch_nor_funasr(package: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('torch', 'funasr', 'onnxruntime'): sys.modules[name] = None\n"
    )
    wavs = [str(wav) for wav in list(loading.recordings())[:2]]
    command = [sys.executable, "-m", "graphopt", "transcribe", str(package), *wavs]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    recognizer = load_recognizer(package)
    assert done.stdout.splitlines() == [f"{wav}\t{recognizer.transcribe(wav)}" for wav in wavs]


def test_command_line_compiles(tmp_path: Path) -> None:
    out = tmp_path / "n2.gopt"
    command = [sys.executable, "-m", "graphopt", "compile", "funasr", str(MODEL)]
    command += ["--target", "neoverse-n2", "--precision", "int8", "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == str(out), done.stderr
    assert load_recognizer(out).speech.module.manifest.target == "neoverse-n2"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--vad-option", "a"], "name=value"),
        (["--vad-option", "a=1", "--vad-option", "a=2"], "each name once"),
        (["--vad-option", "a=b"], "in JSON"),
        (["--vad-option", "max_end_silence_time=500"], "no FSMN-VAD"),
        (["--language", "zh"], "language=zh"),
        (["--use-itn"], "use_itn=True"),
        (["--hotword", "a"], "hotword=a"),
    ],
)
def test_options_without_effect_are_refused(package: Path, options: list[str], named: str) -> None:
    wav = next(iter(loading.recordings()))
    done = CliRunner().invoke(app, ["transcribe", str(package), str(wav), *options])
    assert isinstance(done.exception, RecognizerOptionError)
    assert re.search(named, str(done.exception))


def test_packages_that_are_none(package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="compile funasr"):
        load_recognizer(tmp_path)
    (tmp_path / "recognizer.json").write_text(json.dumps({"format": FORMAT - 1, "parts": {}}))
    seal(tmp_path)
    with pytest.raises(PackageError, match="make the package again"):
        load_recognizer(tmp_path)
    (tmp_path / "recognizer.json").write_text(json.dumps({"format": FORMAT, "parts": {}}))
    seal(tmp_path)
    with pytest.raises(PackageCorruptError, match="asr"):
        load_recognizer(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(PackageError, match="is no package"):
        compile_directories([MODEL], "native", "fp32", tmp_path / "mine")
    with pytest.raises(ModelDirectoryError, match="asr model too"):
        compile_directories([MODEL, MODEL], "native", "fp32", tmp_path / "two")
