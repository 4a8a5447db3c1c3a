"""Where a model asks how a tensor lies in memory, which depends on how its arguments do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from graphopt.frontend.user_lines import asking_line

_QUESTIONS = frozenset(
    [
        torch.Tensor.stride,
        torch.Tensor.is_contiguous,
        torch.Tensor.storage_offset,
    ]
)


class MemoryQuestions(TorchFunctionMode):
    """While it is active, notes the lines of the user that ask for strides.

    Args:
        note: receives it, as `file:line`.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _QUESTIONS and (line := asking_line()):
            self._note(line)
        return func(*args, **(kwargs or {}))
