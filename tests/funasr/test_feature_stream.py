"""Features of pieces of a signal, beside FunASR's `WavFrontendOnline`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.funasr.audio.feature_stream import FeatureStream
from graphopt.funasr.audio.frontend import FrontendConfig
from graphopt.zoo.recognizer import RECORDINGS

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("kaldi_native_fbank")
soundfile = pytest.importorskip("soundfile")

from funasr.frontends.wav_frontend import WavFrontendOnline  # noqa: E402

CMVN = """<AddShift> {n} {n}
<LearnRateCoef> 0 [ {shift} ]
<Rescale> {n} {n}
<LearnRateCoef> 0 [ {scale} ]
"""


def write_cmvn(path: Path, width: int) -> np.ndarray[Any, Any]:
    """Shift and scale f32[2, width], in FunASR's format too."""
    cmvn = np.stack([np.linspace(-9, -7, width), np.linspace(0.1, 0.2, width)])
    words = {"n": width, "shift": " ".join(map(str, cmvn[0])), "scale": " ".join(map(str, cmvn[1]))}
    path.write_text(CMVN.format(**words))
    return cmvn.astype(np.float32)


@pytest.mark.parametrize(("m", "n"), [(7, 6), (5, 1), (3, 2)])
@pytest.mark.parametrize(
    "pieces",
    [[9600, 9600, 9600], [960] * 9 + [100], [399, 1, 160, 7000, 80, 5, 3000], [5000], [30, 30]],
)
def test_same_features_as_funasr(tmp_path: Path, m: int, n: int, pieces: list[int]) -> None:
    settings = {"lfr_m": m, "lfr_n": n, "dither": 0.0}
    cmvn = write_cmvn(tmp_path / "am.mvn", 80 * m)
    theirs = WavFrontendOnline(cmvn_file=str(tmp_path / "am.mvn"), **settings)
    stream = FeatureStream(FrontendConfig(**settings), cmvn)
    samples, _ = soundfile.read(str(next(RECORDINGS.glob("*.wav"))), dtype="float32")
    cache: dict[str, Any] = {}
    at = frames = 0
    for i, count in enumerate(pieces):
        piece = samples[at : at + count]
        at += count
        is_final = i == len(pieces) - 1
        with torch.no_grad():
            expected, _ = theirs(
                torch.from_numpy(piece)[None], torch.tensor([count]), cache=cache, is_final=is_final
            )
        mine = stream.take(piece, is_final)
        if expected.ndim < 3:
            assert mine.shape == (0, 80 * m)
            continue
        assert mine.shape == tuple(expected[0].shape)
        assert not len(mine) or np.abs(mine - expected[0].numpy()).max() < 2e-3
        frames += len(mine)
    assert frames or sum(pieces) < 400
