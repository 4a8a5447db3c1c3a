"""Bits of a result do not depend on threads, on the batch, or on what else is in it."""

from typing import Any

import numpy as np
import pytest

import graphopt

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

from graphopt.errors import InputError, InputValueError  # noqa: E402
from graphopt.frontend.import_torch import to_numpy  # noqa: E402
from graphopt.zoo import paraformer  # noqa: E402

pytestmark = pytest.mark.usefixtures("captured_once")
PRECISIONS = ["fp32", "bf16", "int8", "int8+bf16"]


@pytest.fixture(scope="module")
def parts() -> Any:
    return paraformer.paraformer_large(blocks=2, decoder_blocks=2)


@pytest.fixture(scope="module")
def inputs(parts: Any) -> Any:
    """Three utterances of 33, 28 and 22 frames in one batch, for encoder and decoder."""
    features = paraformer.example_inputs(frames=33, batch=3)
    with torch.inference_mode():
        memory, lengths = parts[0](*features)
    return features, paraformer.decoder_inputs(memory.clone(), lengths.clone(), tokens=9)


@pytest.fixture(scope="module")
def built(parts: Any, inputs: Any) -> Any:
    made: dict[Any, Any] = {}

    def build(part: int, precision: str) -> Any:
        if (part, precision) not in made:
            made[part, precision] = graphopt.optimize(
                parts[part],
                precision=precision,
                num_threads=2,
                example_inputs=inputs[part],
                strict=True,
            )
        return made[part, precision]

    return build


@pytest.mark.parametrize("part", [0, 1], ids=["encoder", "decoder"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_do_not_matter(built: Any, inputs: Any, precision: str, part: int) -> None:
    fast = built(part, precision)
    expected = fast(*inputs[part])[0].numpy()
    assert np.isfinite(expected).all()
    (form,) = fast._captured()
    ((_, program, _),) = form._programs()
    arrays = [to_numpy(tensor) for tensor in inputs[part]]
    for threads in (1, 3):
        context = program.library.context(threads)
        assert context.threads == threads
        for _ in range(2):
            assert np.array_equal(context.run(arrays)[0], expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_batch_does_not_matter(built: Any, inputs: Any, precision: str) -> None:
    encoder, decoder = built(0, precision), built(1, precision)
    speech, lengths = inputs[0]
    memory, hlens, embeds, tokens = inputs[1]
    encoded, said = encoder(speech, lengths)[0], decoder(memory, hlens, embeds, tokens)[0]
    for chosen in ([0], [1], [2], [2, 1], [1, 1, 0]):
        t, n = int(lengths[chosen].max()), int(tokens[chosen].max())
        again, _ = encoder(speech[chosen, :t], lengths[chosen])
        words, _ = decoder(memory[chosen, :t], hlens[chosen], embeds[chosen, :n], tokens[chosen])
        for row, b in enumerate(chosen):
            assert torch.equal(again[row, : lengths[b]], encoded[b, : lengths[b]])
            assert torch.equal(words[row, : tokens[b]], said[b, : tokens[b]])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_stands_in_the_padding_does_not_matter(
    built: Any, inputs: Any, precision: str
) -> None:
    encoder = built(0, precision)
    speech, lengths = inputs[0]
    noisy = speech.clone()
    for b, length in enumerate(lengths.tolist()):
        noisy[b, length:] = 1e3
    clean, loud = encoder(speech, lengths)[0], encoder(noisy, lengths)[0]
    for b, length in enumerate(lengths.tolist()):
        assert torch.equal(clean[b, :length], loud[b, :length])


@pytest.mark.parametrize("wrong", [32, 34])
def test_lengths_that_contradict_the_features(built: Any, inputs: Any, wrong: int) -> None:
    encoder = built(0, "int8")
    speech, lengths = inputs[0]
    expected = encoder(speech, lengths)[0]
    bad = lengths.clone()
    bad[0] = wrong
    with pytest.raises(InputValueError, match=f"expected 33, got {wrong}.*check the lengths"):
        encoder(speech, bad)
    with pytest.raises(InputError):
        encoder(speech, lengths[:2])
    assert torch.equal(encoder(speech, lengths)[0], expected)
