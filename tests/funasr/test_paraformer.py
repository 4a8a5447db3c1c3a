"""Paraformer as one graph, from features to token ids, beside FunASR's own inference."""

import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

import graphopt

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

from graphopt.funasr.directory import build_model, read_directory  # noqa: E402
from graphopt.funasr.layers.paraformer import Paraformer  # noqa: E402
from graphopt.zoo import paraformer as zoo  # noqa: E402
from graphopt.zoo.recognizer import MODEL  # noqa: E402

pytestmark = pytest.mark.usefixtures("captured_once")


def funasr_tokens(model: Any, speech: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
    """The ids that FunASR's own model finds: the steps of its inference()."""
    with torch.no_grad():
        hidden, hidden_lengths = model.encode(speech, lengths)
        embeddings, counts, _, _ = model.calc_predictor(hidden, hidden_lengths)
        counts = counts.round().long()
        if counts.max() < 1:
            return [[] for _ in counts]
        scores, _ = model.cal_decoder_with_predictor(hidden, hidden_lengths, embeddings, counts)
    return [row[:n].tolist() for row, n in zip(scores.argmax(-1), counts, strict=True)]


def our_tokens(result: Any) -> list[list[int]]:
    ids, counts = result
    return [row[:n].tolist() for row, n in zip(ids, counts, strict=True)]


@pytest.fixture(scope="module")
def model() -> Any:
    return build_model(read_directory(MODEL))


@pytest.fixture(scope="module")
def compiled(model: Any) -> Callable[[str, str], Any]:
    """A function that compiles for a precision and a target."""
    whole, inputs = Paraformer(model), zoo.example_inputs(60, 2)

    @cache
    def compile_for(precision: str, target: str = "native") -> Any:
        return graphopt.optimize(
            whole, target, precision=precision, example_inputs=inputs, strict=True
        )

    return compile_for


@pytest.fixture(scope="module")
def fast(compiled: Any) -> Any:
    return compiled("fp32")


def test_captured_with_one_item(model: Any) -> None:
    single = graphopt.optimize(
        Paraformer(model), precision="fp32", example_inputs=zoo.example_inputs(60, 1), strict=True
    )
    for frames, batch in ((60, 1), (33, 3)):
        speech, lengths = zoo.example_inputs(frames, batch, seed=frames)
        assert our_tokens(single(speech, lengths)) == funasr_tokens(model, speech, lengths)


@pytest.mark.parametrize(("frames", "batch"), [(60, 2), (1, 1), (33, 3), (90, 5), (200, 1)])
def test_same_tokens_as_funasr(model: Any, fast: Any, frames: int, batch: int) -> None:
    speech, lengths = zoo.example_inputs(frames, batch, seed=frames)
    assert our_tokens(fast(speech, lengths)) == funasr_tokens(model, speech, lengths)


def test_capture_leaves_the_model_as_it_was(model: Any) -> None:
    before = {name: id(p) for name, p in model.named_parameters()}
    kinds = [type(m) for m in model.modules()]
    Paraformer(model)
    assert {name: id(p) for name, p in model.named_parameters()} == before
    assert [type(m) for m in model.modules()] == kinds


def test_package_without_torch_in_the_path(fast: Any, tmp_path: Any) -> None:
    fast.save(tmp_path / "asr.gopt")
    loaded = graphopt.load(tmp_path / "asr.gopt")
    speech, lengths = zoo.example_inputs(70, 3, seed=9)
    mine = loaded(speech.numpy(), lengths.numpy())
    assert our_tokens(mine) == our_tokens(fast(speech, lengths))


@pytest.mark.parametrize("precision", ["int8", "bf16", "int8+bf16"])
def test_narrow_precisions_compile_whole(compiled: Any, precision: str) -> None:
    """Which tokens they change is measured on speech; on noise they only have to be tokens."""
    ids, counts = compiled(precision)(*zoo.example_inputs(50, 3))
    assert ids.shape == (3, counts.max()) and ids.max() < len(read_directory(MODEL).tokens)


@pytest.mark.filterwarnings("ignore::graphopt.compiler.program.OtherMachineWarning")
@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_code_for_neoverse_n2(compiled: Any, precision: str) -> None:
    given, arm = zoo.example_inputs(23, 2), compiled(precision, "neoverse-n2")
    assert our_tokens(arm.emulate(*given)) == our_tokens(compiled(precision)(*given))
