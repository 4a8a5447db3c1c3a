"""Segments of speech without FunASR, beside its own; and a package that finds, then recognizes."""

import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import (
    ModelDirectoryError,
    PackageError,
    RecognizerOptionError,
)
from graphopt.funasr.audio.features import features
from graphopt.funasr.audio.vad import VadConfig, segments
from graphopt.funasr.package import compile_directories
from graphopt.funasr.recognizer import Recognizer, load_recognizer
from graphopt.funasr.stream.detector_stream import DetectorStream
from graphopt.zoo.recognizer import MODEL

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("sentencepiece")
soundfile = pytest.importorskip("soundfile")

import yaml  # noqa: E402
from funasr.models.fsmn_vad_streaming.model import VADXOptions  # noqa: E402

from graphopt.dependencies import keep_process_settings  # noqa: E402
from graphopt.zoo import fsmn_vad  # noqa: E402
from graphopt.zoo.recognizer import loading  # noqa: E402
from tests.support import funasr_directories as directories  # noqa: E402

VAD_SETTINGS = yaml.safe_load((fsmn_vad.model_folder() / "config.yaml").read_text())["model_conf"]


@pytest.fixture(scope="module")
def package(detecting_package: Path) -> Path:
    return detecting_package


@pytest.fixture(scope="module")
def recognizer(package: Path) -> Recognizer:
    return load_recognizer(package)


@pytest.fixture(scope="module")
def vad() -> Any:
    return fsmn_vad.load_vad()


@pytest.fixture(scope="module")
def auto_model() -> Any:
    return directories.load(MODEL, vad_model=str(fsmn_vad.model_folder()))


def samples_of(wav: Path) -> np.ndarray:
    samples, rate = soundfile.read(str(wav), dtype="float32")
    assert rate == 16000
    return samples


def funasr_segments(vad: Any, samples: np.ndarray) -> list[tuple[int, int]]:
    with keep_process_settings():
        (result,) = vad.generate(input=samples)
    return [(int(start), int(end)) for start, end in result["value"]]


def test_same_segments_as_funasr(recognizer: Recognizer) -> None:
    """Every recording, and two that FunASR reads in blocks of a minute."""
    vad, detector = fsmn_vad.load_vad(), recognizer.detector
    assert detector is not None
    found = [samples_of(wav) for wav in fsmn_vad.recordings()]
    found += [np.concatenate(found), np.tile(found[0], 40)[: 16000 * 130]]
    count = 0
    for samples in found:
        expected = funasr_segments(vad, samples)
        assert detector.find(samples) == expected
        count += len(expected)
    assert count > len(found)


@pytest.mark.parametrize("chunk_ms", [60, 200, 500])
def test_same_segments_as_funasr_chunk_by_chunk(recognizer: Recognizer, chunk_ms: int) -> None:
    """What each chunk tells; the last one whole, cut short, or without a sample."""
    vad, step = fsmn_vad.load_vad(), 16 * chunk_ms
    assert recognizer.detector is not None
    spoken = [samples_of(wav) for wav in fsmn_vad.recordings()[:3]]
    together = np.concatenate([part for one in spoken for part in (one, np.zeros(48000))])
    count = 0
    for samples in (spoken[0], together[: 10 * step], together.astype(np.float32)):
        stream, cache = DetectorStream(recognizer.detector, chunk_ms), {}
        for begin in range(0, len(samples), step):
            piece, is_final = samples[begin : begin + step], begin + step >= len(samples)
            with keep_process_settings():
                (expected,) = vad.generate(
                    input=piece, cache=cache, is_final=is_final, chunk_size=chunk_ms
                )
            told = stream.feed(piece) + (stream.finish() if is_final else [])
            assert told == [tuple(pair) for pair in expected["value"]]
            count += len(told)
    assert count > 5


def test_a_stream_of_silence_tells_nothing(recognizer: Recognizer) -> None:
    assert recognizer.detector is not None
    for samples in (0, 100, 16000):
        stream = DetectorStream(recognizer.detector)
        assert stream.feed(np.zeros(samples, np.float32)) == [] and stream.finish() == []


def test_same_text_as_funasr_with_a_detector(recognizer: Recognizer, auto_model: Any) -> None:
    spoken = [samples_of(wav) for wav in loading.recordings()]
    silence = np.zeros(16000 * 3, np.float32)
    meeting = np.concatenate([part for one in spoken[:3] for part in (one, silence)])
    for samples in (*spoken, meeting):
        with keep_process_settings():
            (result,) = auto_model.generate(input=samples)
        assert recognizer.recognize(samples) == " ".join(result["text"].split())
    assert recognizer.detector is not None and len(recognizer.detector.find(meeting)) == 3


def test_features_are_computed_on_the_threads_of_the_model(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = recognizer.detector
    assert detector is not None
    samples = np.resize(samples_of(fsmn_vad.recordings()[0]), 16000 * 21 + 77)
    alone = features(samples, detector.frontend, detector.cmvn)
    np.testing.assert_array_equal(detector.features(samples), alone)
    pieces = []
    monkeypatch.setattr(
        type(detector.module),
        "map",
        lambda _, take, items: [pieces.append(i) or take(i) for i in items],
    )
    np.testing.assert_array_equal(detector.features(samples), alone)
    assert len(pieces) > 4


def peak_bytes(call: Callable[[], Any]) -> int:
    """Most memory that Python and numpy take during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_recording(recognizer: Recognizer) -> None:
    """Of twice as many minutes, or utterances; a minute of features is 9.6 MB, of scores 6 MB.

    How many utterances are on their way at once depends on the threads: one more of 15 s takes
    2.4 MB of features, and if they were kept, the eight more would take 19 MB.
    """
    detector, speech = recognizer.detector, recognizer.speech
    assert detector is not None
    long = np.resize(samples_of(fsmn_vad.recordings()[0]), 16000 * 241)
    spoken = np.resize(samples_of(next(iter(loading.recordings()))), 16000 * 15)
    for call in (
        lambda times: detector.find(long[: 16000 * 120 * times]),
        lambda times: speech.texts([spoken] * 8 * times),
        lambda times: speech.utterances([spoken] * 8 * times),
    ):
        call(1)
        once, twice = (peak_bytes(lambda: call(times)) for times in (1, 2))  # noqa: B023
        assert twice < once + (4 << 20)
    assert detector.module.arena_bytes < 60e6  # of a minute


def test_silence_has_no_segment(recognizer: Recognizer) -> None:
    assert recognizer.detector is not None
    for count in (0, 100, 16000):
        samples = np.zeros(count, np.float32)
        assert recognizer.detector.find(samples) == [] and recognizer.recognize(samples) == ""


def scores(*lengths: int) -> np.ndarray:
    """Likelihoods of silence and of speech: runs of silence and speech by turns."""
    silent = np.concatenate([np.full(n, 1.0 - i % 2) for i, n in enumerate(lengths)])
    return np.stack([silent, 1 - silent], 1).astype(np.float32)


def test_a_segment_ends_with_the_recording_or_when_silence_lasts() -> None:
    config = VadConfig()
    assert segments([scores(100, 50)], config) == [(740, 1500)]
    # Of the silence the 50 ms until the window hears it belong to the segment, and 110 ms more.
    assert segments([scores(100, 50, 400)], config) == [(740, 1660)]
    assert segments([scores(100, 14, 100)], config) == []


def test_a_long_segment_is_cut() -> None:
    cut = segments([scores(0, 7000)], VadConfig())
    assert cut[0] == (0, 60010) and cut[1][0] == 60010 and cut[1][1] == 70000


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, {"max_end_silence_time": 300}),
        ({}, {"max_end_silence_time": 0}),
        ({}, {"max_end_silence_time": 1500, "speech_noise_thres": 0.9}),
        ({}, {"dynamic_silence": False}),
        ({}, {"max_end_silence_time": 300, "dynamic_silence": False}),
        ({}, {"silence_schedule": [[1000, 400], [3000, 200]]}),
        ({"window_size_ms": 300, "sil_to_speech_time_thres": 100}, {}),
        ({"speech_to_sil_time_thres": 50, "lookback_time_start_point": 20}, {}),
        ({"lookahead_time_end_point": 400}, {"max_end_silence_time": 700}),
        ({"do_extend": 0}, {}),
        ({"do_extend": 0}, {"max_end_silence_time": 400}),
        ({"max_single_segment_time": 2500, "speech_2_noise_ratio": 1.7}, {}),
        ({"detect_mode": 0}, {}),
        ({"detect_mode": 0, "max_start_silence_time": 300}, {}),
        ({"do_start_point_detection": False, "snr_mode": 1, "dcd_block_size": 8}, {}),
    ],
)
def test_options_mean_what_they_mean_in_funasr(
    recognizer: Recognizer, vad: Any, settings: dict[str, Any], asked: dict[str, Any]
) -> None:
    detector, spoken = recognizer.detector, [samples_of(wav) for wav in fsmn_vad.recordings()[:4]]
    assert detector is not None
    signal = np.concatenate(spoken)
    config = detector.config.change(asked | settings, detector.frontend)
    changed = replace(detector, config=config)
    vad.model.vad_opts = VADXOptions(**VAD_SETTINGS | settings)
    with keep_process_settings():
        (expected,) = vad.generate(input=signal, **asked)
        chunk = {"cache": {}, "is_final": True, "chunk_size": 200}
        (chunks,) = vad.generate(input=signal, **asked, **chunk)
    assert changed.find(signal) == [tuple(pair) for pair in expected["value"]]
    stream = DetectorStream(changed)
    assert stream.feed(signal) + stream.finish() == [tuple(pair) for pair in chunks["value"]]
    if settings.get("max_start_silence_time") != 300:
        assert expected["value"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_end_silence": 300}, "max_end_silence'"),
        ({"max_end_silence_time": "300"}, "max_end_silence_time: '300'"),
        ({"max_end_silence_time": -1}, "max_end_silence_time: -1"),
        ({"max_end_silence_time": 3, "dynamic_silence": True}, "max_end_silence_time: without"),
        ({"speech_noise_thres": 0.7}, "speech_noise_thres: without effect"),
        ({"max_start_silence_time": 300}, "max_start_silence_time: without effect"),
        (
            {"dynamic_silence": False, "silence_schedule": [[9, 9]]},
            "silence_schedule: without effect",
        ),
        ({"decibel_thres": -30}, "decibel_thres: -30"),
        ({"snr_thres": 3}, "snr_thres: 3"),
        ({"sample_rate": 8000}, "sample_rate: 8000"),
        ({"fe_prior_thres": 2.0}, "fe_prior_thres: 2"),
        ({"silence_pdf_num": 2}, "silence_pdf_num: 2"),
        ({"window_size_ms": 0}, "window_size_ms"),
        ({"sil_pdf_ids": [999]}, "sil_pdf_ids"),
    ],
)
def test_options_that_are_none_are_named(
    package: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecognizerOptionError, match=named):
        load_recognizer(package, vad_options=options)


@pytest.mark.parametrize("options", [[("max_end_silence_time", 300)], "max", 5])
def test_options_are_a_map(package: Path, options: Any) -> None:
    with pytest.raises(RecognizerOptionError, match="a map of"):
        load_recognizer(package, vad_options=options)


@pytest.mark.parametrize("chunk_ms", [0, -5, 200.5, "200", None, True])
def test_chunks_that_are_none(recognizer: Recognizer, chunk_ms: Any) -> None:
    assert recognizer.detector is not None
    with pytest.raises(RecognizerOptionError, match=f"chunk_ms={chunk_ms}"):
        DetectorStream(recognizer.detector, chunk_ms)


def test_chunks_are_as_long_as_they_say_at_any_rate(recognizer: Recognizer) -> None:
    """Of rates that are no whole number of samples a millisecond too, as in FunASR."""
    assert recognizer.detector is not None
    frontend = replace(recognizer.detector.frontend, fs=22050)
    stream = DetectorStream(replace(recognizer.detector, frontend=frontend), 60)
    assert stream.chunk == int(60 * 22050 / 1000) == 1323


def test_options_of_a_package(package: Path, vad: Any) -> None:
    signal = np.concatenate([samples_of(wav) for wav in fsmn_vad.recordings()[:3]])
    vad.model.vad_opts = VADXOptions(**VAD_SETTINGS)
    expected = vad.generate(input=signal, max_end_silence_time=200)[0]["value"]
    detector = load_recognizer(package, vad_options={"max_end_silence_time": 200}).detector
    assert detector is not None and detector.find(signal) == [tuple(pair) for pair in expected]


def test_names_settings_that_are_not_understood(tmp_path: Path) -> None:
    folder = tmp_path / "vad"
    shutil.copytree(fsmn_vad.model_folder(), folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model_conf"]["decibel_thres"] = -30.0
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ModelDirectoryError, match=r"decibel_thres: -30\.0"):
        compile_directories([folder, MODEL], "native", "fp32", tmp_path / "asr.gopt")
    with pytest.raises(PackageError, match="recognize speech"):
        compile_directories([fsmn_vad.model_folder()], "native", "fp32", tmp_path / "asr.gopt")
