"""Punctuation without FunASR, beside its own: the decisions, and a package with CT-Transformer."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import ModelDirectoryError
from graphopt.funasr.package import compile_directories
from graphopt.funasr.recognizer import Recognizer, load_recognizer
from graphopt.funasr.text.punctuation import (
    PunctuationConfig,
    PunctuationStream,
    join_segments,
    punctuate,
    split_words,
)
from graphopt.zoo.recognizer import MODEL

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

import yaml  # noqa: E402
from funasr.auto.auto_model import _join_vad_texts  # noqa: E402
from funasr.models.ct_transformer import utils as theirs  # noqa: E402

from graphopt.zoo import fsmn_vad  # noqa: E402
from graphopt.zoo.recognizer import loading  # noqa: E402
from tests.support import funasr_directories as directories  # noqa: E402

CONFIG = PunctuationConfig(tuple(directories.MARKS))


@pytest.fixture
def folder(punctuation_folder: Path) -> Path:
    return punctuation_folder


@pytest.fixture(scope="module")
def streaming_folder(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("streaming") / "model"
    return directories.ct_transformer(folder, streaming=True)


@pytest.fixture(scope="module")
def recognizer(full_package: Path) -> Recognizer:
    return load_recognizer(full_package)


def random_text(rng: random.Random, words: int) -> str:
    pieces = [
        *directories.CHARACTERS,
        *(f" {w} " for w in directories.WORDS),
        "鱼",
        " iPhone ",
        "é",
    ]
    return "".join(rng.choices(pieces, k=words))


def test_same_words_and_joints_as_funasr() -> None:
    rng = random.Random(0)
    for _ in range(500):
        text = random_text(rng, rng.randint(0, 30)) + rng.choice(["", "\t", "\u3000x", " 7.5"])
        assert split_words(text) == theirs.split_words(text)
        tags = ["", " ", "<|zh|><|HAPPY|>", "你", "好 ", " ok", "7"]
        parts = ["".join(rng.choices(tags, k=2)) for _ in range(rng.randint(0, 5))]
        assert join_segments(parts) == _join_vad_texts(parts)


@pytest.mark.parametrize("weights", [(0, 3, 1, 1, 1, 1), (0, 40, 3, 0, 0, 1), (1, 90, 0, 1, 0, 0)])
def test_same_decisions_as_funasr(
    folder: Path, monkeypatch: pytest.MonkeyPatch, weights: tuple[int, ...]
) -> None:
    """Any classes, drawn anew for each run; sentences shorter and much longer than 200 words."""
    model = directories.load(folder)

    def classes_of(count: int) -> list[int]:
        return random.Random(count).choices(range(len(weights)), weights, k=count)

    def scores(text: Any, text_lengths: Any) -> Any:
        classes = torch.tensor(classes_of(text.shape[1]))
        return torch.nn.functional.one_hot(classes, len(weights)).float()[None], None

    monkeypatch.setattr(model.model, "punc_forward", scores)
    rng = random.Random(1)
    for words in (0, 1, 2, 3, 19, 20, 21, 40, 41, 150, 270, 500):
        text = random_text(rng, words)
        assert punctuate(text, lambda w: classes_of(len(w)), CONFIG) == directories.generate(
            model, text
        )


@pytest.mark.parametrize("weights", [(0, 3, 1, 1, 1, 1), (0, 40, 3, 0, 0, 1), (1, 90, 0, 1, 0, 0)])
def test_same_decisions_as_funasr_piece_by_piece(
    streaming_folder: Path, monkeypatch: pytest.MonkeyPatch, weights: tuple[int, ...]
) -> None:
    """Any classes, drawn anew for each run and for what came before it."""
    model = directories.load(streaming_folder)

    def classes_of(count: int, before: int) -> list[int]:
        return random.Random(1000 * count + before).choices(range(len(weights)), weights, k=count)

    def scores(text: Any, text_lengths: Any, vad_indexes: Any) -> Any:
        classes = torch.tensor(classes_of(text.shape[1], int(vad_indexes[0])))
        return torch.nn.functional.one_hot(classes, len(weights)).float()[None], None

    monkeypatch.setattr(model.model, "punc_forward", scores)
    rng = random.Random(1)
    for _ in range(6):
        stream = PunctuationStream(lambda w, before: classes_of(len(w), before), CONFIG)
        cache: dict[str, Any] = {}
        for words in rng.choices((1, 2, 3, 19, 20, 21, 60, 270), k=6):
            text = random_text(rng, words)
            expected = directories.generate(model, text, cache=cache)
            assert stream.punctuate(text) == expected
            assert stream.punctuate(" ") == ""


def test_same_text_as_funasr_of_a_streaming_model(streaming_folder: Path, tmp_path: Path) -> None:
    """Behind a recognizer of whole utterances, which says one text."""
    compile_directories([streaming_folder, MODEL], "native", "fp32", tmp_path / "asr.gopt")
    punctuator = load_recognizer(tmp_path / "asr.gopt").punctuator
    assert punctuator is not None
    model, rng = directories.load(streaming_folder), random.Random(3)
    stream, cache = punctuator.stream(), {}
    for words in (2, 5, 20, 33, 70):  # FunASR fails for one
        text = random_text(rng, words)
        assert punctuator.punctuate(text) == directories.generate(model, text)
        assert stream.punctuate(text) == directories.generate(model, text, cache=cache)


def test_same_text_as_funasr_of_a_model(folder: Path, recognizer: Recognizer) -> None:
    model, rng = directories.load(folder), random.Random(2)
    assert recognizer.punctuator is not None
    marks = set()
    for words in (1, 5, 20, 33, 70):
        text = random_text(rng, words)
        mine = recognizer.punctuator.punctuate(text)
        assert mine == directories.generate(model, text).strip()
        marks |= set(mine) & {*directories.MARKS, *",."}
    assert len(marks) > 2
    assert recognizer.punctuator.punctuate(" \n") == ""


def test_same_text_as_funasr_of_recordings(folder: Path, recognizer: Recognizer) -> None:
    """FSMN-VAD, Paraformer and CT-Transformer one after the other."""
    model = directories.load(MODEL, vad_model=str(fsmn_vad.model_folder()), punc_model=str(folder))
    silence = np.zeros(16000 * 2, np.float32)
    spoken = [directories.samples(wav) for wav in list(loading.recordings())[:4]]
    for samples in (spoken[0], np.concatenate([p for one in spoken for p in (one, silence)])):
        assert recognizer.recognize(samples) == directories.generate(model, samples).strip()
    assert recognizer.recognize(silence) == ""


def rename_mark(config: dict[str, Any]) -> None:
    config["model_conf"]["punc_list"] = "none"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (rename_mark, "punc_list.*none"),
        (lambda c: c["model_conf"].update(sentence_end_id=9), "sentence_end_id: 9"),
        (lambda c: c["model_conf"].update(jieba_usr_dict="d"), "jieba_usr_dict"),
        (lambda c: c["tokenizer_conf"].update(seg_dict="d"), "tokenizer_conf.seg_dict"),
        (lambda c: c["tokenizer_conf"].update(unk_symbol="<x>"), "unk_symbol: <x>"),
    ],
)
def test_names_what_it_does_not_understand(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    copied = shutil.copytree(folder, tmp_path / "punc")
    file = copied / "config.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    change(config)
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(ModelDirectoryError, match=named):
        compile_directories([copied, MODEL], "native", "fp32", tmp_path / "asr.gopt")
