"""Compiled language models beside transformers."""

import sys
import threading

import numpy as np
import pytest
import tiny
from tiny import prompts, torch, transformers

import graphopt
from graphopt import errors
from graphopt.ir import DType
from graphopt.ir.interpret import run_graph
from graphopt.llm.decoder.graph import decoder_graph
from graphopt.llm.readers.transformers_model import read_decoder


@pytest.fixture(scope="module")
def pair():
    """A model and its compiled form."""
    model = tiny.model()
    return model, graphopt.optimize(model, precision="fp32", num_threads=2)


def logits(model, ids, **more):
    with torch.no_grad():
        return model(ids, **more).logits


@pytest.mark.parametrize("name", tiny.CLASSES)
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "num_key_value_heads": 4}])
def test_logits_equal_those_of_torch(name, changes):
    model = tiny.model(name, **changes)
    compiled = graphopt.optimize(model, precision="fp32", num_threads=2)
    ids = prompts()
    torch.testing.assert_close(logits(compiled, ids), logits(model, ids), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    "rope", [tiny.LLAMA3_ROPE, {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}]
)
def test_scaled_rotary_embeddings(rope):
    model = tiny.model(rope_parameters=rope)
    compiled = graphopt.optimize(model, precision="fp32", num_threads=1)
    ids = prompts(1, 40)
    torch.testing.assert_close(logits(compiled, ids), logits(model, ids), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"num_beams": 3},
        {"do_sample": True, "top_k": 20},
        {"num_return_sequences": 2, "do_sample": True},
    ],
    ids=["greedy", "beams", "sampled", "several"],
)
def test_generate_gives_the_tokens_of_transformers(pair, how):
    ids = prompts()
    mask = torch.ones_like(ids)
    mask[1, :3] = 0  # padded on the left
    results = []
    for model in pair:
        torch.manual_seed(5)
        results.append(
            model.generate(ids, attention_mask=mask, max_new_tokens=20, min_new_tokens=20, **how)
        )
    assert torch.equal(*results)


def test_streaming(pair):
    class Heard(transformers.generation.streamers.BaseStreamer):
        def __init__(self):
            self.tokens = []

        def put(self, value):
            self.tokens += value.reshape(-1).tolist()

        def end(self):
            self.ended = True

    heard = Heard()
    made = pair[1].generate(prompts(1), max_new_tokens=5, min_new_tokens=5, streamer=heard)
    assert heard.tokens == made[0].tolist() and heard.ended


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_token_at_a_time_gives_the_bits_of_a_prompt(precision):
    engine = graphopt.optimize(tiny.model(), precision=precision, num_threads=2).engine
    ids = prompts(3, 30).numpy()
    whole = engine.forward(ids, engine.new_cache(3), np.arange(90)).reshape(3, 30, -1)
    cache = engine.new_cache(3)
    steps = [engine.forward(ids[:, t : t + 1], cache) for t in range(30)]
    np.testing.assert_array_equal(np.stack(steps, 1), whole)
    cache = engine.new_cache(1)
    alone = [engine.forward(ids[1:2, a:b], cache, np.arange(b - a)) for a, b in ((0, 11), (11, 30))]
    np.testing.assert_array_equal(np.concatenate(alone), whole[1])


def test_sequences_of_unequal_length():
    engine = graphopt.optimize(tiny.model(), precision="fp32", num_threads=2).engine
    ids = prompts(2, 12).numpy()
    cache = engine.new_cache(2)
    engine.forward(ids, cache)
    cache.past = np.array([12, 5])  # the second forgets what it saw from 5 on
    got = engine.forward(ids[:, :1], cache)
    for i, kept in enumerate((12, 5)):
        alone = engine.new_cache(1)
        engine.forward(ids[i : i + 1, :kept], alone)
        np.testing.assert_array_equal(engine.forward(ids[i : i + 1, :1], alone)[0], got[i])


@pytest.mark.parametrize("cache_type", [DType.F32, DType.BF16, DType.I8])
def test_numpy_runs_the_same_graph(pair, cache_type):
    weights = read_decoder(pair[0])
    graph = decoder_graph(weights, cache_type)
    ids = prompts(2, 5).numpy()
    zeros = np.zeros(2, np.int64)
    states = [np.zeros((2, 2, 2, 16, 2, 16), cache_type.numpy)]
    if cache_type is DType.I8:
        states.append(np.zeros((2, 2, 2, 2, 16), np.float32))
    run_graph(graph, [ids[:, :3], zeros, zeros, np.arange(6), *states])
    (got,) = run_graph(graph, [ids[:, 3:], zeros + 3, zeros, np.arange(4), *states])
    wanted = logits(pair[0], torch.from_numpy(ids))[:, 3:].reshape(4, -1)
    bound = 2e-5 if cache_type is DType.F32 else 0.05
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=bound)


def test_precisions_stay_close_to_torch():
    model = tiny.model(hidden_size=128, intermediate_size=256)
    ids = prompts(2, 30)
    wanted = logits(model, ids).log_softmax(-1)
    for precision, bound in (("bf16", 1e-3), ("int8", 5e-3), ("int4", 0.5)):
        got = logits(graphopt.optimize(model, precision=precision), ids).log_softmax(-1)
        loss = float((wanted.exp() * (wanted - got)).sum(-1).mean())
        assert 0 < loss < bound, precision


def test_context_limit_leaves_the_cache_usable(pair):
    model, compiled = pair
    ids = prompts(1, tiny.CONTEXT)
    outputs = compiled(ids[:, :-1])
    cache = outputs.past_key_values
    with pytest.raises(errors.ContextLengthError, match=f"context of {tiny.CONTEXT}"):
        compiled(ids[:, :2], past_key_values=cache)
    last = compiled(ids[:, -1:], past_key_values=cache).logits[0, -1]
    torch.testing.assert_close(last, logits(model, ids)[0, -1], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        (torch.zeros(1, 0, dtype=torch.int64), errors.EmptyInputError),
        (torch.tensor([[3, tiny.VOCABULARY]]), errors.TokenRangeError),
        (torch.tensor([[-1]]), errors.TokenRangeError),
    ],
    ids=["empty", "beyond", "negative"],
)
def test_refused_tokens(pair, ids, error):
    with pytest.raises(error):
        pair[1](ids)
    assert pair[1](prompts(1)).logits.isfinite().all()


def test_padding_inside_a_prompt_is_refused(pair):
    mask = torch.tensor([[1, 1, 1], [1, 0, 1]])
    with pytest.raises(errors.PaddingError, match="sequence 1"):
        pair[1](prompts(2, 3), attention_mask=mask)


def test_two_threads_with_one_cache(pair):
    engine = pair[1].engine
    cache, caught = engine.new_cache(), []
    with cache.claimed():

        def decode():
            with pytest.raises(errors.CacheBusyError) as info:
                engine.forward(prompts(1).numpy(), cache)
            caught.append(info)

        thread = threading.Thread(target=decode)
        thread.start()
        thread.join()
    assert caught and engine.forward(prompts(1).numpy(), cache).shape == (1, tiny.VOCABULARY)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu"},
        {"mlp_bias": True},
        {"attention_bias": True},
        {"some_scale": 3.0},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ],
    ids=["activation", "mlp bias", "output bias", "setting", "rope"],
)
def test_what_the_graph_cannot_express_is_refused(changes):
    with pytest.raises(errors.UnsupportedDecoderError):
        graphopt.optimize(tiny.model(**changes))


def test_a_group_that_does_not_divide_a_depth_is_refused():
    with pytest.raises(errors.GroupSizeError, match=r"group_size 64 .* layers.0.*96"):
        graphopt.optimize(tiny.model(), precision="int4", group_size=64)


def test_a_window_that_cannot_be_reached_is_none():
    """Mistral has a window of 4096 unless told otherwise."""
    model = tiny.model("Mistral")
    assert model.config.sliding_window == 4096
    read_decoder(model)
    model.config.sliding_window = tiny.CONTEXT - 1
    with pytest.raises(errors.UnsupportedDecoderError, match="window"):
        read_decoder(model)
    sliding = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}
    with pytest.raises(errors.UnsupportedDecoderError, match="window"):
        read_decoder(tiny.model("Qwen2", **sliding))


def test_attention_to_later_tokens_is_refused():
    with pytest.raises(errors.UnsupportedDecoderError, match="attention to later tokens"):
        read_decoder(tiny.model(is_causal=False))


def test_a_model_that_fails_itself_is_named(monkeypatch):
    model = tiny.model(num_hidden_layers=1)
    monkeypatch.setattr(sys.modules[type(model).__module__], "apply_rotary_pos_emb", None)
    with pytest.raises(errors.CaptureError, match=r"LlamaForCausalLM; the model itself fails"):
        graphopt.optimize(model, precision="fp32")


def test_changed_modules_are_refused():
    model = tiny.model()
    read_decoder(model)
    handle = model.model.layers[0].mlp.register_forward_hook(lambda module, x, y: y * 2)
    with pytest.raises(errors.UnsupportedDecoderError, match=r"hook on model\.layers\.0\.mlp"):
        read_decoder(model)
    handle.remove()
    model.model.layers[1].mlp.extra = torch.nn.Linear(4, 4)
    with pytest.raises(errors.UnsupportedDecoderError, match=r"layers\.1\.mlp\.extra\.weight"):
        read_decoder(model)
    del model.model.layers[1].mlp.extra

    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    model.model.layers[1].mlp.up_proj.__class__ = Doubled
    with pytest.raises(errors.UnsupportedDecoderError, match=r"layers\.1\.mlp\.up_proj"):
        read_decoder(model)


def test_other_causal_models_in_int4_are_refused():
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=50, n_positions=16)
    model = transformers.GPT2LMHeadModel(config).eval()
    for given in ({"precision": "int4"}, {"kv_cache": "int8"}, {"calibration": [[1, 2]]}):
        with pytest.raises(errors.UnsupportedDecoderError, match=r"GPT2.*'gpt2'.*example_inputs"):
            graphopt.optimize(model, **given)
