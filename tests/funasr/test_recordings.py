"""Recordings as people have them, beside what soundfile reads."""

import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import AudioFileError, MissingDependencyError
from graphopt.funasr.audio.recordings import read_recording
from graphopt.funasr.audio.wav import find_samples

soundfile = pytest.importorskip("soundfile")

RATE = 16000
SIGNAL = np.random.default_rng(0).uniform(-0.9, 0.9, (5000, 6))
PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")


def chunk(name: bytes, data: bytes, said: int | None = None, order: str = "<") -> bytes:
    length = len(data) if said is None else said
    return name + struct.pack(f"{order}I", length) + data + b"\0" * (len(data) % 2)


def form(
    bits: int = 16, channels: int = 1, tag: int = 1, rate: int = RATE, width: int = 0
) -> bytes:
    frame = (width or (bits + 7) // 8) * channels
    return struct.pack("<HHIIHH", tag, channels, rate, rate * frame % 2**32, frame, bits)


def wav(*chunks: bytes, form: bytes = b"RIFF", said: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return form + struct.pack("<I", len(body) if said is None else said) + body


PCM = (SIGNAL[:, 0] * 32767).astype("<i2")
SAMPLES = PCM.astype(np.float32) / 32768
FORM, DATA = chunk(b"fmt ", form()), chunk(b"data", PCM.tobytes())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.wav"


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_same_samples_as_soundfile(path: Path, kind: str, subtype: str, channels: int) -> None:
    soundfile.write(path, SIGNAL[:, :channels], RATE, subtype, format=kind)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    with path.open("rb") as file:
        found = find_samples(file)
        assert found is not None and found.rate == RATE
        np.testing.assert_array_equal(np.concatenate(list(found.read(file))), expected)
    read = read_recording(path, RATE)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, expected.astype(np.float64).mean(1), atol=1e-7)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_big_endian(path: Path, subtype: str) -> None:
    soundfile.write(path, SIGNAL[:, :2], RATE, subtype, endian="BIG", format="WAV")
    assert path.read_bytes()[:4] == b"RIFX"
    expected, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(read_recording(path, RATE), expected.mean(1), atol=1e-7)


def test_mixes_channels_as_funasr(path: Path) -> None:
    pytest.importorskip("funasr")
    from graphopt.dependencies import require

    load = require("funasr.utils.load_utils", "this test").load_audio_text_image_video
    for channels in (1, 2, 4, 6):
        soundfile.write(path, SIGNAL[:, :channels], RATE, "PCM_16")
        np.testing.assert_array_equal(read_recording(path, RATE), load(str(path), fs=RATE).numpy())


@pytest.mark.parametrize(
    ("name", "kind", "subtype"),
    [
        ("a.flac", "FLAC", "PCM_16"),
        ("a.ogg", "OGG", "VORBIS"),
        ("a.opus", "OGG", "OPUS"),
        ("a.mp3", "MP3", "MPEG_LAYER_III"),
        ("a.wav", "WAV", "ULAW"),
        ("a.wav", "WAV", "ALAW"),
        ("a.wav", "WAV", "IMA_ADPCM"),
        ("a.raw", "AIFF", "PCM_16"),
    ],
)
def test_coded_files_are_those_of_soundfile(
    tmp_path: Path, name: str, kind: str, subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        soundfile.write(file, SIGNAL[:, :2], RATE, subtype, format=kind)
    with path.open("rb") as file:
        expected, _ = soundfile.read(file.fileno(), dtype="float32", closefd=False)
    # The decoder of MP3 rounds by where its buffers happen to lie.
    np.testing.assert_allclose(read_recording(path, RATE), expected.mean(1), atol=1e-6)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingDependencyError, match=rf"{name}.*graphopt\[transcribe\]"):
        read_recording(path, RATE)


@pytest.mark.parametrize(
    "data",
    [
        wav(FORM, DATA),
        wav(FORM, chunk(b"LIST", b"odd"), DATA, chunk(b"LIST", b"behind")),
        wav(chunk(b"JUNK", bytes(28)), FORM, chunk(b"fact", bytes(4)), DATA),
        wav(FORM, DATA) + b"TAG behind",
        wav(chunk(b"fmt ", form() + b"\0\0"), DATA),
        wav(chunk(b"fmt ", form(tag=0xFFFE) + struct.pack("<HHI", 22, 16, 4) + PCM_GUID), DATA),
        # As programs leave it that cannot go back: ffmpeg, sox, and one that was killed.
        wav(FORM, chunk(b"data", PCM.tobytes(), 0xFFFFFFFF), said=0xFFFFFFFF),
        wav(FORM, chunk(b"data", PCM.tobytes(), 0x7FFFF000), said=0x7FFFF024),
        wav(FORM, chunk(b"data", PCM.tobytes(), 0), said=36),
        wav(FORM, chunk(b"data", PCM.tobytes(), 0), said=0),
        wav(FORM, chunk(b"data", PCM.tobytes(), 0)),
        wav(FORM, chunk(b"data", PCM.tobytes(), 0xFFFFFFFF), said=0xFFFFFFFF) + b"x",
        wav(
            chunk(b"ds64", struct.pack("<QQQI", 0, len(PCM) * 2, 0, 0)),
            FORM,
            chunk(b"data", PCM.tobytes(), 0xFFFFFFFF),
            form=b"RF64",
            said=0xFFFFFFFF,
        ),
        wav(
            chunk(b"ds64", bytes(28)),
            FORM,
            chunk(b"data", PCM.tobytes(), 0xFFFFFFFF),
            form=b"RF64",
            said=0xFFFFFFFF,
        ),
        wav(chunk(b"fmt ", form(bits=12)), DATA),
    ],
)
def test_the_same_samples_in_any_order_of_chunks(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    np.testing.assert_array_equal(read_recording(path, RATE), SAMPLES)


def test_a_file_without_a_sample_is_a_signal_without_one(path: Path) -> None:
    for data in (
        wav(FORM, chunk(b"data", b"")),
        wav(FORM, chunk(b"data", b""), chunk(b"LIST", b"x")),
    ):
        path.write_bytes(data)
        assert read_recording(path, RATE).shape == (0,)


def not_finite() -> bytes:
    values = np.full(9, 0.5, "<f4")
    values[3] = np.nan
    return wav(chunk(b"fmt ", form(32, tag=3)), chunk(b"data", values.tobytes()))


def too_loud() -> bytes:
    values = np.full(9, 3000, "<f4").tobytes()
    return wav(chunk(b"fmt ", form(32, tag=3)), chunk(b"data", values))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "is empty"),
        (b"RIFF", "soundfile cannot read it"),
        (b"This is a letter.\n" * 9, "soundfile cannot read it.*ffmpeg"),
        (wav(FORM, DATA)[:1000], "says 10000 bytes of samples and has 956"),
        (wav(FORM), "no samples"),
        (wav(FORM, FORM, DATA), "says twice"),
        (wav(FORM, DATA, chunk(b"LIST", b"x"), DATA), "in several parts"),
        (wav(FORM) + bytes(100000), "no samples"),
        (wav(FORM, chunk(b"abcd", b"") * 10001, DATA), "more than 10000 chunks"),
        (wav(DATA), "before it says what they are"),
        (wav(), "does not say what its samples are"),
        (wav(chunk(b"fmt ", b"\1\0"), DATA), "does not say what its samples are"),
        (wav(chunk(b"fmt ", form(channels=0)), DATA), "16 bits, 0 channels"),
        (wav(chunk(b"fmt ", form(bits=64)), DATA), "64 bits"),
        (wav(chunk(b"fmt ", form(bits=0)), DATA), "0 bits"),
        (wav(chunk(b"fmt ", form(bits=16, tag=3)), DATA), "16 bits"),
        (wav(chunk(b"fmt ", form(rate=0)), DATA), "0 samples a second"),
        (wav(chunk(b"fmt ", form(rate=1)), DATA), "1 samples a second"),
        (wav(chunk(b"fmt ", form(rate=2**31)), DATA), "2147483648 samples a second"),
        (not_finite(), "nan at sample 3"),
        (too_loud(), "reaches from 3000 to 3000"),
    ],
)
def test_what_is_no_recording_is_named(path: Path, data: bytes, named: str) -> None:
    path.write_bytes(data)
    with pytest.raises(AudioFileError, match=named):
        read_recording(path, RATE)


def test_where_no_recording_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    told = set()
    cases: list[tuple[Any, str]] = [
        (tmp_path / "a.wav", "No such file"),
        (tmp_path, "directory.*give the files"),
        (tmp_path / "pipe", "no file.*into a file first"),
        ("/dev/zero", "no file"),
        (f"a{chr(0)}b", "null"),
        ("a" * 300, "too long"),
        (SAMPLES, "ndarray: it is no path.*recognize"),
        (None, "NoneType: it is no path"),
        (3, "int: it is no path"),
        (b"a.wav", "bytes: it is no path"),
    ]
    for given, named in cases:
        with pytest.raises(AudioFileError, match=named) as refusal:
            read_recording(given, RATE)
        told.add(str(refusal.value))
    assert len(told) == len(cases)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resamples(path: Path, rate: int) -> None:
    """A tone of 1 kHz stays one."""

    def tone(rate: int) -> Any:
        return 0.5 * np.sin(2 * np.pi * 1000 * np.arange(6 * rate) / rate)

    soxr = pytest.importorskip("soxr")
    soundfile.write(path, tone(rate), rate, "FLOAT")
    heard = read_recording(path, 16000)
    assert heard.dtype == np.float32 and len(heard) == 96000
    assert np.abs(heard - tone(16000))[200:-200].max() < 1e-3
    whole = soxr.resample(tone(rate).astype(np.float32), rate, 16000)
    np.testing.assert_array_equal(heard, whole)
