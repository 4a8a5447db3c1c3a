"""The interface of transformers: whatever a call gives is honoured, or refused by name.

Runs with the installed transformers and, in test_oldest.py, with the oldest that is allowed.
"""

import pytest
import tiny
from tiny import prompts, torch, transformers

import graphopt
from graphopt import errors
from graphopt.llm.interface.generation import CACHE, DecoderCache

HOW = {"max_new_tokens": 8, "pad_token_id": 0}


@pytest.fixture(scope="module")
def pair():
    """A model and its compiled form."""
    model = tiny.model()
    return model, graphopt.optimize(model, precision="fp32", num_threads=1)


@pytest.fixture(scope="module")
def draft(pair):
    """A smaller model, whose guesses are right at times, and its compiled form."""
    model = tiny.model(num_hidden_layers=1)
    return model, graphopt.optimize(model, precision="fp32", num_threads=1)


def batch():
    ids = prompts(2, 9)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    return ids, mask


def generated(model, ids, **how):
    torch.manual_seed(7)
    made = model.generate(ids, **{**HOW, **how})
    return made if isinstance(made, torch.Tensor) else made.sequences


class Forbidden:
    """A logits processor."""

    def __call__(self, input_ids, scores):
        scores[:, 5:20] = -torch.inf
        return scores


WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5},
    "sampled": {"do_sample": True, "top_k": 20, "top_p": 0.9, "temperature": 0.7},
    "sampled beams": {"num_beams": 2, "do_sample": True},
    "whole prompts": {"use_cache": False},
    "static": {"cache_implementation": "static"},
    "penalties": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "guidance": {"guidance_scale": 1.5},
    "suppressed": {"suppress_tokens": [5, 6, 7], "forced_eos_token_id": 1},
    "forbidden": {"logits_processor": [Forbidden()]},
    "stopped": {"stopping_criteria": [lambda ids, scores: torch.tensor([ids.shape[1] > 12] * 2)]},
    "outputs": {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
}


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_ways_to_generate(pair, how):
    ids, mask = batch()
    if how.get("cache_implementation"):
        wanted = generated(pair[0], ids, attention_mask=mask)
    else:
        wanted = generated(pair[0], ids, attention_mask=mask, **how)
    assert torch.equal(generated(pair[1], ids, attention_mask=mask, **how), wanted)


def test_drafts(pair, draft):
    """Prompt lookup, and a smaller model beside or behind a compiled one: the greedy tokens."""
    ids = prompts(1, 20)
    ids[:, 10:] = ids[:, :10]
    wanted = generated(pair[0], ids)
    assert torch.equal(generated(pair[1], ids, prompt_lookup_num_tokens=3), wanted)
    for target, assistant in ((1, 0), (1, 1), (0, 1)):
        made = generated(pair[target], ids, assistant_model=draft[assistant])
        assert torch.equal(made, wanted)


def test_scores_are_those_of_torch(pair):
    ids, mask = batch()
    how = {"return_dict_in_generate": True, "output_logits": True, "attention_mask": mask, **HOW}
    one, two = (model.generate(ids, **how) for model in pair)
    for mine, theirs in zip(two.logits, one.logits, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)
    assert isinstance(two[CACHE], DecoderCache) and len(two.logits) == 8


def test_a_conversation_goes_on_from_a_cache(pair):
    ids, mask = batch()
    first = pair[1].generate(ids, attention_mask=mask, return_dict_in_generate=True, **HOW)
    longer = torch.cat([first.sequences, prompts(2, 4)], 1)
    mask = torch.cat([mask, torch.ones(2, longer.shape[1] - mask.shape[1], dtype=mask.dtype)], 1)
    cache = {CACHE: first[CACHE]}
    got = generated(pair[1], longer, attention_mask=mask, **cache)
    assert torch.equal(got, generated(pair[0], longer, attention_mask=mask))


@torch.no_grad()
def both(pair, *given, **named):
    """Outputs of the model and of its compiled form."""
    one, two = (model(*given, **named) for model in pair)
    return one, two


def same(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=2e-5)


def test_arguments_that_are_honoured(pair):
    ids, mask = batch()
    wide = torch.ones(2, 1, 9, 9, dtype=torch.bool).tril() & mask[:, None, None].bool()
    added = torch.zeros(2, 1, 9, 9).masked_fill(~wide, torch.finfo(torch.float32).min)
    shown = mask.bool()
    for given in (
        {"attention_mask": mask},
        {"attention_mask": mask.bool()},
        {"attention_mask": wide},
        {"attention_mask": added},
        {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)},
        {"attention_mask": mask, "position_ids": torch.arange(9)[None] + 4},
    ):
        one, two = both(pair, ids, **given)
        same(two.logits[shown], one.logits[shown])
        assert two.logits.isfinite().all()  # of padding too: the loss of all tokens has them
    for given in (
        {"logits_to_keep": 2},
        {"logits_to_keep": torch.tensor([3, 0, -1])},
        {"labels": torch.where(mask == 0, -100, ids)},
        {"token_type_ids": torch.zeros_like(ids), "output_attentions": False, "labels": None},
    ):
        one, two = both(pair, ids, **given)
        same(two.logits, one.logits)
        assert (one.loss is None) == (two.loss is None)
        if one.loss is not None:
            same(two.loss, one.loss)


def test_what_comes_back(pair):
    ids, _ = batch()
    one, two = both(pair, ids, return_dict=False)
    assert isinstance(two, tuple) and len(one) == len(two)
    same(two[0], one[0])
    one, two = both(pair, ids, use_cache=False)
    assert one[CACHE] is two[CACHE] is None if CACHE in one else CACHE not in two
    cache = pair[1](ids[:, :5]).past_key_values
    behind = pair[1](ids[:, 5:], cache_position=torch.arange(5, 9), **{CACHE: cache}).logits
    same(behind, both(pair, ids)[0].logits[:, 5:])


def test_arguments_that_are_refused(pair):
    ids, mask = batch()
    compiled = pair[1]
    anywhere = torch.ones(2, 1, 9, 9, dtype=torch.bool)
    packed = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    for name, given in (
        ("inputs_embeds", {"input_ids": None, "inputs_embeds": torch.zeros(2, 9, 64)}),
        ("input_ids", {"input_ids": None}),
        ("input_ids", {"input_ids": ids.float()}),
        ("input_ids", {"input_ids": ids[0]}),
        ("attention mask of sequence 0", {"attention_mask": anywhere}),
        ("attention mask of sequence 1", {"attention_mask": mask.flip(1)}),
        ("attention mask of sequence 1", {"attention_mask": mask * torch.tensor([[1], [0]])}),
        ("attention_mask", {"attention_mask": mask[:, 1:]}),
        ("attention_mask", {"attention_mask": anywhere.float()}),
        ("attention_mask", {"attention_mask": {"full_attention": mask}}),
        ("position_ids", {"position_ids": packed}),
        ("position_ids", {"position_ids": torch.arange(8)[None]}),
        ("cache_position", {"cache_position": torch.arange(1, 10)}),
        ("DynamicCache", {"past_key_values": transformers.DynamicCache()}),
        ("StaticCache", {"cache": transformers.StaticCache(pair[0].config, max_cache_len=20)}),
        ("labels", {"labels": ids, "logits_to_keep": 1}),
        ("labels", {"labels": ids[:, 1:]}),
        ("logits_to_keep", {"logits_to_keep": torch.tensor([9])}),
        ("logits_to_keep", {"logits_to_keep": ids}),
        ("output_hidden_states", {"output_hidden_states": True}),
        ("output_attentions", {"output_attentions": True}),
        ("token_type_ids", {"token_type_ids": ids}),
        ("cu_seq_lens_q", {"cu_seq_lens_q": torch.tensor([0, 4, 9])}),
        ("misspelt", {"misspelt": 3}),
    ):
        with pytest.raises(errors.InputError, match=name):
            compiled(**{"input_ids": ids, **given})
    same(compiled(ids).logits, both(pair, ids)[0].logits)


def test_calls_that_do_not_continue_a_cache(pair):
    ids, mask = batch()
    cache = pair[1](ids, attention_mask=mask).past_key_values
    more, longer = ids[:, :1], torch.cat([mask, mask[:, -1:]], 1)
    behind = torch.tensor([[9], [6]])  # padding left out, which the first call counted
    for error, given in (
        (errors.PaddingError, {}),  # shows what was hidden
        (errors.PaddingError, {"attention_mask": torch.cat([1 - mask, 1 - mask[:, -1:]], 1)}),
        (errors.PositionError, {"attention_mask": longer, "position_ids": behind}),
        (errors.InputShapeError, {"attention_mask": mask}),
        (errors.InputError, {"cache": DecoderCache()}),  # another than past_key_values
    ):
        with pytest.raises(error):
            pair[1](more, past_key_values=cache, **given)
    got = pair[1](more, past_key_values=cache, attention_mask=longer).logits
    wanted = both(pair, torch.cat([ids, more], 1), attention_mask=longer)[0].logits[:, -1:]
    same(got, wanted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache_implementation", "quantized"),
        ("cache_implementation", "offloaded"),
        ("output_hidden_states", True),
        ("compile_config", transformers.CompileConfig()),
        ("past_key_values", transformers.DynamicCache()),
        ("inputs_embeds", torch.zeros(1, 3, 64)),
    ],
)
def test_ways_to_generate_that_are_refused(pair, name, value):
    renamed = CACHE if name == "past_key_values" else name
    with pytest.raises(errors.UnsupportedArgumentError, match=renamed):
        pair[1].generate(prompts(1, 3), return_dict_in_generate=True, **{name: value})


def test_methods_that_need_layers_are_refused(pair, tmp_path):
    for name in ("save_pretrained", "get_input_embeddings", "resize_token_embeddings"):
        with pytest.raises(errors.UnsupportedArgumentError, match=name):
            getattr(pair[1], name)(tmp_path)
    with pytest.raises(errors.UnsupportedArgumentError, match="generate_batch"):
        pair[1].generate_batch([[3, 4]])
