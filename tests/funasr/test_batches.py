"""Batches of unequal lengths: little padding, and the tokens of each utterance alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphopt
from graphopt.funasr.audio.batches import (
    FRAMES,
    WASTE,
    plan_batches,
    recognize_in_batches,
    wasted_frames,
)
from graphopt.zoo.recognizer import MODEL, RECORDINGS


@given(st.lists(st.integers(0, 1500), max_size=60))
def test_every_utterance_once_and_no_batch_too_large(lengths: list[int]) -> None:
    batches = plan_batches(lengths)
    assert sorted(i for b in batches for i in b) == [i for i, n in enumerate(lengths) if n]
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= FRAMES
        assert wasted_frames(lengths, [batch]) <= WASTE + 1e-9


def test_equal_lengths_fill_batches() -> None:
    assert [len(b) for b in plan_batches([100] * 25)] == [10, 10, 5]
    assert plan_batches([3, 0, 4], frames=1) == [[2], [0]]
    assert wasted_frames([], []) == 0 and wasted_frames([1, 2], [[0, 1]]) == 0.25


def test_sorting_saves_padding() -> None:
    """Utterances of 1 to 15 s, in batches of eight as they come and sorted."""
    lengths = np.random.default_rng(0).integers(17, 250, 200).tolist()
    as_they_come = [list(range(i, i + 8)) for i in range(0, 200, 8)]
    batches = plan_batches(lengths)
    assert wasted_frames(lengths, as_they_come) > 0.35
    assert wasted_frames(lengths, batches) < 0.03 and len(batches) < 45


def test_same_tokens_as_alone(int8_package: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("funasr")
    pytest.importorskip("kaldi_native_fbank")
    from graphopt.funasr.audio.features import features
    from graphopt.funasr.audio.recordings import read_recording
    from graphopt.funasr.directory import read_directory
    from graphopt.funasr.recognizer import load_recognizer

    module = graphopt.load(int8_package / "asr")
    directory = read_directory(MODEL)
    whole = [
        features(read_recording(wav, directory.frontend.fs), directory.frontend, directory.cmvn)
        for wav in sorted(RECORDINGS.glob("*.wav"))
    ]
    speech = [*whole, *(one[: len(one) * 3 // 4] for one in whole), whole[0][:0]]
    alone = [module(x[None], np.array([len(x)], np.int32)) for x in speech[:-1]]
    lengths = [len(x) for x in speech]
    together = dict(recognize_in_batches(module, speech.__getitem__, lengths, waste=1.0))
    assert len(plan_batches(lengths, waste=1.0)) == 1
    for i, (ids, counts, *_) in enumerate(alone):
        np.testing.assert_array_equal(together[i][0], ids[0, : int(counts[0])])
    assert len(together) == len(alone) and sum(len(ids) for ids, *_ in together.values()) > 20

    samples = [
        read_recording(wav, directory.frontend.fs) for wav in sorted(RECORDINGS.glob("*.wav"))
    ]
    recognizer = load_recognizer(int8_package)
    texts = recognizer.recognize_all([*samples, samples[0][:0]])
    assert texts == [*(recognizer.recognize(one) for one in samples), ""] and all(texts[:-1])
