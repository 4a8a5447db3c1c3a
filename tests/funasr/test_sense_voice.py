"""SenseVoiceSmall in a package, without torch and FunASR, beside FunASR's own text."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import ModelDirectoryError, PackageCorruptError, RecognizerOptionError
from graphopt.funasr.directory import read_directory
from graphopt.funasr.models.sense_voice import LANGUAGES, SPOKEN_FORM, WRITTEN_FORM, collapse
from graphopt.funasr.package import compile_directories
from graphopt.funasr.recognizer import load_recognizer
from graphopt.runtime.sealed import seal

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("kaldi_native_fbank")
pytest.importorskip("sentencepiece")

from graphopt.zoo import fsmn_vad  # noqa: E402
from graphopt.zoo.recognizer import loading  # noqa: E402
from tests.support import funasr_directories as directories  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    return directories.sense_voice(tmp_path_factory.mktemp("voice") / "model")


@pytest.fixture(scope="module")
def package(folder: Path, tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("package") / "asr.gopt"
    compile_directories([folder, fsmn_vad.model_folder()], "native", "fp32", path)
    return path


@pytest.mark.parametrize(("language", "use_itn"), [("auto", False), ("ja", True)])
def test_same_text_as_funasr(folder: Path, package: Path, language: str, use_itn: bool) -> None:
    """Tags and pieces of random weights: most tokens of the vocabulary come up."""
    theirs, mine = directories.load(folder), load_recognizer(package, None, language, use_itn)
    heard = set()
    for wav in loading.recordings():
        samples = directories.samples(wav)
        text = directories.generate(theirs, samples, language=language, use_itn=use_itn)
        assert mine.speech.text(samples) == text
        heard.add(text)
    assert len(heard) > 1
    assert mine.speech.text(np.zeros(100, np.float32)) == ""


def test_same_text_as_funasr_of_segments(folder: Path, package: Path) -> None:
    theirs = directories.load(folder, vad_model=str(fsmn_vad.model_folder()))
    spoken = [directories.samples(wav) for wav in list(loading.recordings())[:2]]
    silence = np.zeros(16000 * 2, np.float32)
    samples = np.concatenate([part for one in spoken for part in (one, silence)])
    mine = load_recognizer(package)
    assert mine.detector is not None and len(mine.detector.find(samples)) == 2
    assert mine.recognize(samples) == directories.generate(theirs, samples)


def test_asks_with_the_rows_that_funasr_asks_with(folder: Path) -> None:
    model = directories.load(folder).model
    assert model.lid_dict == LANGUAGES
    assert model.textnorm_dict == {"withitn": WRITTEN_FORM, "woitn": SPOKEN_FORM}


def test_collapses_what_lasts() -> None:
    assert collapse(np.array([0, 3, 3, 0, 3, 5, 5, 0]), 0) == [3, 3, 5]
    assert collapse(np.array([2]), 0) == [2] and collapse(np.array([0, 0]), 0) == []


def test_bad_options_and_vocabularies(folder: Path, package: Path, tmp_path: Path) -> None:
    with pytest.raises(RecognizerOptionError, match="use_itn=yes"):
        load_recognizer(package, use_itn="yes")  # type: ignore[arg-type]
    with pytest.raises(RecognizerOptionError, match=r"language=\['zh'\]"):
        load_recognizer(package, language=["zh"])  # type: ignore[arg-type]
    with pytest.raises(RecognizerOptionError, match="language=fr"):
        load_recognizer(package, language="fr")
    copied = shutil.copytree(package, tmp_path / "asr.gopt")
    (copied / "pieces.model").write_bytes(b"none")
    with pytest.raises(PackageCorruptError, match=r"pieces\.model is truncated or altered"):
        load_recognizer(copied)
    seal(copied)
    with pytest.raises(PackageCorruptError, match=r"pieces\.model"):
        load_recognizer(copied)
    directory = shutil.copytree(folder, tmp_path / "model")
    (directory / "bpe.model").unlink()
    with pytest.raises(ModelDirectoryError, match=r"bpe\.model"):
        read_directory(directory)
