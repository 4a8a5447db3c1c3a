"""Caches of transformers as results and as arguments of models with default settings."""

import copy
from typing import Any

import pytest

import graphopt

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from graphopt.compiler.specialization import Specialization  # noqa: E402
from graphopt.frontend import nesting  # noqa: E402

SIZES = dict(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
IDS = torch.arange(10).reshape(2, 5) + 3


@pytest.fixture(autouse=True)
def in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled parts run in numpy."""
    monkeypatch.setattr(Specialization, "run", Specialization.interpret)
    monkeypatch.setattr(Specialization, "build", lambda _: None)


def close(got: Any, wanted: Any) -> None:
    (mine, spec), (its, expected) = nesting.flatten(got), nesting.flatten(wanted)
    assert spec == expected
    for one, other in zip(mine, its, strict=True):
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        else:
            assert one == other


def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, intermediate_size=32, num_key_value_heads=1)
    return transformers.LlamaModel(config).eval()


@torch.no_grad()
def test_a_cache_that_grows() -> None:
    """The caller's own cache is the one that grows, and the one in the result."""
    model = llama()
    fast = graphopt.optimize(model, precision="fp32")
    got, wanted = fast(input_ids=IDS), model(input_ids=IDS)
    close(got, wanted)
    cache, its = got.past_key_values, wanted.past_key_values
    assert type(cache) is transformers.DynamicCache and cache.get_seq_length() == 5
    for length in (6, 7):
        again = fast(input_ids=IDS[:, :1], past_key_values=cache)
        close(again, model(input_ids=IDS[:, :1], past_key_values=its))
        assert again.past_key_values is cache and cache.get_seq_length() == length
    assert len(fast._captured()) == 2


@torch.no_grad()
def test_a_cache_that_is_written_to_in_place() -> None:
    model = llama()
    fast = graphopt.optimize(model, precision="fp32")
    mine = transformers.StaticCache(config=model.config, max_cache_len=8)
    its = copy.deepcopy(mine)
    for start, stop in ((0, 3), (3, 4)):
        ids, places = IDS[:, start:stop], torch.arange(start, stop)
        call = dict(input_ids=ids, position_ids=places[None])
        close(
            fast(**call, past_key_values=mine, cache_position=places),
            model(**call, past_key_values=its, cache_position=places),
        )
    close(mine, its)


@torch.no_grad()
def test_caches_of_an_encoder_and_a_decoder() -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=99, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    model = transformers.T5Model(config).eval()
    fast = graphopt.optimize(model, precision="fp32")
    call = dict(input_ids=IDS, decoder_input_ids=IDS[:, :2])
    got, wanted = fast(**call), model(**call)
    close(got, wanted)
    assert type(got.past_key_values) is transformers.EncoderDecoderCache
    last = dict(decoder_input_ids=IDS[:, 2:3])
    close(
        fast(encoder_outputs=(got[2],), past_key_values=got.past_key_values, **last),
        model(encoder_outputs=(wanted[2],), past_key_values=wanted.past_key_values, **last),
    )
