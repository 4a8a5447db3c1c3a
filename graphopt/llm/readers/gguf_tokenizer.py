"""The tokenizer in a GGUF file: byte-level BPE from its vocabulary and merges.

How text is cut before merging is not in the file but has a name, `tokenizer.ggml.pre`
(graphopt/llm/architectures/cuts.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from graphopt.errors import ModelFileError
from graphopt.llm.architectures.cuts import Cut
from graphopt.llm.architectures.table import CUTS
from graphopt.llm.generate.tokenizer import (
    SPECIAL,
    ChatFormat,
    Tokenizer,
    ends_by_name,
    import_tokenizers,
    read_template,
)
from graphopt.llm.readers.ledger import Ledger
from graphopt.runtime.fields import FieldError, Range, read_fields

_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens that no merge makes
#: Keys about tokenizers of other kinds, and what the tokens and their kinds say already.
_HARMLESS = (
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.precompiled_charsmap",
    "tokenizer.ggml.remove_extra_whitespaces",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type_count",
    "tokenizer.ggml.fim_*_token_id",
    "tokenizer.ggml.prefix_token_id",
    "tokenizer.ggml.suffix_token_id",
    "tokenizer.ggml.middle_token_id",
    "tokenizer.huggingface.json",
)
#: Names of special tokens in GGUF files, where they differ from those of templates.
_NAMES = {"unk": "unknown", "sep": "seperator", "pad": "padding"}
_Kind = Annotated[int, Range(1, 6)]


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
    import_tokenizers()
    try:
        return _build(Ledger(fields, _HARMLESS))
    except (FieldError, ValueError) as error:
        raise ModelFileError(path, f"its tokenizer is damaged or not known: {error}") from error


def _build(keys: Ledger) -> Tokenizer:
    """The tokenizer; ValueError for what makes no sense or is not known."""
    import tokenizers

    kind, cut = _take(keys, "model", str), _take(keys, "pre", str, "default")
    if kind != "gpt2":
        raise ValueError(f"it is {kind!r}, not byte-level BPE ('gpt2')")
    if cut not in CUTS:
        raise ValueError(f"its text is cut by {cut!r}, not one of {', '.join(CUTS)}")
    tokens = _take(keys, "tokens", tuple[str, ...])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        raise ValueError("a token is there twice")
    kinds = _take(keys, "token_type", tuple[_Kind, ...], (1,) * len(tokens))
    if len(kinds) != len(tokens):
        raise ValueError(f"it has {len(tokens)} tokens and {len(kinds)} kinds of them")
    merges = _merges(_take(keys, "merges", tuple[str, ...]), vocabulary)
    whole = CUTS[cut].whole_words
    built = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, ignore_merges=whole))
    built.pre_tokenizer = pre_tokenizer(CUTS[cut])
    built.decoder = tokenizers.decoders.ByteLevel()
    for special in (False, True):
        wanted = _CONTROL if special else _USER_DEFINED
        chosen = [t for t, kind in zip(tokens, kinds, strict=True) if kind == wanted]
        added = [tokenizers.AddedToken(t, special=special, normalized=False) for t in chosen]
        built.add_special_tokens(added) if special else built.add_tokens(added)
    chat = _chat(keys, tokens, built)
    _surround(built, keys, chat, CUTS[cut].begins)
    if keys.left():
        raise ValueError(f"it says {', '.join(keys.left()[:5])}, which no reader knows")
    return Tokenizer(built.to_str(), chat)


def _take(keys: Ledger, name: str, kind: Any, default: Any = ...) -> Any:
    key = f"tokenizer.ggml.{name}"
    if key not in keys and default is not ...:
        return default
    if key not in keys:
        raise ValueError(f"it does not say {key!r}")
    return read_fields(kind, keys.take(key), key)


def _merges(lines: Sequence[str], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    merges = []
    for line in lines:
        one, _, other = line.partition(" ")
        if not {one, other, one + other} <= vocabulary.keys():
            raise ValueError(f"merge {line!r:.60} is not of two tokens to a third")
        merges.append((one, other))
    return merges


def _surround(tokenizer: Any, keys: Ledger, chat: ChatFormat, usual: bool) -> None:
    """Tokens before and behind a text."""
    from tokenizers.processors import TemplateProcessing

    if _take(keys, "add_sep_token", bool, False):
        raise ValueError("it has tokens between two texts")
    before = _take(keys, "add_bos_token", bool, usual and "bos_token" in chat.special)
    behind = _take(keys, "add_eos_token", bool, False)
    names = [name for name, there in (("bos_token", before), ("eos_token", behind)) if there]
    if not names:
        return
    if not chat.special.keys() >= set(names):
        raise ValueError(f"it puts {' and '.join(names)} around texts and does not name them")
    first, last = (
        chat.special[name] if name in names else "" for name in ("bos_token", "eos_token")
    )
    numbers = [(chat.special[name], tokenizer.token_to_id(chat.special[name])) for name in names]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}".strip(), special_tokens=numbers
    )


def pre_tokenizer(cut: Cut) -> Any:
    """What cuts text before merging."""
    from tokenizers import Regex, pre_tokenizers

    steps: list[Any] = []
    if cut.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if cut.words is not None:
        steps.append(pre_tokenizers.Split(Regex(cut.words), "isolated"))
    gpt2 = cut.words is None
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=gpt2))
    return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


def _chat(keys: Ledger, tokens: Sequence[str], tokenizer: Any) -> ChatFormat:
    """Templates, special tokens, and all tokens that end a turn."""
    special, ends = {}, ends_by_name(tokenizer)
    number = Annotated[int, Range(0, len(tokens) - 1)]
    for name in SPECIAL:
        found = _take(keys, f"{_NAMES.get(name, name)}_token_id", number, None)
        if found is not None:
            special[f"{name}_token"] = tokens[found]
        if name == "eos" and found is not None:
            ends.add(found)
    for name in ("eot", "eom"):
        found = _take(keys, f"{name}_token_id", number, None)
        if found is not None:
            ends.add(found)
    several = _take(keys, "eos_token_ids", tuple[number, ...], ())
    return ChatFormat(_templates(keys), special, tuple(sorted(ends | set(several))))


def _templates(keys: Ledger) -> str | dict[str, str] | None:
    """One template, or several by name."""
    key = "tokenizer.chat_template"
    plain = read_template(keys.take(key, None))
    names = read_fields(tuple[str, ...], keys.take(f"{key}s", ()), f"{key}s")
    named = {name: read_fields(str, keys.take(f"{key}.{name}", None), key) for name in names}
    if not named:
        return plain
    return named if plain is None else {**named, "default": str(plain)}
