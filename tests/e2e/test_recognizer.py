"""The small recognizer: a real model, so that errors are counted in characters."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphopt

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
soundfile = pytest.importorskip("soundfile")

from graphopt.bench import paraformer, recognizer  # noqa: E402
from graphopt.errors import MissingToolError  # noqa: E402
from graphopt.zoo.recognizer import MODEL, loading, phrases, speech  # noqa: E402

pytestmark = pytest.mark.usefixtures("captured_once")
ROOT = Path(__file__).parents[2]
PER_VOICE = 4
needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed: no speech to recognize"
)


@pytest.fixture(scope="module")
def auto_model():
    return loading.load_recognizer()


@pytest.fixture(scope="module")
def scores(auto_model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, recognizer.Score]:
    heard = recognizer.conditions(auto_model, PER_VOICE)
    engines = paraformer.select(["graphopt", "torch.ao", "onnxruntime int8"])
    scored = recognizer.score(auto_model, heard, engines, tmp_path_factory.mktemp("onnx"))
    return {one.engine: one for one in scored}


def test_weights_are_small(auto_model) -> None:
    assert sum(p.numel() for p in auto_model.model.parameters()) <= 3_000_000
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 4_000_000


def test_funasr_reads_every_weight(auto_model) -> None:
    stored = torch.load(MODEL / "model.pt", weights_only=True)
    loaded = auto_model.model.state_dict()
    assert stored.keys() == loaded.keys()
    for name, value in loaded.items():
        assert value.dtype == torch.float32 and torch.equal(value, stored[name].float())


def test_recordings_are_understood(auto_model) -> None:
    heard = {wav: loading.transcribe(auto_model, wav) for wav in loading.recordings()}
    assert len(heard) == 3
    assert {w: t.replace(" ", "") for w, t in heard.items()} == {
        w: t.replace(" ", "") for w, t in loading.recordings().items()
    }


def test_bench_spells_as_funasr_does(auto_model, tmp_path: Path) -> None:
    wavs = list(loading.recordings())
    signals = [soundfile.read(wav, dtype="float32")[0] for wav in wavs]
    inputs = [loading.features(auto_model, signal).numpy() for signal in signals]
    work = recognizer.workload(auto_model, inputs, tmp_path)
    engine = paraformer.peers()[0]
    engine.prepare(work, 1)
    texts = [recognizer.spell(auto_model, ids) for ids in engine.run().values()]
    assert texts == [loading.transcribe(auto_model, wav) for wav in wavs]


def test_int8_is_computed_in_int8(auto_model) -> None:
    """Nothing runs in torch, and the error is that of int8, neither none nor large."""
    wav = next(iter(loading.recordings()))
    signal = soundfile.read(wav, dtype="float32")[0]
    inputs = loading.features(auto_model, signal)
    inputs = (inputs, torch.tensor([inputs.shape[1]], dtype=torch.int32))
    encoder = loading.export_parts(auto_model)[0]
    fast = graphopt.optimize(encoder, precision="int8", example_inputs=inputs, strict=True)
    with torch.inference_mode():
        got, exact = fast(*inputs)[0], encoder(*inputs)[0]
    assert 1e-3 < float((got - exact).norm() / exact.norm()) < 0.1


@needs_espeak
def test_understands_voices_it_never_heard(scores: dict[str, recognizer.Score]) -> None:
    assert scores["torch fp32"].total == 2 * PER_VOICE * len(speech.HELD_OUT_VARIANTS)
    assert scores["torch fp32"].errors["clean"] < 0.05


@needs_espeak
def test_fp32_decides_as_torch_does(scores: dict[str, recognizer.Score]) -> None:
    assert scores["graphopt fp32"].missing == ""
    assert scores["graphopt fp32"].changed == 0
    assert scores["graphopt fp32"].errors == scores["torch fp32"].errors


@needs_espeak
@pytest.mark.parametrize("precision", ["bf16", "int8", "int8+bf16"])
def test_lower_precision_costs_at_most_one_percent(
    scores: dict[str, recognizer.Score], precision: str
) -> None:
    one = scores[f"graphopt {precision}"]
    assert one.missing == ""
    for condition, rate in scores["torch fp32"].errors.items():
        assert one.errors[condition] <= rate + 0.01, condition


@needs_espeak
def test_training_writes_a_directory_that_funasr_reads(tmp_path: Path) -> None:
    script = ROOT / "examples" / "train_paraformer.py"
    command = [sys.executable, str(script), "--small", "--output", str(tmp_path / "model")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    shipped = {path.name for path in MODEL.iterdir() if path.suffix != ".py"}
    assert {path.name for path in (tmp_path / "model").iterdir()} == shipped
    for name in ("config.yaml", "tokens.json", "seg_dict"):
        assert (tmp_path / "model" / name).read_text() == (MODEL / name).read_text()
    fresh = loading.load_recognizer(tmp_path / "model")
    assert isinstance(loading.transcribe(fresh, next(iter(loading.recordings()))), str)


@needs_espeak
def test_equal_utterances_give_equal_speech() -> None:
    utterance = speech.held_out_utterances(1)[0]
    once, again = speech.synthesize(utterance), speech.synthesize(utterance)
    assert once.dtype == np.float32 and np.array_equal(once, again)
    assert 0.2 < len(once) / speech.SAMPLE_RATE < 6 and 0.1 < np.abs(once).max() <= 1


def test_missing_espeak_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(MissingToolError, match="apt-get install espeak-ng"):
        speech.synthesize(speech.held_out_utterances(1)[0])


def test_held_out_voices_are_not_trained_on() -> None:
    held_out, training = set(speech.HELD_OUT_VARIANTS), set(speech.TRAINING_VARIANTS)
    assert not held_out & training and len(held_out) == 12 and len(training) > 80


def test_every_phrase_has_tokens(auto_model) -> None:
    tokenizer = auto_model.kwargs["tokenizer"]
    assert tokenizer.token_list == phrases.token_list()
    for seed in range(300):
        text = " ".join(t for _, t in phrases.draw_parts(np.random.default_rng(seed)))
        ids = tokenizer.encode(text)
        assert tokenizer.unk_id not in ids
        said = recognizer.spell(auto_model, np.array(ids))
        assert said.replace(" ", "") == text.replace(" ", "")


def test_noise_has_the_power_asked_for() -> None:
    rng = np.random.default_rng(0)
    tone = 0.3 * np.sin(np.arange(16000) / 10).astype(np.float32)
    noise = speech.add_noise(tone, 20.0, rng) - tone
    assert 10 * np.log10(np.mean(tone**2) / np.mean(noise**2)) == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize(
    ("expected", "said", "rate"),
    [
        (["打开灯"], ["打开灯"], 0),
        (["打开灯"], ["打灯"], 1 / 3),
        (["打开灯"], ["打开了灯"], 1 / 3),
        (["on off"], ["o n of f"], 0),
        (["ab", "cdef"], ["ax", ""], 5 / 6),
        (["a"], ["bcd"], 3),
    ],
)
def test_character_error_rate(expected: list[str], said: list[str], rate: float) -> None:
    assert recognizer.character_error_rate(expected, said) == pytest.approx(rate)
