"""The filter bank beside FunASR's own."""

from dataclasses import replace

import numpy as np
import pytest

from graphopt.funasr.directory import WINDOWS, FrontendConfig
from graphopt.funasr.filter_bank import fbank

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

from funasr.utils import fbank as theirs  # noqa: E402

CONFIG = FrontendConfig(dither=0.0)


def signal(count: int) -> np.ndarray:
    """Tones that come and go, and noise, in [-1, 1)."""
    t, rng = np.arange(count) / 16000, np.random.default_rng(0)
    tones = sum(np.sin(2 * np.pi * f * t) * np.sin(t * f / 100) ** 2 for f in (110, 440, 3000))
    return (0.2 * tones + 0.01 * rng.normal(size=count) + 0.05).astype(np.float32)


def funasr_fbank(samples: np.ndarray, config: FrontendConfig) -> np.ndarray:
    bank = theirs.fbank(
        torch.from_numpy(samples)[None] * 32768,
        num_mel_bins=config.n_mels,
        frame_length=config.frame_length,
        frame_shift=config.frame_shift,
        dither=config.dither,
        energy_floor=0.0,
        window_type=config.window,
        sample_frequency=config.fs,
        snip_edges=config.snip_edges,
    )
    return np.asarray(bank.numpy())


@pytest.mark.parametrize(
    "config",
    [
        *(replace(CONFIG, window=window) for window in WINDOWS),
        replace(CONFIG, fs=8000, n_mels=40),
        replace(CONFIG, frame_length=20, frame_shift=7.5, n_mels=23),
        replace(CONFIG, snip_edges=False),
    ],
)
@pytest.mark.parametrize("count", [400, 401, 16000, 50003])
def test_same_energies_as_funasr(config: FrontendConfig, count: int) -> None:
    samples = signal(count)
    expected, mine = funasr_fbank(samples, config), fbank(samples, config)
    assert mine.shape == expected.shape and mine.dtype == np.float32
    # Theirs is up to 2e-3 from the exact value for the window with the lowest side lobes.
    assert np.abs(mine - expected).max() < 4e-3


def test_silence_has_the_least_energy() -> None:
    assert fbank(np.zeros(0, np.float32), CONFIG).shape == (0, 80)
    assert np.array_equal(
        fbank(np.zeros(800, np.float32), CONFIG), np.full((3, 80), np.log(np.float32(2**-23)))
    )


def test_dither_is_noise() -> None:
    noisy = replace(CONFIG, dither=1.0)
    first, second = (fbank(np.zeros(1600, np.float32), noisy) for _ in range(2))
    assert not np.array_equal(first, second) and np.isfinite(first).all()
