"""Model directories: what is read, what is built, and what is refused by name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

import yaml  # noqa: E402

from graphopt.errors import ModelDirectoryError  # noqa: E402
from graphopt.funasr.directory import build_model, read_directory  # noqa: E402
from graphopt.funasr.package import compile_directories  # noqa: E402
from graphopt.zoo.recognizer import MODEL  # noqa: E402
from graphopt.zoo.recognizer.loading import load_recognizer  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "model"
    shutil.copytree(MODEL, copied)
    return copied


def change_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "config.yaml"
    config = yaml.safe_load(file.read_text())
    change(config)
    file.write_text(yaml.safe_dump(config))


def test_reads_what_funasr_reads() -> None:
    directory = read_directory(MODEL)
    theirs = load_recognizer()
    assert directory.model == "Paraformer"
    assert list(directory.tokens) == theirs.kwargs["token_list"]
    frontend = theirs.kwargs["frontend"]
    assert np.array_equal(directory.cmvn, frontend.cmvn.numpy())
    for name in directory.frontend.__dataclass_fields__:
        assert getattr(directory.frontend, name) == getattr(frontend, name)


def test_builds_the_model_that_funasr_builds() -> None:
    model, theirs = build_model(read_directory(MODEL)), load_recognizer().model
    assert type(model) is type(theirs) and not model.training
    expected = theirs.state_dict()
    assert model.state_dict().keys() == expected.keys()
    for name, tensor in model.state_dict().items():
        assert tensor.dtype is torch.float32 and torch.equal(tensor, expected[name].float())


def test_configuration_gives_files_other_names(folder: Path) -> None:
    names = {
        "init_param": "model.pb",
        "config": "asr.yaml",
        "tokenizer_conf": {"token_list": "words.txt"},
        "frontend_conf": {"cmvn_file": "cmvn"},
    }
    tokens = read_directory(folder).tokens
    (folder / "words.txt").write_text("\n".join(tokens), encoding="utf-8")
    (folder / "configuration.json").write_text(json.dumps({"file_path_metas": names}))
    for old, new in (("model.pt", "model.pb"), ("config.yaml", "asr.yaml"), ("am.mvn", "cmvn")):
        (folder / old).rename(folder / new)
    (folder / "tokens.json").unlink()
    directory = read_directory(folder)
    assert directory.tokens == tokens and directory.cmvn is not None
    assert directory.weights.name == "model.pb"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.update(model="Zipper"), "model: Zipper"),
        (lambda c: c.update(encoder="ZipEncoder", decoder="X"), "encoder: ZipEncoder.*decoder: X"),
        (lambda c: c.update(hotword_conf={}), "hotword_conf"),
        (lambda c: c["frontend_conf"].update(pre_emphasis=0.5), "frontend_conf.*pre_emphasis"),
        (lambda c: c["frontend_conf"].update(lfr_m=3), "am.mvn has 560 values for 240 features"),
        (lambda c: c.pop("model"), "config.yaml: it names no model"),
    ],
)
def test_names_what_it_does_not_understand(
    folder: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    change_config(folder, change)
    with pytest.raises(ModelDirectoryError, match=named):
        read_directory(folder)


@pytest.mark.parametrize(
    ("section", "key", "value", "named"),
    [
        ("model_conf", "frobnicate", 1, "model_conf.frobnicate"),
        ("model_conf", "encoder", "Zip", "model_conf.encoder"),
        ("model_conf", "vocab_size", 3, "model_conf.vocab_size"),
        ("encoder_conf", "num_blocks", 10**9, "num_blocks: 1000000000.*weights"),
        ("encoder_conf", "output_size", 2**30, "output_size: 1073741824"),
        ("encoder_conf", "linear_units", 32000, "another shape"),
        ("model_conf", "blank_id", "x", "special"),
        ("encoder_conf", "sanm_shfit", 0.5, "layers do not run"),
        ("predictor_conf", "tail_threshold", "x", "tail_threshold"),
        ("frontend_conf", "fs", 0, "frontend_conf.fs: 0"),
        ("frontend_conf", "n_mels", "80", "frontend_conf.n_mels: '80'"),
        ("frontend_conf", "dither", float("nan"), "frontend_conf.dither: nan is not finite"),
        ("frontend_conf", "frame_length", 1, "filter bank"),
        ("frontend_conf", "cmvn_file", "x", None),
        ("tokenizer_conf", "token_list", "x", None),
        ("tokenizer_conf", "seg_dict", "x", "tokenizer_conf.seg_dict"),
    ],
)
def test_accounts_for_every_setting(
    folder: Path, tmp_path: Path, section: str, key: str, value: Any, named: str | None
) -> None:
    """None: FunASR puts the file of the directory in its place."""
    change_config(folder, lambda config: config.setdefault(section, {}).update({key: value}))
    if named is None:
        assert build_model(read_directory(folder)) is not None
        return
    with pytest.raises(ModelDirectoryError, match=named):
        compile_directories([folder], "native", "fp32", tmp_path / "asr.gopt")


@pytest.mark.parametrize(
    "text",
    [
        "model: &a Paraformer\nencoder: *a",
        "a: &a [*a]",
        "model: Paraformer\nmodel: Paraformer",
        "model: Paraformer\nseed: 2020-01-01",
        "model: Paraformer\nseed: !!binary aaaa",
        "model: Paraformer\nseed: ${x}",
        "model: Paraformer\nseed: .inf",
        "model: [1]",
        "model: {a: b}",
        "1: 2",
        "[" * 9999,
        "- a",
        "",
        "\x00",
        "a: !!int x",
        "a: !!python/object:os.system x",
        'model: "\\ud800"',
        "model: Paraformer\nencoder_conf: 3",
        "model: Paraformer\nmodel_conf: [3]",
    ],
)
def test_names_a_configuration_that_makes_no_sense(folder: Path, text: str) -> None:
    (folder / "config.yaml").write_text(text)
    with pytest.raises(ModelDirectoryError, match=r"config\.yaml"):
        read_directory(folder)


@pytest.mark.parametrize("name", ["config.yaml", "am.mvn", "tokens.json", "seg_dict"])
def test_names_what_is_no_text(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ModelDirectoryError, match=rf"{name}.*UTF-8"):
        read_directory(folder)


@pytest.mark.parametrize("name", ["config.yaml", "am.mvn", "tokens.json", "model.pt"])
def test_opens_nothing_but_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelDirectoryError, match=name):
        read_directory(folder)


@pytest.mark.parametrize("name", ["am.mvn", "seg_dict", "configuration.json", "tokens.json"])
def test_links_that_lead_nowhere_are_not_passed_over(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder / "nowhere")
    with pytest.raises(ModelDirectoryError, match=rf"{name}: No such file"):
        read_directory(folder)


def test_files_may_be_links_as_hubs_lay_them_out(folder: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "am.mvn", "tokens.json", "model.pt"):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
    assert build_model(read_directory(folder)) is not None


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ({"init_param": "../model.pt"}, "no name of a file in the directory"),
        ({"init_param": "/model.pt"}, "no name of a file in the directory"),
        ({"init_param": 3}, "init_param: 3"),
        ({"tokenizer_conf": {"token_list": {"a": "b"}}}, "tokenizer_conf.token_list"),
        ({"tokenizer_conf": []}, "tokenizer_conf"),
        ({"frobnicate": "x"}, "frobnicate is not understood"),
        ({"config": "config.yaml", "init_param": "model.pt"}, "names no tokenizer_conf.token_list"),
        ("x", "no map of names"),
    ],
)
def test_names_that_configuration_may_not_give(folder: Path, names: Any, named: str) -> None:
    (folder / "configuration.json").write_text(json.dumps({"file_path_metas": names}))
    with pytest.raises(ModelDirectoryError, match=named):
        read_directory(folder)


@pytest.mark.parametrize("text", ["[ nan 1 ]", "[ inf 1 ]", "[ 1e60 1 ]", "[ 1 ] ["])
def test_mean_and_variance_that_are_none(folder: Path, text: str) -> None:
    (folder / "am.mvn").write_text(f"<AddShift> {text} <Rescale> {text}")
    with pytest.raises(ModelDirectoryError, match=r"am\.mvn"):
        read_directory(folder)


def test_weights_that_are_not_finite(folder: Path) -> None:
    state = torch.load(folder / "model.pt", weights_only=True)
    name = next(name for name in state if state[name].is_floating_point())
    state[name].view(-1)[0] = float("nan")
    torch.save(state, folder / "model.pt")
    with pytest.raises(ModelDirectoryError, match=f"{name} has values that are not finite"):
        build_model(read_directory(folder))


@pytest.mark.parametrize("given", ["nowhere", None, 3])
def test_a_directory_that_is_none(given: Any) -> None:
    with pytest.raises(ModelDirectoryError, match=f"{given}: there is no such directory"):
        read_directory(given)


@pytest.mark.parametrize("name", ["config.yaml", "model.pt", "tokens.json"])
def test_names_the_file_that_is_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelDirectoryError, match=name):
        read_directory(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("am.mvn", "<Nnet> <AddShift> 2 2 <LearnRateCoef> 0 [ 1 2 ]"),
        ("am.mvn", "<AddShift> [ 1 2 ] <Rescale> [ 1 ]"),
        ("am.mvn", "<AddShift> [ 1 x ] <Rescale> [ 1 2 ]"),
        ("tokens.json", '{"a": 1}'),
        ("tokens.json", "["),
        ("config.yaml", "a: ["),
        ("configuration.json", "[]"),
    ],
)
def test_names_the_file_that_makes_no_sense(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(ModelDirectoryError, match=name):
        read_directory(folder)


@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04"])
def test_names_weights_that_cannot_be_read(folder: Path, data: bytes) -> None:
    (folder / "model.pt").write_bytes(data)
    with pytest.raises(ModelDirectoryError, match=r"model\.pt: "):
        build_model(read_directory(folder))


def test_names_weights_without_names(folder: Path) -> None:
    torch.save([torch.zeros(3)], folder / "model.pt")
    with pytest.raises(ModelDirectoryError, match="no tensors by name"):
        build_model(read_directory(folder))


@pytest.mark.parametrize(
    ("part", "settings", "named"),
    [
        ("encoder_conf", {"frobnicate": 1}, "makes no Paraformer.*frobnicate"),
        ("encoder_conf", {"num_blocks": "four"}, "makes no Paraformer.*str"),
        ("decoder_conf", {"attention_heads": 3}, "makes no Paraformer"),
    ],
)
def test_names_settings_that_funasr_refuses(
    folder: Path, part: str, settings: dict[str, Any], named: str
) -> None:
    change_config(folder, lambda config: config[part].update(settings))
    with pytest.raises(ModelDirectoryError, match=named):
        build_model(read_directory(folder))


def test_names_weights_that_do_not_fit(folder: Path) -> None:
    state = torch.load(folder / "model.pt", weights_only=True)
    first, second, *_ = state
    state["extra.weight"] = state.pop(first)
    state[second] = torch.zeros(3)
    torch.save(state, folder / "model.pt")
    with pytest.raises(ModelDirectoryError) as refusal:
        build_model(read_directory(folder))
    for part in (f"1 missing ({first})", "1 not understood (extra.weight)", f"{second} [3] for"):
        assert part in str(refusal.value)
