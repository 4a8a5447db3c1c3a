"""`graphopt.optimize` of an AutoModel: what generate() returns does not change."""

from pathlib import Path
from typing import Any

import pytest

import graphopt

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("sentencepiece")

from funasr.models.ct_transformer.model import CTTransformer  # noqa: E402
from funasr.models.sense_voice.model import SenseVoiceEncoderSmall  # noqa: E402

from graphopt.dependencies import keep_process_settings  # noqa: E402
from graphopt.errors import UnsupportedFunasrModelError  # noqa: E402
from graphopt.funasr.auto_model import optimize_auto_model  # noqa: E402
from graphopt.zoo import fsmn_vad  # noqa: E402
from graphopt.zoo.recognizer import MODEL  # noqa: E402
from graphopt.zoo.recognizer.loading import load_recognizer, recordings  # noqa: E402
from tests.support import funasr_directories as directories  # noqa: E402


def generate(auto_model: Any, wav: Path, **options: Any) -> Any:
    with keep_process_settings():
        return auto_model.generate(input=str(wav), **options)


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """A recognizer, and the same compiled."""
    model = load_recognizer()
    return model, graphopt.optimize(model, precision="fp32", strict=True)


def test_same_text_of_every_recording(pair: tuple[Any, Any]) -> None:
    model, fast = pair
    assert type(fast) is type(model) and fast.model is not model.model
    for wav in recordings():
        assert generate(fast, wav) == generate(model, wav)


def test_same_text_and_times_in_a_batch(pair: tuple[Any, Any]) -> None:
    model, fast = pair
    several = [str(wav) for wav in recordings()]
    options = {"batch_size": len(several), "output_timestamp": True}
    with keep_process_settings():
        expected = model.generate(input=several, **options)
        got = fast.generate(input=several, **options)
    assert [r["text"] for r in got] == [r["text"] for r in expected]
    assert [r["timestamp"] for r in got] == [r["timestamp"] for r in expected]


def test_with_vad_model() -> None:
    model = directories.load(MODEL, vad_model=str(fsmn_vad.model_folder()))
    fast = graphopt.optimize(model, precision="fp32", strict=True)
    first, second = list(recordings())[:2]
    for wav in (first, second, fsmn_vad.recordings()[0]):
        assert generate(fast, wav) == generate(model, wav)
    asked: list[dict[str, Any]] = [
        {"max_end_silence_time": 200, "batch_size_s": 10, "batch_size_threshold_s": 1},
        {"merge_vad": True, "merge_length_s": 5},
        {"output_timestamp": True, "return_raw_text": True, "hotword": "a", "language": "zh"},
    ]
    for options in asked:
        assert generate(fast, first, **options) == generate(model, first, **options)


def vad_in_chunks(model: Any, speech: Any, milliseconds: int) -> list[list[int]]:
    """What a VAD says after each chunk; the cache is passed along. -1 stands for a time to come."""
    cache: dict[str, Any] = {}
    step = 16 * milliseconds
    values = []
    for begin in range(0, len(speech), step):
        with keep_process_settings():
            (result,) = model.generate(
                input=speech[begin : begin + step],
                cache=cache,
                is_final=begin + step >= len(speech),
                chunk_size=milliseconds,
            )
        values += result["value"]
    return values


def test_vad_alone_whole_and_in_chunks() -> None:
    import soundfile

    vad = fsmn_vad.load_vad()
    fast = graphopt.optimize(vad, precision="fp32", strict=True)
    found = 0
    for wav, milliseconds in zip(fsmn_vad.recordings(), (200, 60, 500), strict=False):
        assert fsmn_vad.vad_segments(fast, wav) == fsmn_vad.vad_segments(vad, wav)
        speech, rate = soundfile.read(wav, dtype="float32")
        assert rate == 16000
        expected = vad_in_chunks(vad, speech, milliseconds)
        assert vad_in_chunks(fast, speech, milliseconds) == expected
        found += len(expected)
    assert found > 3


def test_punctuation_scores() -> None:
    """CT-Transformer with official sizes but for its vocabulary, and random weights."""
    torch.manual_seed(0)
    encoder = {
        "input_size": 256,
        "output_size": 256,
        "attention_heads": 8,
        "linear_units": 1024,
        "num_blocks": 4,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "kernel_size": 11,
        "sanm_shfit": 0,
        "selfattention_layer_type": "sanm",
    }
    marks = ["<unk>", "_", "comma", "period", "question"]
    with keep_process_settings():
        model = CTTransformer("SANMEncoder", encoder, 500, marks, embed_unit=256, att_unit=256)
    model.eval()
    fast = _compiled(model)
    for length in (1, 7, 40):
        text = torch.randint(0, 500, (1, length))
        lengths = torch.tensor([length], dtype=torch.int32)
        with torch.no_grad():
            expected, _ = model.punc_forward(text, lengths)
            got, _ = fast.punc_forward(text, lengths)
        assert (got - expected).abs().max() < 1e-4


def test_sense_voice_encoder() -> None:
    torch.manual_seed(0)
    encoder = SenseVoiceEncoderSmall(
        560, 512, 4, 2048, num_blocks=3, tp_blocks=2, kernel_size=11, sanm_shfit=0
    )

    class SenseVoiceSmall(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

    model = SenseVoiceSmall().eval()
    fast = _compiled(model)
    lengths = torch.tensor([30, 17])
    speech = torch.randn(2, 30, 560)
    with torch.no_grad():
        expected, _ = model.encoder(speech.clone(), lengths)
        got, made = fast.encoder(speech, lengths)
    assert torch.equal(made, lengths)
    for row, length in enumerate(lengths):
        assert (got - expected)[row, :length].abs().max() < 1e-3


def _compiled(model: Any) -> Any:
    """The model as an AutoModel's would be."""

    class Holder:
        pass

    holder: Any = Holder()
    holder.model = model
    compiled = optimize_auto_model(
        holder,
        lambda part, inputs: graphopt.optimize(
            part, "native", inputs, precision="fp32", strict=True
        ),
    )
    return compiled.model


def test_a_model_that_is_not_known_is_named(pair: tuple[Any, Any]) -> None:
    class Sond(torch.nn.Module):
        pass

    with pytest.raises(UnsupportedFunasrModelError, match=r"Sond.*Paraformer"):
        _compiled(Sond())
