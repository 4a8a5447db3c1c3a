"""When words of a text were spoken: by packages of a MonotonicAligner and by FunASR."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.errors import ModelDirectoryError, PackageError
from graphopt.funasr.aligner import load_aligner
from graphopt.funasr.description import DESCRIPTION, FORMAT
from graphopt.funasr.directory import read_directory
from graphopt.funasr.models.monotonic_aligner import Aligner
from graphopt.funasr.package import compile_directories, describe
from graphopt.funasr.recognizer import load_recognizer
from graphopt.runtime.sealed import seal
from graphopt.zoo.recognizer import MODEL

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("kaldi_native_fbank")

import yaml  # noqa: E402

from graphopt.dependencies import keep_process_settings  # noqa: E402
from graphopt.zoo import fsmn_vad  # noqa: E402
from graphopt.zoo.recognizer.loading import recordings  # noqa: E402
from tests.support import paraformer_directories  # noqa: E402
from tests.support.funasr_directories import load, samples  # noqa: E402

#: Words of the dictionary, characters of it, words and characters that are unknown, and none.
TEXTS = ["打 开 客厅 的 灯", "turn on the bedroom light", "Alarm 7 zebra 打开x ## 灯", "stop", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    return paraformer_directories.aligner(tmp_path_factory.mktemp("aligner") / "model")


@pytest.fixture(scope="module")
def package(folder: Path, tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("package") / "align.gopt"
    compile_directories([folder], "native", "fp32", path)
    return path


def generate(model: Any, wavs: list[Path], texts: list[str], **options: Any) -> Any:
    """Text and times of each, by FunASR."""
    given = [str(wav) for wav in wavs], texts
    with keep_process_settings():
        results = model.generate(input=given, data_type=("sound", "text"), **options)
    return [(result["text"], result["timestamp"]) for result in results]


def aligned(aligner: Aligner, wav: Path, text: str) -> tuple[str, list[list[int]]]:
    said = aligner.align(samples(wav), text)
    assert said.times is not None
    return said.text, list(map(list, said.times))


def test_package_tells_the_times_of_funasr(folder: Path, package: Path) -> None:
    model, aligner = load(folder), load_aligner(package)
    found = set()
    for wav in recordings():
        for text in TEXTS:
            (expected,) = generate(model, [wav], [text])
            assert aligned(aligner, wav, text) == expected
            found.add(str(expected))
    assert len(found) > len(TEXTS)
    model.kwargs["tokenizer"].seg_dict = None
    by_character = replace(aligner, pieces=None)
    (expected,) = generate(model, [wav], TEXTS[:1])
    assert aligned(by_character, wav, TEXTS[0]) == expected
    assert aligner.align(np.zeros(100, np.float32), "打 开").times == []


def test_auto_model_tells_the_times_of_funasr(folder: Path) -> None:
    model = load(folder)
    fast = graphopt.optimize(model, precision="fp32", strict=True)
    assert type(fast.model.encoder) is not type(model.model.encoder)
    wavs = list(recordings())
    texts = TEXTS[: len(wavs)]
    for options in ({}, {"batch_size": len(wavs)}):
        expected = generate(model, wavs, texts, **options)
        assert generate(fast, wavs, texts, **options) == expected
        assert all(times for _, times in expected)


def test_command_line_without_torch(package: Path) -> None:
    wav = next(iter(recordings()))
    text, times = aligned(load_aligner(package), wav, TEXTS[0])

    def align(*options: str) -> str:
        blocked = "import sys; sys.modules |= dict.fromkeys(('torch', 'funasr'))"
        code = f"{blocked}; from graphopt.cli import main; main()"
        command = [sys.executable, "-c", code, "align", str(package), str(wav), TEXTS[0]]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    result = {"key": wav.stem, "text": text, "timestamp": times}
    assert json.loads(align("--json")) == result
    begin, end, word = align().splitlines()[0].split()
    assert (begin, end) == tuple(f"{time / 1000:.2f}" for time in times[0])
    assert word == text.split()[0]


def test_what_a_package_does_not_hold(folder: Path, package: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="recognizes no speech; open it with load_aligner"):
        load_recognizer(package)
    with pytest.raises(ModelDirectoryError, match="no use for the task vad"):
        compile_directories([folder, fsmn_vad.model_folder()], "native", "fp32", tmp_path / "a")
    parts = {"asr": describe(read_directory(MODEL))}
    (tmp_path / DESCRIPTION).write_text(json.dumps({"format": FORMAT, "parts": parts}))
    seal(tmp_path)
    with pytest.raises(PackageError, match="aligns no texts"):
        load_aligner(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("upsample_times", 5), ("upsample_type", "cnn")])
def test_predictors_of_which_funasr_tells_other_times(
    name: str, value: Any, folder: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(folder, tmp_path / "model")
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["predictor_conf"][name] = value
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ModelDirectoryError, match=rf"predictor_conf\.{name}"):
        describe(read_directory(copied))
