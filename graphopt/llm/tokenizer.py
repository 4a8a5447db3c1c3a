"""Text to tokens and back, by the `tokenizers` package; chat templates by jinja2; no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphopt.errors import ChatTemplateError, MissingDependencyError, ModelFileError


@dataclass(frozen=True)
class ChatFormat:
    """How a model marks who speaks.

    Attributes:
        template: jinja2 over `messages` and `add_generation_prompt`; None if the model has none.
        bos: text of the token before everything, or "".
        eos: text of the token behind everything, or "".
        ends: tokens that end an answer.
    """

    template: str | None
    bos: str
    eos: str
    ends: tuple[int, ...]

    @staticmethod
    def of(data: dict[str, Any]) -> ChatFormat:
        """What `as_dict` gave; ValueError, KeyError or TypeError for anything else."""
        template, bos, eos = data["template"], data["bos"], data["eos"]
        texts = (template or "", bos, eos)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("template, bos and eos are texts")
        return ChatFormat(template, bos, eos, tuple(int(end) for end in data["ends"]))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def import_tokenizers() -> Any:
    """The package `tokenizers`.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import tokenizers
    except ImportError:
        raise MissingDependencyError(
            "tokenizers", "splitting text into tokens", "pip install tokenizers"
        ) from None
    return tokenizers


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
        """Tokens of a text, with those that the model wants around it."""
        return list(self._tokenizer.encode(text).ids)

    def encode_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokens of a conversation, up to where the model answers.

        Args:
            messages: dicts of `role` (`system`, `user`, `assistant`) and `content`. A model without
                a chat template gets the contents, one after the other.

        Raises:
            ChatTemplateError: if the template refuses the messages or makes no sense.
        """
        if self.chat.template is None:
            return self.encode("\n".join(message["content"] for message in messages))
        text = _render(self.chat, messages)
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

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


def _render(chat: ChatFormat, messages: Sequence[dict[str, str]]) -> str:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(raise_exception=_refuse, strftime_now=_today)
    try:
        template = environment.from_string(chat.template or "")
        return template.render(
            messages=list(messages),
            add_generation_prompt=True,
            bos_token=chat.bos,
            eos_token=chat.eos,
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise ChatTemplateError(str(error)) from error


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _today(layout: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(layout)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face model directory.

    Args:
        folder: holds `tokenizer.json`, and what there is of `tokenizer_config.json`,
            `chat_template.jinja`, `generation_config.json` and `config.json`.

    Raises:
        ModelFileError: if there is no `tokenizer.json`, or a file makes no sense.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelFileError(folder, "it has no tokenizer.json")
    settings = _json(folder / "tokenizer_config.json")
    bos, eos = (_token_text(settings.get(f"{name}_token")) for name in ("bos", "eos"))
    try:
        text = path.read_text(encoding="utf-8")
        plain = Tokenizer(text, ChatFormat(None, bos, eos, ()))
    except (ValueError, OSError) as error:
        raise ModelFileError(path, f"it is {error}") from error
    ends = _ends(folder)
    number = plain._tokenizer.token_to_id(eos) if eos else None
    if number is not None:
        ends.add(number)
    chat = ChatFormat(_template(folder, settings), bos, eos, tuple(sorted(ends)))
    return Tokenizer(text, chat)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelFileError(path, f"it is no JSON ({error})") from error
    return data if isinstance(data, dict) else {}


def _ends(folder: Path) -> set[int]:
    """Tokens that end an answer: one or several, in either configuration."""
    for name in ("generation_config.json", "config.json"):
        ends = _json(folder / name).get("eos_token_id")
        if ends is not None:
            return {int(end) for end in (ends if isinstance(ends, list) else [ends])}
    return set()


def _token_text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The template for chats: a file, a setting, or the one of several that has no purpose."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):
        found = {one["name"]: one["template"] for one in found}.get("default")
    return found if isinstance(found, str) else None
