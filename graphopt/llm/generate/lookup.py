"""Drafts of the tokens that may come next: those that followed the same tokens before.

Saxena, "Prompt Lookup Decoding" (2023): speculative decoding (Leviathan et al., 2023) whose draft
costs no model. It helps where an answer repeats its prompt, as summaries and corrections do.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Lengths of the runs of tokens that are looked up, the first that is found counts. Runs of one
#: token mostly draft what is then refused.
_RUNS = (3, 2)


class PromptLookup:
    """Where each run of tokens was seen last.

    Args:
        tokens: the prompt.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Appends tokens that came."""
        for token in tokens:
            for length in _RUNS:
                if len(self._tokens) >= length:
                    self._after[tuple(self._tokens[-length:])] = len(self._tokens)
            self._tokens.append(token)

    def draft(self, count: int) -> list[int]:
        """At most `count` tokens that may come next; none where the last ones are new."""
        for length in _RUNS:
            found = self._after.get(tuple(self._tokens[-length:]))
            if found is not None:
                return self._tokens[found : found + max(count, 0)]
        return []
