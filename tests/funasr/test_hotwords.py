"""Hotwords from text to rows of a decoder's memory, beside FunASR's own reading and LSTM."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.errors import RecognizerOptionError, UnsupportedFunasrModelError
from graphopt.funasr.text.hotwords import HotwordEncoder, read_hotwords, read_pieces, split_words
from graphopt.zoo.recognizer import MODEL

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

from funasr.models.seaco_paraformer.model import SeacoParaformer  # noqa: E402
from funasr.tokenizer.char_tokenizer import CharTokenizer  # noqa: E402

from graphopt.funasr.layers.bias_encoder import (  # noqa: E402
    HotwordStep,
    LstmStep,
    bias_encoder,
    empty_state,
)

TEXTS = ["", "kitchen", "Kitchen 客厅 灯9 strange é", "打开 7 window  alarm", "x" * 40, "厅客 厅é"]
STEP: Any = None  # of encoders that only read


def funasr_ids(hotword: str, cmvn: Path | None) -> list[list[int]]:
    """The token ids that FunASR reads."""
    tokenizer = CharTokenizer(token_list=str(MODEL / "tokens.json"), unk_symbol="<unk>")
    frontend = SimpleNamespace(cmvn_file=None if cmvn is None else str(cmvn))
    found: list[list[int]] = SeacoParaformer.generate_hotwords_list(
        SimpleNamespace(sos=1), hotword, tokenizer=tokenizer, frontend=frontend
    )
    return found


def our_ids(hotword: str, pieces: dict[str, list[str]] | None, monkeypatch: Any) -> Any:
    tokens = CharTokenizer(token_list=str(MODEL / "tokens.json"), unk_symbol="<unk>").token_list
    ids = {token: i for i, token in enumerate(tokens)}
    monkeypatch.setattr(HotwordEncoder, "_run", lambda self, hotwords: hotwords)
    return HotwordEncoder(STEP, ids, ids["<unk>"], 1, pieces).encode(hotword)


@pytest.mark.parametrize("text", TEXTS)
def test_same_tokens_as_funasr(text: str, tmp_path: Path, monkeypatch: Any) -> None:
    pieces = read_pieces((MODEL / "seg_dict").read_text(encoding="utf-8"))
    assert our_ids(text, pieces, monkeypatch) == funasr_ids(text, MODEL / "am.mvn")
    assert our_ids(text, None, monkeypatch) == funasr_ids(text, None)
    file = tmp_path / "hotwords.txt"
    file.write_text("turn on\nkitchen light 客厅\n" + (text or "灯") + "\n", encoding="utf-8")
    assert our_ids(str(file), pieces, monkeypatch) == funasr_ids(str(file), MODEL / "am.mvn")
    assert our_ids(str(file), None, monkeypatch) == funasr_ids(str(file), None)


def test_lines_without_a_word_are_no_hotwords(tmp_path: Path) -> None:
    file = tmp_path / "hotwords.txt"
    file.write_text("\n  \na b\n\n", encoding="utf-8")
    assert read_hotwords(str(file)) == [["a", "b"]]


def test_words_that_a_dictionary_lacks_are_split_where_they_are_chinese_or_digits() -> None:
    pieces = {"打": ["打"], "it": ["i@@", "t"]}
    assert split_words(["IT", "打开9", "other"], pieces) == ["i@@", "t", "打", *["<unk>"] * 3]


@pytest.mark.parametrize("bad", ["http://a/b.txt", "missing.txt", "latin.txt"])
def test_hotwords_that_cannot_be_read(bad: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(RecognizerOptionError, match=rf"hotword={bad}.*path of a .txt file"):
        read_hotwords(bad)
    with pytest.raises(RecognizerOptionError, match=r"hotword=\['a'\]"):
        read_hotwords(["a"])  # type: ignore[arg-type]


def test_a_hotword_without_a_token(monkeypatch: Any) -> None:
    with pytest.raises(RecognizerOptionError, match="hotword=nothing"):
        our_ids("打 nothing", {"nothing": [], "打": ["打"]}, monkeypatch)


def lstm(width: int, layers: int) -> Any:
    torch.manual_seed(width)
    return torch.nn.LSTM(width, width, layers, batch_first=True).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=[(20, 1), (512, 2)], ids=["small", "official"])
def encoder(request: Any, tmp_path_factory: Any) -> Iterator[tuple[Any, Any, HotwordEncoder]]:
    """An embedding and an LSTM of torch, and the same as a package."""
    width, layers = request.param
    embedding, cell = torch.nn.Embedding(60, width).eval(), lstm(width, layers)
    example = (torch.zeros(3, dtype=torch.int64), empty_state(cell, 3))
    step = HotwordStep(embedding.requires_grad_(False), cell)
    path = tmp_path_factory.mktemp("step") / "step.gopt"
    graphopt.optimize(step, "native", example, precision="fp32", strict=True).save(path)
    ids = {f"w{i}": i for i in range(60)}
    yield embedding, cell, HotwordEncoder(graphopt.load(path), ids, 59, 1, None)


@pytest.mark.parametrize("counts", [[], [1], [4, 1, 9, 2], [3] * 40])
def test_same_rows_as_torch(encoder: Any, counts: list[int], tmp_path: Path) -> None:
    embedding, cell, ours = encoder
    draws = np.random.default_rng(0)
    hotwords = [draws.integers(2, 59, size=count).tolist() for count in counts]
    file = tmp_path / "hotwords.txt"
    file.write_text("\n".join(" ".join(f"w{i}" for i in ids) for ids in hotwords))
    made = ours.encode(str(file))
    assert made.dtype == np.float32 and made.shape == (len(counts) + 1, cell.hidden_size)
    for row, ids in zip(made, [*hotwords, [1]], strict=True):
        outputs, _ = cell(embedding(torch.tensor([ids])))
        assert np.abs(row - outputs[0, -1].numpy()).max() < 1e-5


def test_the_step_keeps_the_weights_of_the_model() -> None:
    cell = lstm(8, 2)
    assert {id(p) for p in LstmStep(cell).parameters()} == {id(p) for p in cell.parameters()}


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (SimpleNamespace(bias_encoder_type="mean"), "bias_encoder_type: mean.*lstm"),
        (SimpleNamespace(), "bias_encoder_type: mean"),
        (SimpleNamespace(bias_encoder=torch.nn.LSTM(4, 4, bidirectional=True)), "bid: true"),
    ],
)
def test_other_encoders_are_named(model: Any, named: str) -> None:
    with pytest.raises(UnsupportedFunasrModelError, match=named):
        bias_encoder(model)
