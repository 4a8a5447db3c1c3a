"""Conversations with a compiled decoder, without torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.errors import CacheBusyError, EmptyPromptError
from graphopt.llm.generate.engine import Array, Engine
from graphopt.llm.generate.lookup import PromptLookup
from graphopt.llm.generate.sampling import Sampler
from graphopt.llm.generate.tokenizer import Tokenizer
from graphopt.runtime.process import Claim

#: Tokens of a prompt that go through the decoder at a time. Working memory grows with them (by 0.1
#: MiB each at the sizes of Llama 3.2 1B), and from here on speed hardly does: the weights are read
#: once per chunk. A multiple of the 24 queries that attention takes at once.
CHUNK = 96


@dataclass
class Speed:
    """What an answer took.

    Attributes:
        prompt_tokens: read before it, without those that the cache still had.
        prompt_seconds: until the first token was known.
        new_tokens: of the answer.
        calls: of the decoder for those behind the first; fewer than tokens where drafts were right.
        seconds: for those behind the first.
    """

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    new_tokens: int = 0
    calls: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        later = self.new_tokens - 1
        rate = later / self.seconds if later > 0 else float("nan")
        saved = f" in {self.calls + 1} calls" if self.calls < later else ""
        return (
            f"prompt: {self.prompt_tokens} tokens, {self.prompt_seconds:.2f} s; "
            f"answer: {self.new_tokens} tokens{saved}, {rate:.1f} tokens/s"
        )


class Chat:
    """A decoder, its tokenizer, and the tokens that its cache holds.

    Args:
        engine: the decoder.
        tokenizer: its tokenizer.

    Attributes:
        speed: of the last answer.
        drafts: tokens that prompt lookup drafts for each call of the decoder, which then checks
            them in one: the same answer in fewer calls where it repeats the prompt. 0 for none.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self.speed = Speed()
        self.drafts = 0
        self._cache = engine.new_cache()
        self._seen: list[int] = []
        self._busy = Claim()

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
            CacheBusyError: while another answer is not finished, in this thread or another.
        """
        if not len(tokens):
            raise EmptyPromptError
        if not self._busy.take():
            raise CacheBusyError
        try:
            yield from self._generate(tokens, sampler, max_new_tokens)
        finally:
            self._busy.give()

    def _generate(
        self, tokens: Sequence[int], sampler: Sampler, max_new_tokens: int
    ) -> Iterator[int]:
        start = time.perf_counter()
        known = self._reuse(tokens)
        came = [sampler.pick(self._read(tokens[known:])[0])]
        first = time.perf_counter()
        self.speed = speed = Speed(len(tokens) - known, first - start)
        lookup = PromptLookup(tokens if self.drafts else ())
        while speed.new_tokens < max_new_tokens:
            for token in came:
                if token in self.tokenizer.chat.ends:
                    return
                speed.new_tokens += 1
                yield token
            left = max_new_tokens - speed.new_tokens
            if left:
                lookup.extend(came)
                draft = lookup.draft(min(self.drafts, left - 1))
                came = self._next(came[-1], draft, sampler)
                speed.calls += 1
                speed.seconds = time.perf_counter() - first

    def _next(self, token: int, draft: Sequence[int], sampler: Sampler) -> list[int]:
        """The token behind `token`, and those behind it as far as the draft is right.

        The sampler sees the same logits as without a draft, one row for each token that comes.
        """
        before = len(self._seen)
        draft = draft[: max(self._cache.context - before - 1, 0)]
        logits = self._read([token, *draft], len(draft) + 1)
        came: list[int] = []
        for guess, row in zip([*draft, None], logits, strict=True):
            came.append(sampler.pick(row))
            if came[-1] != guess or guess in self.tokenizer.chat.ends:
                break
        self._forget(before + len(came))
        return came

    def _reuse(self, tokens: Sequence[int]) -> int:
        """Crops the cache to what the prompt shares with it; all but the last token at most."""
        pairs = zip(self._seen, tokens[:-1], strict=False)
        known = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if known is None:
            known = min(len(self._seen), len(tokens) - 1)
        self._forget(known)
        return known

    def _forget(self, length: int) -> None:
        """Crops what was seen. The cache comes last: at no moment does it hold less than that."""
        del self._seen[length:]
        self._cache.crop(length)

    def _read(self, tokens: Sequence[int], wanted: int = 1) -> Array:
        """Logits f32 [wanted, vocabulary] behind the last of `tokens`; all are of one chunk."""
        self.engine.check_room(self._cache, len(tokens))
        for first in range(0, len(tokens), CHUNK):
            chunk = list(tokens[first : first + CHUNK])
            rows = np.arange(max(len(chunk) - wanted, 0), len(chunk))
            logits = self.engine.forward(np.array([chunk], np.int64), self._cache, rows)
            self._seen += chunk
        return logits
