"""Tokenizers in GGUF files: every key is read, and what is damaged is refused."""

from pathlib import Path

import pytest

from graphopt.errors import ModelFileError
from graphopt.llm.readers.gguf_tokenizer import gguf_tokenizer

tokenizers = pytest.importorskip("tokenizers")

_ALPHABET = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
_ADDED = ["he", "ll", "hell", "<s>", "</s>", "<|eot_id|>", "<turn>", "<call>", "[user]"]
TOKENS = [*_ALPHABET, *_ADDED]
NUMBER = {token: number for number, token in enumerate(TOKENS)}
KEYS = {
    "model": "gpt2",
    "pre": "llama-bpe",
    "tokens": TOKENS,
    "token_type": [1] * 259 + [3] * 5 + [4],
    "merges": ["h e", "l l", "he ll"],
    "bos_token_id": NUMBER["<s>"],
    "eos_token_id": NUMBER["</s>"],
}
PATH = Path("m.gguf")


def built(left_out=(), plain=None, **changes):
    keys = {**KEYS, **changes}
    fields = {f"tokenizer.ggml.{k}": v for k, v in keys.items() if k not in left_out}
    return gguf_tokenizer(PATH, {**fields, **(plain or {})})


def test_tokens_around_and_behind():
    assert built().encode("hell") == [NUMBER["<s>"], NUMBER["hell"]]
    assert built(add_bos_token=False).encode("hell[user]") == [NUMBER["hell"], NUMBER["[user]"]]
    both = built(add_eos_token=True).encode("he")
    assert both == [NUMBER["<s>"], NUMBER["he"], NUMBER["</s>"]]
    assert built(pre="smollm").encode("he") == [NUMBER["he"]]


def test_every_end_of_a_turn_is_read():
    ends = {"</s>", "<|eot_id|>"}  # said, and by its name
    assert built().chat.ends == tuple(sorted(NUMBER[token] for token in ends))
    chat = built(eot_token_id=NUMBER["<turn>"], eom_token_id=NUMBER["<call>"]).chat
    assert chat.ends == tuple(sorted(NUMBER[t] for t in ends | {"<turn>", "<call>"}))
    assert built(eos_token_ids=[1, 2]).chat.ends[:2] == (1, 2)
    assert chat.special == {"bos_token": "<s>", "eos_token": "</s>"}


def test_templates():
    key = "tokenizer.chat_template"
    assert built(plain={key: "a"}).chat.template == "a"
    named = {key: "a", f"{key}s": ["tool_use"], f"{key}.tool_use": "b"}
    assert built(plain=named).chat.template == {"default": "a", "tool_use": "b"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"merges": ["h e", "x yz"]}, "merge 'x yz'"),
        ({"merges": ["he"]}, "merge 'he'"),
        ({"merges": ["h ll"]}, "merge 'h ll'"),
        ({"merges": [3]}, "merges"),
        ({"left_out": ["merges"]}, "merges"),
        ({"left_out": ["tokens"]}, "tokens"),
        ({"tokens": [*TOKENS[:-1], "he"]}, "twice"),
        ({"tokens": "abc"}, "tokens"),
        ({"tokens": [*TOKENS[:-1], "\ud800"]}, "tokens"),
        ({"token_type": [1]}, "1 kinds"),
        ({"token_type": [9] * len(TOKENS)}, "token_type"),
        ({"eos_token_id": len(TOKENS)}, "eos_token_id"),
        ({"bos_token_id": -1}, "bos_token_id"),
        ({"eot_token_id": "x"}, "eot_token_id"),
        ({"eos_token_ids": [10**9]}, "eos_token_ids"),
        ({"add_bos_token": 1}, "add_bos_token"),
        ({"add_bos_token": True, "left_out": ["bos_token_id"]}, "bos_token"),
        ({"add_sep_token": True}, "between two texts"),
        ({"model": "llama"}, "'llama'"),
        ({"pre": "viking"}, "'viking'"),
        ({"normalizer": "lowercase"}, "normalizer"),
        ({"plain": {"tokenizer.chat_template": 3}}, "chat_template"),
        ({"plain": {"tokenizer.chat_templates": ["rag"]}}, "chat_template"),
        ({"plain": {"tokenizer.other": 3}}, "tokenizer.other"),
    ],
)
def test_damaged_sections_are_refused(changes, reason):
    with pytest.raises(ModelFileError, match=reason):
        built(**changes)
