"""Conversations with a compiled decoder, without torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.errors import EmptyPromptError
from graphopt.llm.engine import Array, Engine
from graphopt.llm.sampling import Sampler
from graphopt.llm.tokenizer import Tokenizer

#: Tokens of a prompt that go through the decoder at a time. Working memory grows with them (by 0.17
#: MiB each at the sizes of Llama 3.2 1B); the weights are read once per chunk.
CHUNK = 256


@dataclass
class Speed:
    """What an answer took.

    Attributes:
        prompt_tokens: read before it, without those that the cache still had.
        prompt_seconds: until the first token was known.
        new_tokens: of the answer.
        seconds: for those behind the first.
    """

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    new_tokens: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        later = self.new_tokens - 1
        rate = later / self.seconds if later > 0 else float("nan")
        return (
            f"prompt: {self.prompt_tokens} tokens, {self.prompt_seconds:.2f} s; "
            f"answer: {self.new_tokens} tokens, {rate:.1f} tokens/s"
        )


class Chat:
    """A decoder, its tokenizer, and the tokens that its cache holds.

    Args:
        engine: the decoder.
        tokenizer: its tokenizer.

    Attributes:
        speed: of the last answer.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self.speed = Speed()
        self._cache = engine.new_cache()
        self._seen: list[int] = []

    def answer(
        self, messages: Sequence[dict[str, str]], sampler: Sampler, max_new_tokens: int
    ) -> Iterator[str]:
        """Pieces of text as they come, until the model ends its turn.

        Args:
            messages: the conversation, as `Tokenizer.encode_chat` takes it.
            sampler: chooses tokens.
            max_new_tokens: most tokens of the answer.

        Raises:
            ChatTemplateError: if the messages do not fit the model's template.
            ContextLengthError: if the conversation does not fit the context.
        """
        tokens = self.tokenizer.encode_chat(messages)
        yield from self.tokenizer.stream(self.generate(tokens, sampler, max_new_tokens))

    def generate(
        self, tokens: Sequence[int], sampler: Sampler, max_new_tokens: int
    ) -> Iterator[int]:
        """New tokens behind a prompt; what the cache already holds of it is not read again.

        Args:
            tokens: the prompt.
            sampler: chooses tokens.
            max_new_tokens: most tokens to make. One that ends an answer is not among them.

        Raises:
            EmptyPromptError: for a prompt without tokens.
            TokenRangeError: for a token outside the vocabulary.
            ContextLengthError: if the context is full.
            CacheBusyError: if another thread decodes.
        """
        if not len(tokens):
            raise EmptyPromptError
        start = time.perf_counter()
        known = self._reuse(tokens)
        logits = self._read(tokens[known:])
        token = sampler.pick(logits[0])
        first = time.perf_counter()
        self.speed = Speed(len(tokens) - known, first - start)
        ends = set(self.tokenizer.chat.ends)
        while token not in ends and self.speed.new_tokens < max_new_tokens:
            self.speed.new_tokens += 1
            yield token
            if self.speed.new_tokens == max_new_tokens:
                break
            token = sampler.pick(self._read([token])[0])
            self.speed.seconds = time.perf_counter() - first

    def _reuse(self, tokens: Sequence[int]) -> int:
        """Crops the cache to what the prompt shares with it; all but the last token at most."""
        pairs = zip(self._seen, tokens[:-1], strict=False)
        known = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if known is None:
            known = min(len(self._seen), len(tokens) - 1)
        self._cache.crop(known)
        del self._seen[known:]
        return known

    def _read(self, tokens: Sequence[int]) -> Array:
        """Logits f32 [1, vocabulary] behind tokens."""
        self.engine.check_room(self._cache, len(tokens))
        for first in range(0, len(tokens), CHUNK):
            chunk = list(tokens[first : first + CHUNK])
            logits = self.engine.forward(np.array([chunk], np.int64), self._cache)
            self._seen += chunk
        return logits
