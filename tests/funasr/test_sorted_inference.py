"""Batches of an optimized AutoModel: like lengths together, results as FunASR gives them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.errors import RecognizerOptionError

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")
soundfile = pytest.importorskip("soundfile")

from graphopt.dependencies import keep_process_settings  # noqa: E402
from graphopt.zoo.recognizer.loading import load_recognizer, recordings  # noqa: E402


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """A recognizer, and the same compiled."""
    model = load_recognizer()
    return model, graphopt.optimize(model, precision="fp32", strict=True)


def generate(model: Any, given: Any, **options: Any) -> Any:
    with keep_process_settings():
        return model.generate(input=given, **options)


@pytest.fixture
def batches(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Samples of the recordings of each batch that reaches the compiled model."""
    seen: list[list[int]] = []
    inference = pair[1].model.inference

    def spy(data_in: Any, **options: Any) -> Any:
        seen.append([len(soundfile.read(x)[0]) if isinstance(x, str) else len(x) for x in data_in])
        return inference(data_in, **options)

    monkeypatch.setattr(pair[1].model, "inference", spy)
    return seen


def unequal() -> list[Any]:
    """Whole recordings and halves of them by turns."""
    spoken = [soundfile.read(str(wav), dtype="float32")[0] for wav in recordings()]
    return [part for one in spoken for part in (one, one[: len(one) // 2])]


@pytest.mark.parametrize(
    "options", [{"batch_size_s": "x"}, {"batch_size_s": -1}, {"batch_size": 0}, {"batch_size": 1.5}]
)
def test_sizes_of_batches_that_are_none(pair: tuple[Any, Any], options: dict[str, Any]) -> None:
    with pytest.raises(RecognizerOptionError, match=next(iter(options))):
        pair[1].generate(input=[np.zeros(9, np.float32)] * 2, **options)


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"batch_size_s": 8}])
def test_same_results_in_order(
    pair: tuple[Any, Any], batches: list[list[int]], options: dict[str, int]
) -> None:
    given = unequal()
    texts = [generate(pair[0], one)[0]["text"] for one in given]
    got = generate(pair[1], given, **options)
    assert [result["text"] for result in got] == texts and len(set(texts)) > 4
    assert sum(map(len, batches)) == len(given) and len(batches) < len(given)
    for batch in batches:
        assert max(batch) * len(batch) <= 1.06 * sum(batch)
        assert len(batch) <= options.get("batch_size", len(batch))
        seconds = max(batch) * len(batch) / 16000
        assert len(batch) == 1 or seconds <= options.get("batch_size_s", seconds)


def test_files_keep_their_keys_and_times(
    pair: tuple[Any, Any], batches: list[list[int]], tmp_path: Path
) -> None:
    files = [str(wav) for wav in recordings()]
    options = {"batch_size": len(files), "output_timestamp": True}
    expected = generate(pair[0], files, **options)
    assert generate(pair[1], files, **options) == expected
    listing = tmp_path / "wav.scp"
    listing.write_text("".join(f"utt{i} {file}\n" for i, file in enumerate(files)))
    got = generate(pair[1], str(listing), batch_size=3)
    assert [result["key"] for result in got] == [f"utt{i}" for i in range(len(files))]
    assert [result["text"] for result in got] == [
        generate(pair[0], file)[0]["text"] for file in files
    ]
    assert len(batches) > 1


def test_a_batch_without_a_word_has_its_results(pair: tuple[Any, Any]) -> None:
    silence = np.zeros(8000, np.float32)
    given = [silence, *unequal()[:2], silence]
    got = generate(pair[1], given, batch_size=2)
    assert len(got) == 4
    assert [got[i]["text"] for i in (1, 2)] == [
        generate(pair[0], one)[0]["text"] for one in given[1:3]
    ]


def test_progress_counts_recordings(pair: tuple[Any, Any]) -> None:
    told: list[tuple[int, int]] = []
    given = unequal()[:5]
    generate(pair[1], given, batch_size=2, progress_callback=lambda *at: told.append(at))
    assert told[-1] == (5, 5) and [done for done, _ in told] == sorted(done for done, _ in told)


def test_one_by_one_without_a_batch_size(pair: tuple[Any, Any], batches: list[list[int]]) -> None:
    given = unequal()[:3]
    generate(pair[1], given)
    assert batches == [[len(one)] for one in given]
