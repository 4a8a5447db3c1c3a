"""The tokenizer beside Meta's checkpoints: `tokenizer.model`, a line per token: base64 and rank.

The cut of text, the names of special tokens behind the vocabulary and the format of chats are those
of Llama 3 (models/llama3/tokenizer.py and chat_format.py of Meta's llama-models).
"""

from __future__ import annotations

import base64
from pathlib import Path

from graphopt.errors import ModelFileError
from graphopt.llm.architectures.llama import LLAMA
from graphopt.llm.generate.tokenizer import ChatFormat, Tokenizer, import_tokenizers
from graphopt.llm.readers.gguf_tokenizer import pre_tokenizer
from graphopt.plain_files import read_plain

_FILE = "tokenizer.model"
_BOS, _EOS, _TURN, _MESSAGE = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"
_NAMED = (
    _BOS,
    _EOS,
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    _MESSAGE,
    _TURN,
    "<|python_tag|>",
    "<|image|>",
)
_SPECIAL = 256
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}"
    "<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def read_meta_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder in Meta's layout.

    Raises:
        ModelFileError: if there is no `tokenizer.model`, or it makes no sense.
        MissingDependencyError: without the `tokenizers` package.
    """
    tokenizers = import_tokenizers()
    ranks = _ranks(folder / _FILE)
    letters = _letters()
    vocabulary = {_written(token, letters): rank for token, rank in ranks.items()}
    built = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, _merges(ranks, letters), ignore_merges=True)
    )
    built.pre_tokenizer = pre_tokenizer(LLAMA.cuts["llama-bpe"])
    built.decoder = tokenizers.decoders.ByteLevel()
    reserved = (f"<|reserved_special_token_{2 + i}|>" for i in range(_SPECIAL - len(_NAMED)))
    special = [*_NAMED, *reserved]
    built.add_special_tokens([tokenizers.AddedToken(t, normalized=False) for t in special])
    built.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{_BOS} $A", special_tokens=[(_BOS, len(ranks))]
    )
    ends = [len(ranks) + special.index(token) for token in (_EOS, _MESSAGE, _TURN)]
    special_texts = {"bos_token": _BOS, "eos_token": _EOS}
    return Tokenizer(built.to_str(), ChatFormat(_TEMPLATE, special_texts, tuple(ends)))


def _ranks(path: Path) -> dict[bytes, int]:
    if not path.is_file():
        raise ModelFileError(path.parent, f"it has no {_FILE}")
    try:
        pairs = [line.split() for line in read_plain(path).splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (OSError, ValueError) as error:
        raise ModelFileError(path, f"its lines are no tokens with ranks ({error})") from error
    if sorted(ranks.values()) != list(range(len(ranks))) or len(ranks) < 256:
        raise ModelFileError(path, "its ranks have gaps")
    return ranks


def _merges(ranks: dict[bytes, int], letters: list[str]) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token, in order of that one's rank."""
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [(a, b) for a, b in cuts if a in ranks and b in ranks]
        pairs.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(_written(a, letters), _written(b, letters)) for a, b in pairs]
    return merges


def _letters() -> list[str]:
    """A printable letter for each byte, as byte-level BPE writes them (Radford et al., GPT-2)."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def _written(token: bytes, letters: list[str]) -> str:
    return "".join(letters[byte] for byte in token)
