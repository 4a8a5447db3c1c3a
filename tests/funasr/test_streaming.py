"""Models that hear a recording chunk by chunk: what generate() returns does not change."""

from pathlib import Path
from typing import Any

import pytest

import graphopt

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("sentencepiece")

from graphopt.errors import UnsupportedFunasrModelError  # noqa: E402
from graphopt.funasr.models.table import MODELS  # noqa: E402
from graphopt.zoo.recognizer import loading  # noqa: E402
from tests.support import funasr_directories as directories  # noqa: E402


@pytest.fixture(scope="module")
def pair(tmp_path_factory: Any) -> tuple[Any, Any]:
    """Paraformer streaming, and the same compiled."""
    folder = directories.paraformer_streaming(tmp_path_factory.mktemp("online") / "model")
    model = directories.load(folder)
    return model, graphopt.optimize(model, precision="fp32", strict=True)


@pytest.mark.parametrize(
    ("chunk_size", "encoder", "decoder"),
    [([0, 10, 5], 4, 1), ([0, 8, 4], 1, 0), ([0, 10, 5], 0, 0), ([5, 10, 5], -1, 2)],
)
def test_same_text_as_funasr(
    pair: tuple[Any, Any], chunk_size: list[int], encoder: int, decoder: int
) -> None:
    """Chunks of 600 and 480 ms that look back at several, one, none or all before."""
    options = {
        "chunk_size": chunk_size,
        "encoder_chunk_look_back": encoder,
        "decoder_chunk_look_back": decoder,
    }
    for wav in list(loading.recordings())[:3]:
        samples = directories.samples(wav)
        expected = directories.hear(pair[0], samples, **options)
        assert directories.hear(pair[1], samples, **options) == expected
        assert len("".join(expected)) > 10


def test_same_marks_as_funasr(tmp_path: Path) -> None:
    """CT-Transformer, told a text piece by piece."""
    model = directories.load(directories.ct_transformer(tmp_path / "punc", streaming=True))
    fast = graphopt.optimize(model, precision="fp32", strict=True)
    text = directories.CHARACTERS * 5
    pieces = ["".join(text[begin : begin + 7]) for begin in range(0, len(text), 7)]
    caches: list[dict[str, Any]] = [{}, {}]
    said = ""
    for piece in [*pieces, " turn on the light " * 9]:
        expected = directories.generate(model, piece, cache=caches[0])
        assert directories.generate(fast, piece, cache=caches[1]) == expected
        said += expected
    assert set(said) & set(directories.MARKS) and caches[0] == caches[1]


def test_a_decoder_that_looks_ahead_is_named(pair: tuple[Any, Any]) -> None:
    model = pair[0].model
    model.decoder.decoders[0].self_attn.pad_fn.padding = (5, 5)
    try:
        with pytest.raises(UnsupportedFunasrModelError, match="looks ahead"):
            MODELS["ParaformerStreaming"].compile_parts(model, lambda part, inputs: part)
    finally:
        model.decoder.decoders[0].self_attn.pad_fn.padding = (10, 0)
