"""The tokenizer in a GGUF file: byte-level BPE from its vocabulary and merges.

How text is cut before merging is not in the file but has a name, `tokenizer.ggml.pre`. The patterns
are those of the models' own `tokenizer.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphopt.errors import ModelFileError
from graphopt.llm.tokenizer import ChatFormat, Tokenizer, import_tokenizers

_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens that no merge makes
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: Longest run of digits in a token, for the files whose text is cut by `_WORDS`.
_DIGITS = {"llama-bpe": "{1,3}", "qwen2": ""}
_GPT2 = ("default", "gpt-2")
_SMOLLM = "smollm"
_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>", "<|eom_id|>")


def gguf_tokenizer(path: Path, fields: dict[str, Any]) -> Tokenizer:
    """Builds the tokenizer of a GGUF file.

    Args:
        path: of the file, for errors.
        fields: its fields by key, as Python values.

    Raises:
        ModelFileError: for a vocabulary of another kind than byte-level BPE, or a cut of text
            that is not known.
        MissingDependencyError: without the `tokenizers` package.
    """
    tokenizers = import_tokenizers()
    kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise ModelFileError(path, f"its tokenizer is {kind!r}, not byte-level BPE ('gpt2')")
    known = (*_GPT2, _SMOLLM, *_DIGITS)
    if cut not in known:
        raise ModelFileError(path, f"its text is cut by {cut!r}, not one of {', '.join(known)}")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    whole = cut == "llama-bpe"  # a word that is a token is not put together from its parts
    built = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, ignore_merges=whole))
    built.pre_tokenizer = pre_tokenizer(cut)
    built.decoder = tokenizers.decoders.ByteLevel()
    kinds = fields.get("tokenizer.ggml.token_type", [])
    for special in (False, True):
        wanted = _CONTROL if special else _USER_DEFINED
        chosen = [t for t, kind in zip(tokens, kinds, strict=False) if kind == wanted]
        added = [tokenizers.AddedToken(t, special=special, normalized=False) for t in chosen]
        built.add_special_tokens(added) if special else built.add_tokens(added)
    chat = _chat(fields, tokens)
    if chat.bos and fields.get("tokenizer.ggml.add_bos_token", cut == "llama-bpe"):
        built.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{chat.bos} $A", special_tokens=[(chat.bos, vocabulary[chat.bos])]
        )
    return Tokenizer(built.to_str(), chat)


def pre_tokenizer(cut: str) -> Any:
    """How text is cut before merging, by the name that GGUF files have for it."""
    from tokenizers import Regex, pre_tokenizers

    if cut in _GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if cut == _SMOLLM:
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    words = pre_tokenizers.Split(Regex(_WORDS.format(digits=_DIGITS[cut])), "isolated")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([words, plain])


def _chat(fields: dict[str, Any], tokens: list[str]) -> ChatFormat:
    def text(which: str) -> str:
        number = fields.get(f"tokenizer.ggml.{which}_token_id")
        return "" if number is None else tokens[number]

    eos = text("eos")
    ends = {number for number, token in enumerate(tokens) if token in (*_ENDS, eos) and token}
    template = fields.get("tokenizer.chat_template")
    return ChatFormat(template, text("bos"), eos, tuple(sorted(ends)))
