"""Caches: what they are kept as, several sequences, common beginnings."""

import copy

import numpy as np
import pytest
import tiny
from tiny import prompts, torch

import graphopt
from graphopt import errors
from graphopt.dtype import DType
from graphopt.llm.generate.cache import CacheShape, KeyValueCache

KINDS = ("f32", "bf16", "int8")


@pytest.fixture(scope="module", params=KINDS)
def compiled(request):
    return graphopt.optimize(tiny.model(), precision="fp32", num_threads=2, kv_cache=request.param)


def divergence(compiled, model, ids):
    """Mean KL of the next-token distributions, in nats."""
    with torch.no_grad():
        wanted = model(ids).logits.log_softmax(-1)
        got = compiled(ids).logits.log_softmax(-1)
    return float((wanted.exp() * (wanted - got)).sum(-1).mean())


def test_what_the_cache_costs():
    """Attention in f32 is exact; that of int8 adds little to the loss of bf16."""
    model, ids = tiny.model(), prompts(2, 40)
    loss = {}
    for kind in KINDS:
        made = graphopt.optimize(model, precision="fp32", num_threads=2, kv_cache=kind)
        width = made.engine.new_cache().array.dtype.itemsize
        assert width == {"f32": 4, "bf16": 2, "int8": 1}[kind]
        loss[kind] = divergence(made, model, ids)
    assert abs(loss["f32"]) < 1e-7 < loss["bf16"] < 1e-4, loss
    assert loss["int8"] < 3e-4, loss


def test_a_kind_of_cache_that_there_is_not():
    with pytest.raises(errors.UnknownPrecisionError, match=r"kv_cache=int4.*f32, bf16, int8"):
        graphopt.optimize(tiny.model(), kv_cache="int4")


def test_one_token_at_a_time_gives_the_bits_of_a_prompt(compiled):
    engine, ids = compiled.engine, prompts(3, 30).numpy()
    whole = engine.forward(ids, engine.new_cache(3), np.arange(90)).reshape(3, 30, -1)
    cache = engine.new_cache(3)
    steps = [engine.forward(ids[:, t : t + 1], cache) for t in range(30)]
    np.testing.assert_array_equal(np.stack(steps, 1), whole)


@pytest.mark.parametrize("new", [1, 3, 9])
def test_sequences_of_unequal_length_in_one_call(compiled, new):
    """Each with the bits that it has alone; more of them than share the scratch memory."""
    engine, lengths = compiled.engine, np.array([40, 3, 17, 55, 1, 29])
    ids = prompts(len(lengths), 64).numpy()
    cache = engine.new_cache(len(lengths))
    engine.forward(ids[:, :55], cache)
    cache.past = lengths.copy()
    cache.start = np.array([0, 2, 5, 0, 0, 11])
    got = engine.forward(ids[:, -new:], cache, np.arange(len(lengths) * new))
    np.testing.assert_array_equal(cache.past, lengths + new)
    for b, (length, start) in enumerate(zip(lengths, [0, 2, 5, 0, 0, 11], strict=True)):
        if start:
            continue  # what it saw before came from rows that are hidden now
        alone = engine.new_cache()
        engine.forward(ids[b : b + 1, :length], alone)
        wanted = engine.forward(ids[b : b + 1, -new:], alone, np.arange(new))
        np.testing.assert_array_equal(got[b * new : (b + 1) * new], wanted)


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_padded_batch_generates_what_its_sequences_do(compiled, repeats):
    lengths, ids = (12, 5, 1), prompts(3, 12)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, 12 - length :] = 1
    how = {"max_new_tokens": 12, "min_new_tokens": 12}
    if repeats > 1:
        how |= {"num_return_sequences": repeats, "num_beams": repeats}
    made = compiled.generate(ids, attention_mask=mask, **how)
    for row, length in enumerate(lengths):
        alone = compiled.generate(ids[row : row + 1, 12 - length :], **how)
        batch = made[row * repeats : (row + 1) * repeats]
        assert torch.equal(alone[:, length:], batch[:, 12:])


def test_a_common_beginning_is_computed_once(compiled):
    engine, ids = compiled.engine, prompts(4, 20).numpy()
    ids[:, :13] = ids[0, :13]
    first = engine.new_cache()
    engine.forward(ids[:1, :13], first)
    several = first.select([0] * 4)
    got = engine.forward(ids[:, 13:], several)
    np.testing.assert_array_equal(first.past, [13])
    for row in range(4):
        alone = engine.forward(ids[row : row + 1], engine.new_cache())
        np.testing.assert_array_equal(got[row], alone[0])
        again = first.select([0])
        np.testing.assert_array_equal(engine.forward(ids[row : row + 1, 13:], again), alone)


def test_a_beginning_kept_in_a_cache_of_transformers(compiled):
    ids = prompts(2, 20)
    ids[:, :13] = ids[0, :13]
    kept = compiled(ids[:1, :13]).past_key_values
    how = {"max_new_tokens": 8, "min_new_tokens": 8}
    for row in ids:
        cache = copy.deepcopy(kept)
        got = compiled.generate(row[None], past_key_values=cache, **how)
        assert torch.equal(got, compiled.generate(row[None], **how))
    assert kept.get_seq_length() == 13
    kept.batch_repeat_interleave(3)
    kept.batch_select_indices(torch.tensor([2, 0]))
    got = compiled(ids[:, 13:], past_key_values=kept).logits
    torch.testing.assert_close(got, compiled(ids).logits[:, 13:], rtol=0, atol=0)


def test_memory_is_there_as_far_as_it_is_written():
    """A cache of many GiB costs addresses; its rows stay where they are as it grows."""
    shape = CacheShape(DType.I8, 32, 8, 128, 1 << 18)
    cache = KeyValueCache(shape, 4)
    assert cache.array.nbytes + cache.scales.nbytes == shape.row_bytes * shape.context * 4
    assert shape.row_bytes == 2 * 32 * 8 * (128 + 4) and cache.array.nbytes == 1 << 36
    before = cache.array.ctypes.data
    cache.array[-1, 1, -1, -1] = 3
    assert cache.array.ctypes.data == before and not cache.array[0, 0, 0, 0].any()
