"""What passes the gate for samples, and what it says of everything else."""

from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import SamplesError, StreamEndedError
from graphopt.funasr.audio.feature_stream import FeatureStream
from graphopt.funasr.audio.features import FilterBank, features
from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.funasr.audio.samples import LIMIT, SignalStream, check_recordings, check_samples

SIGNAL = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
PLAIN = FrontendConfig(dither=0.0)


@pytest.mark.parametrize(
    "given",
    [
        SIGNAL.astype(np.float64),
        SIGNAL.astype(">f4"),
        SIGNAL.astype(">f8"),
        SIGNAL.astype(np.longdouble),
        np.repeat(SIGNAL, 2)[::2],
        SIGNAL[::-1][::-1],
    ],
    ids=lambda array: f"{array.dtype}",
)
def test_any_layout_of_a_signal_is_the_signal(given: Any) -> None:
    given.flags.writeable = False
    passed = check_samples(given)
    assert passed.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(passed, SIGNAL)


@pytest.mark.parametrize("order", "<>")
def test_samples_of_16_bits_are_scaled(order: str) -> None:
    given = np.array([-32768, -1, 0, 1, 32767], f"{order}i2")
    assert check_samples(given).tolist() == [-1, -1 / 32768, 0, 1 / 32768, 32767 / 32768]


def test_a_signal_may_be_empty_or_overshoot_and_is_not_copied() -> None:
    assert check_samples(np.zeros(0)).shape == (0,)
    assert check_samples(np.zeros(0, np.int16)).dtype == np.float32
    loud = np.float32([-LIMIT, LIMIT])
    assert check_samples(loud) is loud


class _Array:
    def __array__(self) -> Any:
        return SIGNAL


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (SIGNAL[None], r"shape \(1, 4000\).*samples\[0\]"),
        (SIGNAL[:, None], r"shape \(4000, 1\).*samples\[:, 0\]"),
        (SIGNAL.reshape(2, -1), r"samples\.mean\(0\)"),
        (SIGNAL.reshape(-1, 2), r"samples\.mean\(1\)"),
        (np.zeros(()), "one dimension"),
        (np.where(np.arange(4000) == 77, np.nan, SIGNAL), "nan at sample 77.*nan_to_num"),
        (np.where(np.arange(4000) > 3998, -np.inf, SIGNAL), "-inf at sample 3999"),
        (SIGNAL * 32768, "reaches from -32.* divide"),
        (np.full(3, 1e300), "reaches from 1e.300"),
        (np.zeros(9, np.int32), "dtype int32.*i16"),
        (np.zeros(9, np.uint8), "dtype uint8"),
        (np.zeros(9, np.uint16), "dtype uint16"),
        (np.zeros(9, bool), "dtype bool"),
        (np.zeros(9, complex), "dtype complex"),
        (np.zeros(9, object), "dtype object"),
        (np.array(["a.wav"]), "dtype <U5"),
        (np.ma.masked_greater(SIGNAL, 0), r"filled\(0\)"),
        ("a.wav", "path 'a.wav'.*read_recording"),
        (Path("a.wav"), "path 'a.wav'.*transcribe"),
        (b"\0\0", "type bytes.*frombuffer"),
        (bytearray(4), "type bytearray.*frombuffer"),
        (memoryview(b"\0\0"), "type memoryview.*frombuffer"),
        ([0.0, 0.1], "type list.*np.array"),
        ((0.0,), "type tuple.*np.array"),
        (array("f", [0.0]), "type array.*numpy array"),
        (None, "type NoneType"),
        (0.5, "type float"),
        (_Array(), "type _Array"),
        ({"samples": SIGNAL}, "type dict"),
    ],
)
def test_what_is_no_signal_is_named(given: Any, named: str) -> None:
    with pytest.raises(SamplesError, match=named):
        check_samples(given)


def test_tensors_are_named() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(SamplesError, match=r"type Tensor; give samples\.numpy"):
        check_samples(torch.zeros(9))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["a.wav", "b.wav"], "recording 0: it is the path 'a.wav'"),
        ([SIGNAL, SIGNAL[None]], "recording 1: it has shape"),
        ("a.wav", "recordings: it is the path"),
        (SIGNAL, "recordings: it is of type ndarray.*list of arrays"),
        (b"\0\0", "recordings: it is of type bytes"),
        (None, "recordings: it is of type NoneType"),
        ({"a": SIGNAL}, "recording 0: it is the path 'a'"),
    ],
)
def test_what_are_no_recordings_is_named(given: Any, named: str) -> None:
    with pytest.raises(SamplesError, match=named):
        check_recordings(given)


def test_rows_and_generators_are_recordings() -> None:
    rows = SIGNAL.reshape(4, -1)
    for given in (rows, list(rows), iter(rows)):
        np.testing.assert_array_equal(check_recordings(given), rows)
    assert check_recordings([]) == []


@pytest.mark.parametrize("wrong", ["a.wav", SIGNAL[None], [0.0], SIGNAL * 32768])
def test_every_way_to_features_has_the_gate(wrong: Any) -> None:
    for take in (
        FilterBank(PLAIN).take,
        FeatureStream(PLAIN, None).take,
        lambda given: features(given, PLAIN, None),
    ):
        with pytest.raises(SamplesError):
            take(wrong)


def test_integers_have_the_features_of_the_same_floats() -> None:
    integers = (SIGNAL * 32767).astype(np.int16)
    expected = features(integers.astype(np.float32) / 32768, PLAIN, None)
    np.testing.assert_array_equal(features(integers, PLAIN, None), expected)


class _Counter(SignalStream[int]):
    """Tells how many samples there were."""

    heard = 0

    def _feed(self, samples: Any) -> list[int]:
        self.heard += len(samples)
        return []

    def _finish(self) -> list[int]:
        return [self.heard]


def test_a_stream_refuses_what_is_no_signal_and_goes_on() -> None:
    stream = _Counter()
    assert stream.feed(SIGNAL) == []
    for wrong in (SIGNAL[None], SIGNAL * np.nan, "a.wav", None):
        with pytest.raises(SamplesError):
            stream.feed(wrong)
    assert stream.feed(SIGNAL[:0]) == [] and stream.finish() == [len(SIGNAL)]


def test_a_stream_that_is_over_is_over() -> None:
    stream = _Counter()
    stream.finish()
    with pytest.raises(StreamEndedError, match="_Counter"):
        stream.feed(SIGNAL)
    with pytest.raises(StreamEndedError, match="_Counter"):
        stream.finish()
