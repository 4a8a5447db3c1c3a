"""Filter banks in pieces, beside those that kaldi-native-fbank gives for the whole signal."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.funasr.audio.features import FilterBank, fbank, features
from graphopt.funasr.audio.frontend import FrontendConfig

knf = pytest.importorskip("kaldi_native_fbank")

Array = np.ndarray[Any, Any]
PLAIN = FrontendConfig(dither=0.0)
NOISE = np.random.default_rng(0).normal(size=200_000).astype(np.float32) / 4


def whole(samples: Array, config: FrontendConfig) -> Array:
    """What one bank gives for all samples at once."""
    options = knf.FbankOptions()
    options.mel_opts.num_bins = config.n_mels
    options.energy_floor = 0.0
    options.frame_opts.samp_freq = config.fs
    options.frame_opts.dither = config.dither
    options.frame_opts.window_type = config.window
    options.frame_opts.frame_length_ms = config.frame_length
    options.frame_opts.frame_shift_ms = config.frame_shift
    options.frame_opts.snip_edges = config.snip_edges
    bank = knf.OnlineFbank(options)
    scale = 32768 if config.upsacle_samples else 1
    bank.accept_waveform(config.fs, (samples * np.float32(scale)).tolist())
    bank.input_finished()
    rows = [bank.get_frame(i) for i in range(bank.num_frames_ready)]
    return np.array(rows, np.float32).reshape(-1, config.n_mels)


@settings(max_examples=40)
@given(
    st.one_of(
        st.integers(0, 4000),
        st.integers(79_000, 82_000),
        st.integers(0, 3).map(lambda i: 80_000 + [0, 239, 240, 400][i]),
        st.integers(159_000, 162_000),
    ),
    st.sampled_from([(25, 10), (32, 10), (25, 25), (20, 30), (12.5, 7.3), (100, 10)]),
    st.booleans(),
    st.sampled_from([8000, 16000, 22050]),
)
def test_pieces_give_the_bits_of_the_whole(
    count: int, window: tuple[float, float], snip_edges: bool, fs: int
) -> None:
    length, shift = window
    config = FrontendConfig(
        fs, n_mels=40, frame_length=length, frame_shift=shift, dither=0.0, snip_edges=snip_edges
    )
    expected = whole(NOISE[:count], config)
    np.testing.assert_array_equal(fbank(NOISE[:count], config), expected)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(threads: int) -> None:
    cmvn = np.stack([np.linspace(-9, -7, 400), np.linspace(0.1, 0.2, 400)]).astype(np.float32)
    config = replace(PLAIN, lfr_m=5, lfr_n=2)
    expected = features(NOISE[::2], config, cmvn)
    with ThreadPoolExecutor(threads) as executor:
        for _ in range(3):
            made = features(NOISE[::2], config, cmvn, executor.map)
            np.testing.assert_array_equal(made, expected)


def test_a_long_signal_has_pieces_and_one_with_noise_has_none() -> None:
    counts = []

    def each(function: Callable[[int], Array], firsts: Sequence[int]) -> Iterable[Array]:
        counts.append(len(firsts))
        return map(function, firsts)

    assert fbank(NOISE, PLAIN, each).shape == fbank(NOISE, replace(PLAIN, dither=1.0), each).shape
    assert counts == [3, 1]


def test_samples_keep_their_scale_and_may_be_of_any_layout() -> None:
    config = replace(PLAIN, upsacle_samples=False)
    np.testing.assert_array_equal(fbank(NOISE[:5000], config), whole(NOISE[:5000], config))
    apart = NOISE[:10000].reshape(-1, 2)[:, 0]
    np.testing.assert_array_equal(fbank(apart, PLAIN), whole(apart.copy(), PLAIN))
    np.testing.assert_array_equal(fbank(apart.astype(np.float64), PLAIN), whole(apart, PLAIN))


@pytest.mark.parametrize("piece", [100, 159, 1600, 9999])
def test_a_bank_gives_every_frame_once(piece: int) -> None:
    bank = FilterBank(PLAIN)
    taken = [bank.take(NOISE[i : i + piece]) for i in range(0, 20_000, piece)]
    made = np.concatenate([*taken, bank.take(NOISE[:0], is_final=True)])
    np.testing.assert_array_equal(made, whole(NOISE[: -(-20_000 // piece) * piece], PLAIN))
