"""Text to tokens and back, by the `tokenizers` package; no torch."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphopt.dependencies import require
from graphopt.errors import (
    ChatTemplateError,
    MissingDependencyError,
    ModelFileError,
    TextError,
)
from graphopt.extras import command_of
from graphopt.llm.generate.chat_template import RenderError, render_bounded
from graphopt.plain_files import read_plain, read_text
from graphopt.runtime.fields import Count, FieldError, Name, parse_json, read_fields

_NUMBERS: Any = Count | tuple[Count, ...] | None
_TEMPLATES: Any = str | dict[str, str] | None
#: How a token that is added matches text.
_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")
#: Named special tokens that templates may ask for.
SPECIAL = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
#: Tokens that end a turn by what they are called, where a file leaves that unsaid.
_ENDS = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)


@dataclass(frozen=True)
class ChatFormat:
    """How a model marks who speaks.

    Attributes:
        template: of jinja2, over `messages`, `tools`, `documents`, `add_generation_prompt` and the
            special tokens; several by name; None if the model has none.
        special: texts of special tokens, as `bos_token`.
        ends: tokens that end an answer.
    """

    template: str | dict[str, str] | None
    special: dict[str, str]
    ends: tuple[Count, ...]

    def choose(self, has_tools: bool) -> str | None:
        """The template for a conversation.

        Raises:
            ChatTemplateError: if there are several, none of which is for it.
        """
        if not isinstance(self.template, dict):
            return self.template
        wanted = ("tool_use", "default") if has_tools else ("default",)
        for name in wanted:
            if name in self.template:
                return self.template[name]
        known = ", ".join(sorted(self.template))
        raise ChatTemplateError(f"of its templates ({known}) none is the default")


def ends_by_name(tokenizer: Any) -> set[int]:
    """Special tokens of a tokenizer that end a turn by what they are called."""
    added = tokenizer.get_added_tokens_decoder()
    return {i for i, token in added.items() if token.special and token.content in _ENDS}


def import_tokenizers() -> Any:
    """The package `tokenizers`.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    return require("tokenizers", "splitting text into tokens")


class Tokenizer:
    """A tokenizer and the chat format of its model.

    Args:
        text: content of a `tokenizer.json`.
        chat: chat format.

    Raises:
        MissingDependencyError: without the `tokenizers` package.
        ValueError: if the text is no tokenizer.
    """

    def __init__(self, text: str, chat: ChatFormat) -> None:
        tokenizers = import_tokenizers()
        self.text, self.chat = text, chat
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the package raises Exception itself
            raise ValueError(f"no tokenizer ({error})") from error

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, with those that the model wants around it.

        Raises:
            TextError: if the text cannot be written as UTF-8.
        """
        return self._tokens(text, True)

    def encode_chat(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None = None,
        documents: Sequence[dict[str, Any]] | None = None,
        **variables: Any,
    ) -> list[int]:
        """Tokens of a conversation, up to where the model answers.

        Args:
            messages: dicts of `role` (`system`, `user`, `assistant`, ...), `content` and what else
                the template reads, of the types of JSON. A model without a chat template gets the
                contents, one after the other.
            tools: descriptions of functions in JSON Schema.
            documents: dicts that the model may answer from.
            variables: of the template, such as `enable_thinking`.

        Raises:
            ChatTemplateError: if the template refuses the messages, makes no sense, or takes too
                long; if there is none and something else than texts is given.
            TextError: if a text cannot be written as UTF-8.
        """
        _check_messages(messages)
        template = self.chat.choose(tools is not None)
        if template is None:
            return self.encode("\n".join(self._plain(messages, tools, documents, **variables)))
        given: dict[str, Any] = {
            **self.chat.special,
            "messages": list(messages),
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": True,
            **variables,
        }
        if importlib.util.find_spec("jinja2") is None:
            raise MissingDependencyError("jinja2", "a chat template", command_of("chat"))
        try:
            return self._tokens(render_bounded(template, given), False)
        except RenderError as error:
            raise ChatTemplateError(str(error)) from error

    def _tokens(self, text: str, with_special: bool) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TextError(str(error)) from error
        return list(self._tokenizer.encode(text, add_special_tokens=with_special).ids)

    @staticmethod
    def _plain(
        messages: Sequence[dict[str, Any]], tools: Any, documents: Any, **variables: Any
    ) -> list[str]:
        """Contents for a model that has no template."""
        contents = [message.get("content") for message in messages]
        texts = [content for content in contents if isinstance(content, str)]
        if len(texts) < len(contents) or tools or documents or variables:
            raise ChatTemplateError("it has none, so that it takes texts alone")
        return texts

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, without those that mark turns."""
        return str(self._tokenizer.decode(list(tokens)))

    def stream(self, tokens: Iterator[int]) -> Iterator[str]:
        """Text as tokens come; a character of several tokens when it is whole."""
        from tokenizers.decoders import DecodeStream

        pieces = DecodeStream(skip_special_tokens=True)
        for token in tokens:
            piece = pieces.step(self._tokenizer, token)
            if piece:
                yield piece


def _check_messages(messages: Any) -> None:
    listed = isinstance(messages, list | tuple) and len(messages) > 0
    if not listed or not all(isinstance(message, dict) for message in messages):
        raise ChatTemplateError("there are none, or they are no list of dicts")


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face model directory.

    Args:
        folder: holds `tokenizer.json`, and what there is of `tokenizer_config.json`,
            `special_tokens_map.json`, `added_tokens.json`, `chat_template.jinja`,
            `chat_templates`, `generation_config.json` and `config.json`.

    Raises:
        ModelFileError: if there is no `tokenizer.json`, or a file makes no sense.
    """
    path = folder / "tokenizer.json"
    if not os.path.lexists(path):
        raise ModelFileError(folder, "it has no tokenizer.json")
    settings = {
        **_json(folder / "special_tokens_map.json"),
        **_json(folder / "tokenizer_config.json"),
    }
    special = _special(folder, settings)
    try:
        text = read_text(path)
        built = Tokenizer(text, ChatFormat(None, special, ()))._tokenizer
        added = _add_tokens(built, folder, settings)
    except ModelFileError:
        raise
    except (ValueError, OSError) as error:
        raise ModelFileError(path, f"it is {error}") from error
    ends = _ends(folder, settings, built) | ends_by_name(built)
    chat = ChatFormat(_template(folder, settings), special, tuple(sorted(ends)))
    return Tokenizer(built.to_str() if added else text, chat)


def _json(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        return {}
    try:
        return read_fields(dict[str, Any], parse_json(read_plain(path)))
    except (FieldError, OSError) as error:
        raise ModelFileError(path, f"it makes no sense ({error})") from error


def _special(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Texts of the special tokens, which may be there with flags."""
    special = {}
    for name in (f"{name}_token" for name in SPECIAL):
        token = settings.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if content is None:
            continue
        if not isinstance(content, str):
            raise ModelFileError(folder / "tokenizer_config.json", f"its {name} is no text")
        special[name] = content
    return special


def _add_tokens(tokenizer: Any, folder: Path, settings: dict[str, Any]) -> bool:
    """Adds tokens that stand beside `tokenizer.json`; whether there were any it did not have.

    Raises:
        ModelFileError: for a token of another number than it has or would get.
    """
    from tokenizers import AddedToken

    wanted = {number: content for content, number in _json(folder / "added_tokens.json").items()}
    flags: dict[Any, dict[str, Any]] = {}
    try:
        described = read_fields(dict[str, dict[str, Any]], settings.get("added_tokens_decoder", {}))
        for number, said in described.items():
            wanted[int(number)] = said["content"]
            flags[int(number)] = {name: bool(said[name]) for name in _FLAGS if name in said}
        read_fields(dict[Count, Name], wanted)
    except (FieldError, ValueError, LookupError) as error:
        raise ModelFileError(folder, f"its added tokens make no sense ({error})") from error
    before = tokenizer.get_vocab_size()
    for number, content in sorted(wanted.items()):
        if tokenizer.token_to_id(content) is None:
            token = AddedToken(content, **flags.get(number, {}))
            add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
            add([token])
        found = tokenizer.token_to_id(content)
        if found != number:
            reason = f"its added token {content!r:.60} is said to be {number}, and is {found}"
            raise ModelFileError(folder, reason)
    return bool(tokenizer.get_vocab_size() > before)


def _ends(folder: Path, settings: dict[str, Any], tokenizer: Any) -> set[int]:
    """Tokens that end an answer: one or several, wherever they are said."""
    ends: set[int] = set()
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        said = _json(folder / name)
        for key in ("eos_token_id", "eot_token_id", "eom_token_id"):
            try:
                found = read_fields(_NUMBERS, said.get(key), key)
            except FieldError as error:
                raise ModelFileError(folder / name, str(error)) from error
            ends.update(found if isinstance(found, tuple) else () if found is None else (found,))
    for key in ("eos_token", "eot_token", "eom_token"):
        token = settings.get(key)
        content = token.get("content") if isinstance(token, dict) else token
        number = tokenizer.token_to_id(content) if isinstance(content, str) else None
        if number is not None:
            ends.add(number)
    return ends


def _template(folder: Path, settings: dict[str, Any]) -> str | dict[str, str] | None:
    """The template for chats, or several by name: in files, or a setting."""
    files = {path.stem: path for path in sorted((folder / "chat_templates").glob("*.jinja"))}
    if os.path.lexists(folder / "chat_template.jinja"):
        files["default"] = folder / "chat_template.jinja"
    try:
        found = {name: read_text(path) for name, path in files.items()}
    except OSError as error:
        raise ModelFileError(folder, f"its chat template cannot be read ({error})") from error
    if not found:
        try:
            return read_template(settings.get("chat_template"))
        except FieldError as error:
            raise ModelFileError(folder / "tokenizer_config.json", str(error)) from error
    return found["default"] if found.keys() == {"default"} else found


def read_template(value: Any) -> str | dict[str, str] | None:
    """A template, or several in a list of `name` and `template`.

    Raises:
        FieldError: for something else.
    """
    where = "chat_template"
    if isinstance(value, list):
        value = {one.name: one.template for one in read_fields(tuple[_Named, ...], value, where)}
    found: str | dict[str, str] | None = read_fields(_TEMPLATES, value, where)
    return found


@dataclass(frozen=True)
class _Named:
    """One of several templates."""

    name: Name
    template: str
