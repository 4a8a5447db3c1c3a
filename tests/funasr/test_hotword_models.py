"""Contextual Paraformer and SeACo-Paraformer beside FunASR's own inference."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import graphopt
from graphopt.errors import ModelDirectoryError, RecognizerOptionError, UnsupportedFunasrModelError
from graphopt.funasr.audio.recordings import read_recording
from graphopt.funasr.package import compile_directories
from graphopt.funasr.recognizer import load_recognizer

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("kaldi_native_fbank")

from funasr.models.contextual_paraformer.decoder import ContextualParaformerDecoder  # noqa: E402
from funasr.models.paraformer.decoder import ParaformerSANMDecoder  # noqa: E402

from graphopt.dependencies import keep_process_settings  # noqa: E402
from graphopt.funasr.layers.contextual import (  # noqa: E402
    ContextualDecoder,
    HotwordBias,
    HotwordScores,
    check_decoder_of_hotwords,
)
from graphopt.funasr.layers.paraformer import share_parameters  # noqa: E402
from graphopt.funasr.models.table import MODELS  # noqa: E402
from graphopt.zoo.recognizer.loading import recordings  # noqa: E402
from tests.support import paraformer_directories as directories  # noqa: E402
from tests.support.funasr_directories import generate, load  # noqa: E402

HOTWORDS = [None, "", "kitchen", "window 客厅 灯 打开门 alarm"]


@pytest.fixture(scope="module", params=["seaco", "contextual"])
def folder(request: Any, tmp_path_factory: Any) -> Path:
    if request.param == "seaco":
        return request.getfixturevalue("seaco_folder")
    return directories.contextual(tmp_path_factory.mktemp("models") / "contextual")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load(folder)


@pytest.fixture(scope="module")
def fast(model: Any) -> Any:
    return graphopt.optimize(model, precision="fp32", strict=True)


@pytest.fixture(scope="module")
def package(folder: Path, request: Any) -> Path:
    if folder.name == "seaco":
        return request.getfixturevalue("seaco_package")
    path = folder.with_suffix(".gopt")
    compile_directories([folder], "native", "fp32", path)
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory: Any) -> str:
    return str(directories.many_hotwords(tmp_path_factory.mktemp("many") / "hotwords.txt"))


def results(model: Any, wavs: list[Path], **options: Any) -> Any:
    with keep_process_settings():
        return model.generate(input=[str(wav) for wav in wavs], **options)


def test_hotwords_matter(model: Any, many: str) -> None:
    """Else the tests below would show nothing."""
    texts = {
        tuple(generate(model, str(wav), hotword=hotword) for wav in recordings())
        for hotword in ("", "kitchen", many)
    }
    assert len(texts) == 3


@pytest.mark.parametrize("hotword", HOTWORDS)
def test_generate_gives_the_same(model: Any, fast: Any, hotword: str | None) -> None:
    """Text, and the times of SeACo-Paraformer."""
    expected = results(model, list(recordings()), hotword=hotword)
    assert results(fast, list(recordings()), hotword=hotword) == expected
    assert any(result["text"] for result in expected)


@pytest.mark.parametrize("hotword", HOTWORDS)
def test_generate_gives_the_same_text_in_a_batch(
    model: Any, fast: Any, hotword: str | None
) -> None:
    """Times depend on the padding of a batch, which the LSTM of FunASR's predictor reads."""
    options = {"hotword": hotword, "batch_size": 3}
    texts = [
        [result["text"] for result in results(each, list(recordings()), **options)]
        for each in (model, fast)
    ]
    assert texts[0] == texts[1]


def test_generate_of_a_model_that_tells_times(tmp_path: Path) -> None:
    """BiCifParaformer, which takes no hotwords."""
    folder = directories.bicif(tmp_path / "bicif")
    model = load(folder)
    fast = graphopt.optimize(model, precision="fp32", strict=True)
    expected = results(model, list(recordings()))
    assert results(fast, list(recordings())) == expected
    assert all(result["timestamp"] for result in expected)


def test_generate_with_many_hotwords(model: Any, fast: Any, many: str) -> None:
    expected = results(model, list(recordings()), hotword=many)
    assert results(fast, list(recordings()), hotword=many) == expected


def test_generate_with_a_scale(model: Any, fast: Any) -> None:
    if type(model.model).__name__ != "ContextualParaformer":
        pytest.skip("only Contextual Paraformer scales what hotwords add")
    texts = []
    for scale in (0.0, 1.0, 3.0):
        options = {"hotword": "kitchen", "clas_scale": scale}
        texts.append(results(fast, list(recordings()), **options))
        assert texts[-1] == results(model, list(recordings()), **options)
    assert texts[0] != texts[-1]


def test_package_gives_the_text_of_funasr(model: Any, package: Path, many: str) -> None:
    recognizer = load_recognizer(package)
    wavs = list(recordings())
    recorded = [read_recording(wav, 16000) for wav in wavs]
    for hotword in [*HOTWORDS, many]:
        told = recognizer.with_hotwords(hotword)
        expected = [generate(model, str(wav), hotword=hotword) for wav in wavs]
        assert [told.transcribe(wav) for wav in wavs] == expected
        assert told.recognize_all(recorded) == expected
    assert told.with_hotwords(None).recognize_all(recorded) == recognizer.recognize_all(recorded)


def test_command_line_needs_neither_torch_nor_funasr(package: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('torch', 'funasr', 'onnxruntime'): sys.modules[name] = None\n"
    )
    wav = str(next(iter(recordings())))
    command = [sys.executable, "-m", "graphopt", "transcribe", str(package), wav]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [*command, "--hotword", "kitchen 灯"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = load_recognizer(package, hotword="kitchen 灯").transcribe(wav)
    assert done.stdout.strip() == expected
    refused = subprocess.run(
        [*command, "--hotword", "missing.txt"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert refused.returncode != 0 and "hotword=missing.txt" in refused.stderr


def test_models_without_hotwords_refuse_them(plain_package: Path) -> None:
    with pytest.raises(RecognizerOptionError, match="hotword=kitchen"):
        load_recognizer(plain_package, hotword="kitchen")


def test_a_narrow_precision_compiles_whole(folder: Path, tmp_path: Path) -> None:
    """What it changes is measured on speech; here it only has to recognize."""
    precision = {"seaco": "bf16", "contextual": "int8"}[folder.name]
    compile_directories([folder], "native", precision, tmp_path / "asr.gopt")
    recognizer = load_recognizer(tmp_path / "asr.gopt", hotword="kitchen")
    assert all(isinstance(recognizer.transcribe(wav), str) for wav in recordings())


@pytest.mark.parametrize(
    ("section", "settings", "named"),
    [
        ("model_conf", {"bias_encoder_type": "mean"}, "bias_encoder_type: mean"),
        ("model_conf", {"bias_encoder_bid": True}, "bias_encoder_bid: True"),
        ("seaco_decoder_conf", {"att_layer_num": 4}, "att_layer_num: 4 .known: 6 or more"),
        (None, {"seaco_decoder": "TransformerDecoder"}, "seaco_decoder: TransformerDecoder"),
    ],
)
def test_directories_that_are_not_understood(
    tmp_path: Path, section: str | None, settings: dict[str, Any], named: str
) -> None:
    import yaml

    folder = directories.seaco(tmp_path / "model")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    (config if section is None else config[section]).update(settings)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(ModelDirectoryError, match=named):
        compile_directories([folder], "native", "fp32", tmp_path / "asr.gopt")


class Refused(Exception):
    """Raised instead of compiling."""


def refuse(*_: Any) -> Any:
    raise Refused


def test_models_that_are_not_understood() -> None:
    class SeacoParaformer(torch.nn.Module):
        def __init__(self, layers: int, directions: int = 1) -> None:
            super().__init__()
            self.seaco_decoder = torch.nn.Module()
            self.seaco_decoder.decoders = torch.nn.ModuleList([torch.nn.Identity()] * layers)
            self.bias_encoder = torch.nn.LSTM(4, 4, 2, bidirectional=directions == 2)

    for model, named in (
        (SeacoParaformer(5), "SeacoParaformer with att_layer_num: 5.*6 or more"),
        (SeacoParaformer(6, 2), "SeacoParaformer with bias_encoder_bid: true"),
    ):
        with pytest.raises(UnsupportedFunasrModelError, match=named):
            MODELS["SeacoParaformer"].compile_parts(model, refuse)
    check_decoder_of_hotwords(SeacoParaformer(6))
    with pytest.raises(UnsupportedFunasrModelError, match="Module with bias_encoder_type"):
        MODELS["ContextualParaformer"].compile_parts(torch.nn.Module(), refuse)
    with pytest.raises(Refused):
        MODELS["SeacoParaformer"].compile_parts(SeacoParaformer(6), refuse)


def compiled(part: Any, *inputs: Any) -> Any:
    return graphopt.optimize(part, "native", inputs, precision="fp32", strict=True)


def assert_near(got: Any, expected: Any, counts: Any) -> None:
    for row, count in enumerate(counts):
        assert (got - expected)[row, :count].abs().max() < 1e-3


COUNTS = torch.tensor([13, 6], dtype=torch.int32)
HEARD = torch.tensor([40, 22], dtype=torch.int32)


def test_contextual_decoder_at_official_sizes() -> None:
    torch.manual_seed(0)
    decoder = ContextualParaformerDecoder(
        8404, 512, 4, 2048, num_blocks=4, att_layer_num=3, kernel_size=11, sanm_shfit=0
    )
    decoder.eval().requires_grad_(False)
    hidden, tokens = torch.randn(2, 40, 512), torch.randn(2, 13, 512)
    part = ContextualDecoder(share_parameters(decoder)).eval()
    fast = compiled(part, hidden, HEARD, tokens, COUNTS, torch.randn(2, 5, 512), torch.tensor(1.0))
    for hotwords, scale in ((1, 1.0), (7, 0.5), (60, 2.0)):
        rows = torch.randn(hotwords, 512).repeat(2, 1, 1)
        got = fast(hidden, HEARD, tokens, COUNTS, rows, torch.tensor(scale))
        expected, _ = decoder(hidden, HEARD, tokens, COUNTS, rows, scale)
        assert_near(got, expected, COUNTS)


@pytest.fixture(scope="module")
def second() -> Any:
    """SeACo-Paraformer's decoder of hotwords and its output layer, random."""
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.seaco_decoder = ParaformerSANMDecoder(
        8404,
        512,
        4,
        1024,
        num_blocks=4,
        kernel_size=21,
        sanm_shfit=0,
        use_output_layer=False,
        wo_input_layer=True,
    )
    module.hotword_output_layer = torch.nn.Linear(512, 8404)
    module.hotword_output_layer.weight.data *= 8
    module.hotword_output_layer.bias.data[8377] += 25.0
    module.NO_BIAS = 8377
    return module.eval().requires_grad_(False)


def every(hotwords: int) -> Any:
    return torch.tensor([hotwords] * 2, dtype=torch.int32)


def test_bias_at_official_sizes(second: Any) -> None:
    heard, written = torch.randn(2, 13, 512), torch.randn(2, 13, 512)
    ids = torch.arange(26).reshape(2, 13)
    fast = compiled(
        HotwordBias(second), torch.randn(2, 5, 512), every(5), heard, written, COUNTS, ids
    )
    kept = 0
    for hotwords in (1, 8, 51):
        rows = torch.randn(hotwords, 512).repeat(2, 1, 1)
        decode = second.seaco_decoder
        merged = sum(decode(rows, every(hotwords), x, COUNTS)[0] for x in (heard, written))
        found = second.hotword_output_layer(merged).argmax(-1)
        expected = torch.where(found == second.NO_BIAS, ids, found)
        got = fast(rows, every(hotwords), heard, written, COUNTS, ids)
        for row, count in enumerate(COUNTS):
            assert torch.equal(got[row, :count], expected[row, :count])
            kept += int((expected[row, :count] == ids[row, :count]).sum())
    assert 0 < kept < 3 * int(COUNTS.sum())


def test_scores_of_hotwords_at_official_sizes(second: Any) -> None:
    tokens = torch.randn(2, 13, 512)
    fast = compiled(
        HotwordScores(second.seaco_decoder), torch.randn(2, 5, 512), every(5), tokens, COUNTS
    )
    for hotwords in (2, 51, 300):
        rows = torch.randn(hotwords, 512).repeat(2, 1, 1)
        expected = second.seaco_decoder.forward_asf6(rows, every(hotwords), tokens, COUNTS)
        got = fast(rows, every(hotwords), tokens, COUNTS)
        assert got.shape == expected.shape == (2, 4, 13, hotwords)
        for row, count in enumerate(COUNTS):
            assert (got - expected)[row, :, :count].abs().max() < 1e-5
