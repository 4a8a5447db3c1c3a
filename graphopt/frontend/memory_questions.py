"""Where a model asks how a tensor lies in memory, which depends on how its arguments do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_QUESTIONS = frozenset(
    [
        torch.Tensor.stride,
        torch.Tensor.is_contiguous,
        torch.Tensor.storage_offset,
    ]
)
_MODES = os.path.dirname(__file__) + os.sep
_TORCH = os.path.dirname(torch.__file__) + os.sep


class MemoryQuestions(TorchFunctionMode):
    """While it is active, notes the first line outside of torch that asks for strides.

    Args:
        note: receives it, as `file:line`.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _QUESTIONS:
            frame = sys._getframe(1)
            while frame.f_back is not None and frame.f_code.co_filename.startswith(_MODES):
                frame = frame.f_back  # of another mode, through which the question went
            if not frame.f_code.co_filename.startswith(_TORCH):
                self._note(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return func(*args, **(kwargs or {}))
