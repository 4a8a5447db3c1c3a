"""FSMN-VAD with real weights on real speech: the compiled encoder finds the same segments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

from graphopt.bench.demo import join_recordings  # noqa: E402
from graphopt.bench.engines import TorchDynamicInt8, relative_error  # noqa: E402
from graphopt.zoo import fsmn_vad  # noqa: E402


@pytest.fixture(scope="module")
def vad() -> Any:
    return fsmn_vad.load_vad()


@pytest.fixture(scope="module")
def expected(vad: Any) -> dict[Any, list[fsmn_vad.Segment]]:
    return {wav: fsmn_vad.vad_segments(vad, wav) for wav in fsmn_vad.recordings()}


@pytest.fixture(scope="module")
def speech(vad: Any) -> torch.Tensor:
    return fsmn_vad.recorded_features(vad, fsmn_vad.recordings()[0])


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8+bf16"])
def test_same_segments_on_every_recording(
    vad: Any, expected: dict, speech: torch.Tensor, precision: str
) -> None:
    inputs = fsmn_vad.encoder_inputs(vad, speech)
    fast = graphopt.optimize(
        vad.model.encoder, precision=precision, example_inputs=inputs, strict=True
    )
    assert len(expected) == 27 and sum(map(len, expected.values())) >= 27
    with fsmn_vad.replace_encoder(vad, fast):
        found = {wav: fsmn_vad.vad_segments(vad, wav) for wav in expected}
    assert found == expected


def test_pauses_between_recordings(vad: Any, tmp_path: Path) -> None:
    """Boundaries next to silence are harder than recordings that are speech from end to end."""
    join_recordings(tmp_path / "joined.wav")
    own = vad.model.encoder
    expected = np.array(fsmn_vad.vad_segments(vad, tmp_path / "joined.wav"))
    inputs = fsmn_vad.encoder_inputs(vad, fsmn_vad.recorded_features(vad, tmp_path / "joined.wav"))
    found = {}
    encoders = {
        p: graphopt.optimize(own, precision=p, example_inputs=inputs) for p in ("fp32", "int8")
    }
    encoders["torch int8"] = TorchDynamicInt8().convert(own)
    for name, encoder in encoders.items():
        with fsmn_vad.replace_encoder(vad, encoder):
            found[name] = np.array(fsmn_vad.vad_segments(vad, tmp_path / "joined.wav"))
    assert expected.shape == (3, 2)
    np.testing.assert_array_equal(found["fp32"], expected)
    assert np.abs(found["int8"] - expected).max() <= np.abs(found["torch int8"] - expected).max()


def test_chunks_give_the_scores_of_the_whole(vad: Any, speech: torch.Tensor) -> None:
    feats, cache = fsmn_vad.encoder_inputs(vad, speech)
    fast = graphopt.optimize(
        vad.model.encoder, precision="fp32", example_inputs=(feats, dict(cache)), strict=True
    )
    with torch.inference_mode():
        whole = vad.model.encoder(feats, dict(cache))
        chunks = [fast(chunk, cache) for chunk in feats.split(37, dim=1)]
    assert relative_error(torch.cat(chunks, 1).numpy(), whole.numpy()) < 1e-4
